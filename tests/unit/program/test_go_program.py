from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.kernel.maps import Mappings, parse_maps
from gomem.tracer.process.target import ExeIdentity
from gomem.tracer.program.go_program import GoProgram, load_bias, load_program, placed
from gomem.tracer.report import ProcessFacts
from tests.support.samples.executables import elf_file, go_elf, write

FACTS = ProcessFacts(pid=1, ns_pid=1, start_time="", exe="/app", cmdline=["/app"])
NOTHING = GoProgram(None, None, None, None)


def exe(*segments: tuple[int, int, int], pie: bool) -> Executable:
    """An executable with segments of (file offset, address, size in memory)."""
    rows = [SimpleNamespace(offset=offset, address=address, memory_size=size) for offset, address, size in segments]
    return cast(Executable, SimpleNamespace(pie=pie, segments=rows))


def identity(inode: int = 7) -> ExeIdentity:
    return cast(ExeIdentity, SimpleNamespace(inode=inode, device=99))


def maps(*lines: str) -> Mappings:
    return parse_maps("\n".join(lines).encode())


LOADED = maps(
    "555500000000-555500001000 r--p 00000000 08:01 9   /other",
    "555555554000-555555600000 r-xp 00000000 08:01 7   /app",
    "555555600000-555555700000 rw-p 000ac000 08:01 7   /app",
)
SEGMENTS = (0, 0, 0xABC01), (0xAC000, 0xAC000, 0x120000)


def test_a_program_that_is_not_position_independent_lies_where_it_was_linked() -> None:
    assert load_bias(exe(*SEGMENTS, pie=False), identity(), maps()) == 0


def test_the_bias_is_where_the_mapping_of_the_files_start_lies() -> None:
    assert load_bias(exe(*SEGMENTS, pie=True), identity(), LOADED) == 0x555555554000


def test_a_first_segment_that_is_linked_above_0_shifts_the_bias() -> None:
    shifted = exe((0x40, 0x400040, 0x1000), pie=True)
    assert load_bias(shifted, identity(), LOADED) == 0x555555554000 - 0x400000


@pytest.mark.parametrize("program", [exe(pie=True), exe((0x2000, 0x2000, 1), pie=True)])
def test_without_a_segment_for_the_files_start_there_is_no_bias(program: Executable) -> None:
    assert load_bias(program, identity(), LOADED) is None


def test_a_process_that_does_not_map_the_file_has_no_bias() -> None:
    assert load_bias(exe(*SEGMENTS, pie=True), identity(8), LOADED) is None
    assert load_bias(exe(*SEGMENTS, pie=True), identity(), maps()) is None


def test_segments_are_placed_in_whole_os_pages_and_the_device_is_the_mappings_own() -> None:
    where = placed(exe(*SEGMENTS, pie=True), identity(), LOADED, 0x555555554000)
    assert where.segments == ((0x555555554000, 0x555555600000), (0x555555600000, 0x555555720000))
    assert where.device == int(LOADED.device[1])
    assert where.covers(0x555555700000, 0x555555720000)  # bss
    assert placed(exe(*SEGMENTS, pie=True), identity(8), LOADED, 0).device == 99


def test_what_is_nothing_knows_nothing_and_fails_at_nothing() -> None:
    assert (NOTHING.is_go, NOTHING.readable, NOTHING.release) == (False, False, "")
    assert (NOTHING.has_function("main.main"), NOTHING.symbolize(4096, 0)) == (False, None)
    assert NOTHING.describe(FACTS) is FACTS
    NOTHING.close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF" + bytes(60), b"\x7fELF" * 1000])
def test_a_file_that_is_no_executable_becomes_a_limit(tmp_path: Path, content: bytes) -> None:
    program = load_program(str(write(tmp_path / "file", content)))
    assert (program.is_go, program.readable, program.globals) == (False, False, {})
    assert len(program.limits) == 1
    assert program.limits[0].why


def test_a_missing_file_becomes_a_limit(tmp_path: Path) -> None:
    assert len(load_program(str(tmp_path / "none")).limits) == 1


def test_functions_are_named_by_their_address_in_the_process(tmp_path: Path) -> None:
    sample = go_elf("1.20", [("runtime.text", 64), ("main.main", 128)])
    program = load_program(str(write(tmp_path / "go", elf_file(sample))))
    try:
        assert program.is_go
        assert program.functions is not None
        first = next(iter(program.functions))
        assert program.symbolize(first.entry + 0x1000, 0x1000) == first.name
        assert program.symbolize(first.entry, None) is None
        assert program.symbolize(8, 0) is None
        assert program.has_function(first.name)
        assert not program.has_function("no.such.function")
    finally:
        program.close()
