"""Layouts from DWARF: what Go's linker writes is understood, what is damaged is refused, in bounded time."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError, LayoutError
from gomem.tracer.layout.layout import Layout
from tests.support.dwarf import layout_from_dwarf
from tests.support.samples.dwarf import Dwarf, go_runtime, old_compressed, program
from tests.support.samples.executables import DATA


def read(path: Path, content: bytes) -> tuple[Layout, dict[str, int]]:
    path.write_bytes(content)
    with Executable.open(path) as exe:
        return layout_from_dwarf(exe)


@pytest.fixture(params=[4, 5], ids=["dwarf4", "dwarf5"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Layout, dict[str, int]]:
    return read(tmp_path / "program", program(go_runtime(request.param).sections()))


def test_globals_have_their_link_time_addresses(runtime: tuple[Layout, dict[str, int]]) -> None:
    assert runtime[1] == {"mheap_": 0x700000, "gcBitsArenas": 0x700F00, "class_to_size": DATA}


def test_release_and_architecture_come_from_the_file(runtime: tuple[Layout, dict[str, int]]) -> None:
    layout = runtime[0]
    assert layout.go_version in ("1.24.3", "1.25.3")
    assert (layout.goarch, layout.source) == ("amd64", "dwarf")


def test_fields_of_anonymous_structs_are_dotted_and_count_from_the_outermost(
    runtime: tuple[Layout, dict[str, int]],
) -> None:
    layout = runtime[0]
    assert layout.offset("mheap", "curArena.end") == 16
    assert layout.offset("gcBitsArenas", "end") == 8
    assert layout.globals["gcBitsArenas"].type == "struct"


def test_fields_of_array_elements_count_from_the_element(runtime: tuple[Layout, dict[str, int]]) -> None:
    central = runtime[0].field("mheap", "central")
    assert (central.offset, central.size, central.count, central.stride) == (32, 3264, 136, 24)
    assert runtime[0].offset("mheap", "central[].pad") == 16
    assert runtime[0].offset("mheap", "central[].mcentral.full") == 8


def test_a_struct_held_by_value_gets_a_row_and_blank_fields_none(runtime: tuple[Layout, dict[str, int]]) -> None:
    assert list(runtime[0].fields("mcentral")) == ["spanclass", "full"]


def test_a_struct_is_not_mistaken_for_the_pointer_type_whose_name_ends_like_it(
    runtime: tuple[Layout, dict[str, int]],
) -> None:
    assert runtime[0].size("mspan") == 16
    assert runtime[0].offset("mspan", "npages") == 8


def test_constants_are_read_signed_and_addresses_unsigned(runtime: tuple[Layout, dict[str, int]]) -> None:
    assert runtime[0].constant("palloc_chunk_pages") == 512
    assert runtime[0].constant("arena_base_offset") == 0xFFFF800000000000
    assert runtime[0].constants("class_to_size") == (0, 8, 16)


def test_sections_compressed_the_old_way_are_inflated(tmp_path: Path) -> None:
    plain = read(tmp_path / "plain", program(go_runtime().sections()))
    packed = read(tmp_path / "packed", program(old_compressed(go_runtime().sections())))
    assert packed[1] == plain[1]
    assert packed[0].fields("mheap") == plain[0].fields("mheap")


def test_an_executable_without_dwarf_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="has no DWARF") as refusal:
        read(tmp_path / "program", program({}))
    assert "-ldflags=-w" in refusal.value.fix


def test_dwarf_of_another_language_is_refused(tmp_path: Path) -> None:
    dwarf = Dwarf(producer="GNU C17 12.2.0")
    dwarf.base("int", 4)
    dwarf.variable("main", "int", 0x1000)
    with pytest.raises(LayoutError, match="does not describe a Go runtime"):
        read(tmp_path / "program", program(dwarf.sections()))


def test_a_section_that_claims_to_inflate_without_measure_is_refused(tmp_path: Path) -> None:
    sections = old_compressed(go_runtime().sections())
    info = sections[".zdebug_info"]
    sections[".zdebug_info"] = info[:4] + struct.pack(">Q", 1 << 40) + info[12:]
    with pytest.raises(LayoutError, match="claims to inflate"):
        read(tmp_path / "program", program(sections))


def test_a_circle_of_type_definitions_ends(tmp_path: Path) -> None:
    dwarf = Dwarf()
    dwarf.typedef("a", "runtime.a", "b")
    dwarf.typedef("b", "runtime.b", "a")
    dwarf.variable("runtime.mheap_", "a", 0x700000)
    with pytest.raises(LayoutError, match="circle"):
        read(tmp_path / "program", program(dwarf.sections()))


def test_a_struct_that_holds_itself_ends(tmp_path: Path) -> None:
    dwarf = Dwarf()
    dwarf.struct("a", "struct { runtime.a a; runtime.b a }", 8, [("a", 0, "a"), ("b", 0, "a")])
    dwarf.variable("runtime.mheap_", "a", 0x700000)
    with pytest.raises(LayoutError, match="without end"):
        read(tmp_path / "program", program(dwarf.sections()))


def test_a_struct_that_holds_itself_a_thousand_times_under_one_name_ends(tmp_path: Path) -> None:
    dwarf = Dwarf()
    dwarf.struct("a", "struct { runtime.a a }", 8, [("a", 0, "a")] * 1000)
    dwarf.variable("runtime.mheap_", "a", 0x700000)
    with pytest.raises(LayoutError, match="without end"):
        read(tmp_path / "program", program(dwarf.sections()))


def test_a_location_that_is_no_address_leaves_the_global_out(tmp_path: Path) -> None:
    dwarf = go_runtime(5)
    sections = dwarf.sections()
    at = sections[".debug_info"].index(b"runtime.gcBitsArenas\0") + len(b"runtime.gcBitsArenas\0")
    assert sections[".debug_info"][at : at + 2] == b"\x02\xa1"
    damaged = bytearray(sections[".debug_info"])
    damaged[at + 2] = 0x80
    addresses = read(tmp_path / "program", program({**sections, ".debug_info": bytes(damaged)}))[1]
    assert "gcBitsArenas" not in addresses
    assert "mheap_" in addresses


@pytest.mark.parametrize("version", [4, 5])
def test_every_truncation_is_refused_or_read(version: int, tmp_path: Path) -> None:
    sections = go_runtime(version).sections()
    for name in (".debug_info", ".debug_abbrev"):
        for length in range(0, len(sections[name]), 7):
            try:
                read(tmp_path / "program", program({**sections, name: sections[name][:length]}))
            except (BinaryError, LayoutError):
                continue


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    version=st.sampled_from([4, 5]),
    name=st.sampled_from([".debug_info", ".debug_abbrev", ".debug_addr"]),
    damage=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_dwarf_ends_in_our_errors_quickly(
    tmp_path: Path, version: int, name: str, damage: list[tuple[int, int]]
) -> None:
    sections = go_runtime(version).sections()
    content = bytearray(sections[name])
    for place, value in damage:
        content[place % len(content)] = value
    tracemalloc.start()
    started = time.process_time()
    try:
        read(tmp_path / "program", program({**sections, name: bytes(content)}))
    except (BinaryError, LayoutError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.process_time() - started < 5
    assert peak < 64 << 20
