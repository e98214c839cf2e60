"""The committed tables are what the toolchains say."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.layout.dwarf import read_raw_layout
from gomem.tracer.layout.tables import table_for
from tests.live.layout.conftest import probe
from tests.support.builds import build
from tests.support.dwarf import layout_from_dwarf
from tests.support.toolchains import toolchain


@pytest.mark.parametrize("goarch", ["amd64", "arm64"])
def test_the_committed_table_is_what_the_toolchain_says(any_release: str, goarch: str) -> None:
    with Executable.open(probe(any_release, goarch)) as exe:
        raw, _ = read_raw_layout(exe)
    minor = ".".join(any_release.split(".")[:2])
    name = f"go{minor}-{goarch}.json"
    committed = json.loads(files("gomem.tracer.layout").joinpath("tables", name).read_text(encoding="utf-8"))
    fix = (
        f"regenerate it: python -m gomem.tracer.layout.generate --goarch {goarch} --toolchain {toolchain(any_release)}"
    )
    for section in ("go", "goarch", "constants", "globals", "structs"):
        assert json.loads(json.dumps(raw[section])) == committed[section], fix


@pytest.mark.parametrize("goarch", ["amd64", "arm64"])
def test_dwarf_and_table_answer_alike(any_release: str, goarch: str) -> None:
    with Executable.open(probe(any_release, goarch)) as exe:
        dwarf, addresses = layout_from_dwarf(exe)
    table = table_for(f"go{dwarf.go_version}", goarch)
    assert table is not None
    assert table.confirmed
    assert set(addresses) == set(table.globals)
    for struct in ("mheap", "mspan", "mstats", "mcache", "p", "m", "heapArena", "debug", "work"):
        assert dwarf.fields(struct) == table.fields(struct)
        if dwarf.has_struct(struct):
            assert dwarf.size(struct) == table.size(struct)


def test_addresses_and_layout_survive_every_way_of_linking(release: str) -> None:
    """PIE and the system's linker move the globals, and their symbols say whereto; the structs stay."""
    fields = []
    for mode in ("exe", "pie", "cgo", "cgo-pie"):
        with Executable.open(build("tiny", release, mode=mode)) as exe:
            layout, addresses = layout_from_dwarf(exe)
            symbols = exe.symbols([f"runtime.{name}" for name in addresses])
        assert symbols == {f"runtime.{name}": address for name, address in addresses.items()}
        fields.append({struct: layout.fields(struct) for struct in ("mheap", "mspan", "mstats")})
    assert all(each == fields[0] for each in fields)
