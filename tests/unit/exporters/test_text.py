"""The page. To accept a changed one, run with GOMEM_UPDATE_GOLDEN=1, and look at the diff of golden/."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.json_report import render_json
from exporters.text import render_for, render_text
from exporters.verdict import verdict
from tests.unit.exporters.samples import SAMPLES, grown_and_scavenged, kernel_only, launched, lazily_freed
from tracer.findings import find
from tracer.report import Finding, KindRow, Limit, LoggedEvent, Report, Transition

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "\x1b[31mred\x1b[0m \x07 \x9b2J [bold]markup[/] :smile: \u202e\n\r\t\udcff\x00 [/nothing]"

every_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


def section(page: str, title: str) -> str:
    """The lines of a section of a plain page; `title` is a regular expression."""
    found = re.search(rf"^{title}.*?(?=\n\n|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {title}"
    return found.group()


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [80, 100])
def test_page_is_as_in_the_golden_file(name: str, width: int) -> None:
    page = render_text(SAMPLES[name](), width=width)
    golden = GOLDEN / f"{name}.{width}.txt"
    if os.environ.get("GOMEM_UPDATE_GOLDEN"):
        golden.write_text(page)
    assert page.splitlines() == golden.read_text().splitlines()


@every_sample
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_plain_page_is_ascii_and_fits(sample: Callable[[], Report], width: int) -> None:
    page = render_text(sample(), width=width)
    assert page.isascii()
    assert all(line.isprintable() for line in page.splitlines())
    assert max(len(line) for line in page.splitlines()) <= width
    assert page.endswith("\n")


@every_sample
def test_terminal_page_has_colour_and_says_the_same(
    sample: Callable[[], Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    page = render_text(sample(), width=100, terminal=True, blocks=False)
    assert "\x1b[" in page
    bare = re.sub(r"\x1b\[[0-9;]*m", "", page)
    assert [line.rstrip() for line in bare.splitlines()] == render_text(sample(), width=100).splitlines()


def test_pages_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = render_text(lazily_freed())
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "40"), ("TTY_COMPATIBLE", "1"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    assert render_text(lazily_freed()) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", render_text(lazily_freed(), terminal=True))


def test_a_pipe_gets_the_plain_page() -> None:
    assert render_for(lazily_freed(), io.StringIO()) == render_text(lazily_freed())


def test_verdict_says_what_rss_is_made_of() -> None:
    assert verdict(lazily_freed()).startswith(
        "RSS 739 MiB: 512 MiB is memory the Go runtime already gave back (MADV_FREE) and the kernel may take any time"
    )
    assert verdict(lazily_freed()).endswith("the live heap is 17.0 MiB.")
    assert "no Go runtime was found" in verdict(kernel_only())


def test_rss_table_shows_every_byte_once() -> None:
    rows = section(render_text(lazily_freed()), r"RSS \S+ MiB  ").splitlines()
    assert any("2 more kinds" in row for row in rows)
    assert rows[-1].split()[:3] == ["sum", "739", "MiB"]


def test_swap_column_appears_only_with_swap() -> None:
    report = lazily_freed()
    assert report.kinds is not None
    assert "swap" not in section(render_text(report), r"RSS \S+ MiB  ")
    swapped = [replace(report.kinds[0], swap=5 << 20), *report.kinds[1:]]
    page = section(render_text(replace(report, kinds=swapped)), r"RSS \S+ MiB  ")
    assert "swap" in page.splitlines()[1]
    assert page.count("5.00 MiB") == 2


def test_long_event_log_is_cut_and_the_rest_counted() -> None:
    log = section(render_text(launched()), "First events").splitlines()
    assert len(log) == 1 + 1 + 15 + 1
    assert log[-1].strip() == "and 5 more, of which 3 were not kept"


def test_nothing_that_happened_is_said_so() -> None:
    page = render_text(replace(grown_and_scavenged(), events={}, madvise={}, transitions=[]))
    assert "no system call or runtime event" in page


def hostile() -> Report:
    report = launched()
    assert report.kinds is not None
    cgroup = grown_and_scavenged().process.cgroup
    assert cgroup is not None
    return replace(
        report,
        backend_reason=HOSTILE,
        process=replace(
            report.process, exe=f"/tmp/{HOSTILE}", cmdline=[HOSTILE], go_version=HOSTILE, main_module=HOSTILE,
            pod=HOSTILE, container_id=HOSTILE, cgroup=replace(cgroup, path=HOSTILE)),
        kinds=[*report.kinds, KindRow(HOSTILE, 1, 4096, 0, 0, 0, 4096, 0)],
        transitions=[Transition("None", "Ready", "alloc", HOSTILE, 1, 1)],
        events={HOSTILE: next(iter((report.events or {}).values())), "madvise": (report.events or {})["mmap"]},
        madvise={HOSTILE: (report.events or {})["mmap"]},
        event_log=[LoggedEvent(0.1, HOSTILE, 1, 1, HOSTILE, [HOSTILE])],
        findings=[Finding("x", "info", HOSTILE, HOSTILE, {}, HOSTILE)],
        limits=[Limit(HOSTILE, HOSTILE, HOSTILE)],
    )  # fmt: skip


@pytest.mark.parametrize("width", [60, 160])
def test_words_of_the_target_cannot_reach_the_terminal(width: int) -> None:
    page = render_text(hostile(), width=width)
    assert all(line.isprintable() for line in page.splitlines())
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", render_text(hostile(), width=width, terminal=True))
    assert all(line.isprintable() for line in coloured.splitlines())
    assert "[bold]markup[/]" in page
    assert ":smile:" in page
    assert "\\x1b[31mred" in page


def test_a_hostile_length_does_not_flood_the_page() -> None:
    report = launched()
    long = "x" * 1_000_000
    process = replace(report.process, exe="/" + long, main_module=long, go_version=long, pod=long)
    transitions = [Transition("None", "Ready", "alloc", long, 1, 1)]
    assert len(render_text(replace(report, process=process, transitions=transitions))) < 20_000


def holes(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all fields of a report that its types allow to be None, and of its lists and dictionaries."""
    found: list[tuple[str, ...]] = []
    for field in fields(value):
        here = (*path, field.name)
        kind = str(field.type)
        if "None" in kind or kind.startswith(("list", "dict")):
            found.append(here)
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            found += holes(inner, here)
    return found


