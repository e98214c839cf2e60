"""Which layout a program is read with, and what is said of it, for programs that have DWARF and such that have not."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gomem.tracer.binary.buildinfo import read_build_info
from gomem.tracer.binary.executable import Executable
from gomem.tracer.layout import dwarf_cache
from gomem.tracer.layout.comparison import contradictions
from gomem.tracer.layout.layout import Layout
from gomem.tracer.program import layout_choice as program_layout
from gomem.tracer.program.layout_choice import LayoutChoice, choose_layout
from tests.live.layout.conftest import probe
from tests.support.builds import build
from tests.support.toolchains import ALL_RELEASES

RELEASE = "1.25.5"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dwarf_cache, "cache_directory", lambda name: tmp_path)


def raw_table(minor: str) -> Any:
    name = f"go{minor}-amd64.json"
    return json.loads(files("gomem.tracer.layout").joinpath("tables", name).read_text(encoding="utf-8"))


def choice(path: Path, release: str | None = None) -> LayoutChoice:
    """Choose for the program at `path`, as if its build information named `release`."""
    with Executable.open(path) as exe:
        info = read_build_info(exe)
        assert info is not None
        if release is not None:
            info = replace(info, go_version=release)
        return choose_layout(exe, info, "1.20")


@pytest.mark.parametrize("release", ALL_RELEASES)
def test_dwarf_is_preferred_and_agrees_with_the_table_of_every_release(release: str) -> None:
    chosen = choice(probe(release, "amd64"))
    assert chosen.layout is not None
    assert (chosen.layout.source, chosen.layout.confirmed) == ("dwarf", True)
    assert chosen.limits == ()
    assert {"mheap_", "memstats", "gcController", "allp"} <= set(chosen.addresses)


def test_a_table_that_dwarf_contradicts_is_named_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_table("1.25")
    raw["structs"]["mspan"]["fields"]["elemsize"]["offset"] += 8
    raw["structs"]["mcache"]["size"] += 8
    raw["constants"]["heap_arena_bytes"] *= 2
    monkeypatch.setattr(program_layout, "table_for", lambda release, goarch: Layout(raw, "table", release))
    chosen = choice(probe(RELEASE, "amd64"))
    assert chosen.layout is not None
    assert chosen.layout.source == "dwarf"
    (limit,) = chosen.limits
    assert limit.what == "the layout table of go1.25.5 for go1.25.5"
    for word in ("mspan.elemsize", "mcache of", "heap_arena_bytes", "DWARF"):
        assert word in limit.why
    assert limit.kind == "note"
    assert "python" not in limit.fix


def test_only_what_both_layouts_have_is_compared() -> None:
    raw = raw_table("1.25")
    smaller = copy.deepcopy(raw)
    del smaller["structs"]["mheap"]["size"], smaller["structs"]["mspan"]["fields"]["list"]
    del smaller["structs"]["schedt"], smaller["constants"]["page_size"]
    assert contradictions(Layout(raw, "table"), Layout(smaller, "dwarf")) == []
    assert contradictions(Layout(smaller, "table"), Layout(raw, "dwarf")) == []


@pytest.mark.parametrize("release", ["go1.99.1", "devel go1.28-0123abcd Mon Jun 1 12:00:00 2026 +0000"])
def test_an_unknown_release_with_dwarf_is_read_by_it_but_doubted(release: str) -> None:
    chosen = choice(probe(RELEASE, "amd64"), release)
    assert chosen.layout is not None
    assert (chosen.layout.source, chosen.layout.confirmed) == ("dwarf", False)
    assert [limit.what for limit in chosen.limits] == [f"certainty about {release}"]


@pytest.mark.parametrize(
    ("release", "source", "confirmed"),
    [
        ("go1.25.5", "table", True),
        ("go1.25.3", "table", True),
        ("go1.25.99", "table", False),
        ("go1.25.5-fips", "table", False),
        ("go1.25.5 X:staticlockranking", "table", False),
        ("go1.27rc1", "table", False),
        ("go1.99.1", "nearest", False),
        ("devel go1.28-0123abcd Mon Jun 1 12:00:00 2026 +0000", "nearest", False),
        ("go1.26-devel_0123abcd", "nearest", False),
    ],
)
def test_without_dwarf_the_table_is_confirmed_only_for_what_was_measured(
    release: str, source: str, confirmed: bool
) -> None:
    chosen = choice(build("parked", RELEASE, stripped=True), release)
    assert chosen.layout is not None
    assert (chosen.layout.source, chosen.layout.confirmed) == (source, confirmed)
    known = confirmed or release == "go1.25.99"  # a patch release proves itself on the live process, or is not read
    said = [] if known else [(f"certainty about {release}", "note")]
    assert [(limit.what, limit.kind) for limit in chosen.limits] == said


@pytest.mark.parametrize("release", ["", "unknown", "devel +0123abcd"])
def test_a_release_that_cannot_be_read_may_be_any_that_writes_such_a_function_table(release: str) -> None:
    chosen = choice(build("parked", RELEASE, stripped=True), release)
    assert chosen.layout is not None
    tried = [chosen.layout, *chosen.others]
    assert [layout.go_version for layout in tried] == [f"go1.{minor}" for minor in range(27, 19, -1)]
    assert {(layout.source, layout.confirmed) for layout in tried} == {("nearest", False)}
    assert [(limit.what, limit.kind) for limit in chosen.limits] == [("certainty about its Go release", "note")]
    assert (repr(release) in chosen.limits[0].why) is bool(release)