def punched(value: Any, path: tuple[str, ...]) -> Any:
    inner = getattr(value, path[0], None)
    if len(path) > 1:
        return value if inner is None else replace(value, **{path[0]: punched(inner, path[1:])})
    allows_none = "None" in str(next(field.type for field in fields(value) if field.name == path[0]))
    empty: object = None if allows_none else [] if isinstance(inner, list) else {}
    return replace(value, **{path[0]: empty})


HOLES = sorted({path for sample in SAMPLES.values() for path in holes(sample())})


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.sets(st.sampled_from(HOLES), max_size=12), st.booleans())
def test_missing_parts_never_break_a_renderer_or_a_rule(
    name: str, missing: set[tuple[str, ...]], terminal: bool
) -> None:
    report = SAMPLES[name]()
    for path in sorted(missing):
        report = punched(report, path)
    report = replace(report, findings=find(report))
    page = render_text(report, width=80, terminal=terminal)
    assert verdict(report) in " ".join(re.sub(r"\x1b\[[0-9;]*m", "", page).split())
    assert "None" not in re.sub(r"None to|to None", "", page)
    render_json(report)


@pytest.mark.parametrize("path", HOLES, ids=".".join)
def test_each_missing_part_alone_breaks_nothing(path: tuple[str, ...]) -> None:
    full = replace(grown_and_scavenged(), event_log=launched().event_log)
    report = punched(full, path)
    render_text(replace(report, findings=find(report)), width=100)


def test_missing_memstats_fields_are_unknown_and_not_zero() -> None:
    page = section(render_text(replace(lazily_freed(), memstats={"HeapInuse": 5, "Sys": None})), "MemStats")
    assert "Sys ?" in page
    assert "HeapInuse 5 B" in page
