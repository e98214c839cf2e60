from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError, NotPermitted
from tests.support.samples.executables import DATA, RODATA, TEXT, Elf, Part, elf_file, write

SYMTAB, STRTAB = 2, 3


def three_parts(**more: object) -> Elf:
    parts = [
        Part(".text", TEXT, bytes(range(256)), 5),
        Part(".rodata", RODATA, b"read only", 4),
        Part(".data", DATA, b"\x11" * 64, 6, extra_memory=0x1000),
    ]
    return Elf(parts, **more)  # type: ignore[arg-type]


def saved(tmp_path: Path, elf: Elf) -> str:
    return str(write(tmp_path / "program", elf_file(elf)))


def test_segments_are_found_with_and_without_section_headers(tmp_path: Path) -> None:
    for section_headers in (True, False):
        with Executable.open(saved(tmp_path, three_parts(section_headers=section_headers))) as exe:
            assert [(s.address, s.memory_size, s.file_size, s.flags) for s in exe.segments] == [
                (TEXT, 256, 256, 5),
                (RODATA, 9, 9, 4),
                (DATA, 64 + 0x1000, 64, 6),
            ]
            assert exe.read(TEXT + 16, 4) == bytes([16, 17, 18, 19])
            assert os.pread(exe.fd, 9, exe.file_offset(RODATA)) == b"read only"
            assert (exe.section(".rodata") is not None) == section_headers


def test_static_and_dynamic_programs_are_told_apart(tmp_path: Path) -> None:
    with Executable.open(saved(tmp_path, three_parts())) as exe:
        assert (exe.machine, exe.pie, exe.interpreter) == ("amd64", False, None)
        assert (exe.stripped, exe.has_dwarf) == (True, False)
    dynamic = three_parts(pie=True, machine=183, interpreter="/lib/ld-musl-aarch64.so.1")
    with Executable.open(saved(tmp_path, dynamic)) as exe:
        assert (exe.machine, exe.pie, exe.interpreter) == ("arm64", True, "/lib/ld-musl-aarch64.so.1")


def test_other_machines_have_the_name_that_go_gives_them_or_a_number(tmp_path: Path) -> None:
    for number, name in ((243, "riscv64"), (0xFFF0, "e_machine 65520")):
        with Executable.open(saved(tmp_path, three_parts(machine=number))) as exe:
            assert exe.machine == name


def test_reads_end_where_the_file_backed_part_ends(tmp_path: Path) -> None:
    with Executable.open(saved(tmp_path, three_parts())) as exe:
        assert exe.read_up_to(DATA + 60, 100) == b"\x11" * 4
        for address, size in ((DATA + 60, 5), (DATA + 64, 1), (TEXT - 1, 1), (0, 8), (1 << 70, 1), (TEXT, -1)):
            with pytest.raises(BinaryError):
                exe.read(address, size)
        with pytest.raises(BinaryError):
            exe.file_offset(DATA + 64)


def test_build_ids_come_from_the_notes(tmp_path: Path) -> None:
    notes = [(b"Other\0", 9, b"12345"), (b"Go\0\0", 4, b"aa/bb/cc/dd"), (b"GNU\0", 3, bytes.fromhex("00ff10"))]
    with Executable.open(saved(tmp_path, three_parts(notes=notes))) as exe:
        assert exe.go_build_id == "aa/bb/cc/dd"
        assert exe.gnu_build_id == "00ff10"
    with Executable.open(saved(tmp_path, three_parts())) as exe:
        assert exe.go_build_id is None
        assert exe.gnu_build_id is None


def symbol(name: int, value: int, section: int) -> bytes:
    return struct.pack("<IBBHQQ", name, 0, 0, section, value, 0)


def test_symbols_are_looked_up_by_whole_name(tmp_path: Path) -> None:
    strings = b"\0runtime.mheap_\0runtime.mheap_.x\0main.main\0"
    table = symbol(0, 0, 0) + symbol(1, 0x1234, 1) + symbol(16, 0x5678, 1)
    table += symbol(33, 0x9999, 0) + symbol(9, 0x7777, 1)
    # Section numbers: the empty one, three loaded ones, .symtab, .strtab.
    elf = three_parts(unloaded=[(".symtab", SYMTAB, table, 5), (".strtab", STRTAB, strings, 0)])
    with Executable.open(saved(tmp_path, elf)) as exe:
        assert not exe.stripped
        wanted = ["runtime.mheap_", "mheap_", "main.main", "runtime.mheap", "", "runtime.absent", "x" * 100]
        found = exe.symbols(wanted)
        # A string table may share tails; main.main is undefined here.
        assert found == {"runtime.mheap_": 0x1234, "mheap_": 0x7777}
    with Executable.open(saved(tmp_path, three_parts())) as exe:
        assert exe.symbols(["runtime.mheap_"]) == {}


@pytest.mark.parametrize("name", [".debug_info", ".zdebug_info"])
def test_debugging_information_is_noticed(tmp_path: Path, name: str) -> None:
    with Executable.open(saved(tmp_path, three_parts(unloaded=[(name, 1, b"dwarf", 0)]))) as exe:
        assert exe.has_dwarf


@pytest.mark.parametrize("machine", [62, 183])
def test_pointers_of_a_pie_are_read_as_the_loader_leaves_them(tmp_path: Path, machine: int) -> None:
    relocations = {DATA + 24: RODATA, DATA + 8: TEXT + 5, DATA + 41: TEXT}
    with Executable.open(saved(tmp_path, three_parts(pie=True, machine=machine, relocations=relocations))) as exe:
        assert exe.read(DATA + 8, 8) == b"\x11" * 8
        assert exe.relocated(DATA + 8) == TEXT + 5
        assert exe.relocated(DATA + 24) == RODATA
        assert exe.relocated(DATA + 41) == TEXT
        assert exe.relocated(DATA) == 0x1111111111111111
        assert exe.relocated(DATA + 64) is None
        around = exe.read_relocated(DATA, 45)
        assert around[8:16] == (TEXT + 5).to_bytes(8, "little")
        assert around[24:32] == RODATA.to_bytes(8, "little")
        assert around[:8] == around[16:24] == b"\x11" * 8
        assert exe.pointers_to(RODATA) == [DATA + 24]


def test_pointers_of_a_fixed_program_are_found_in_its_data(tmp_path: Path) -> None:
    data = bytearray(3 << 20)
    places = [DATA, DATA + (1 << 20) - 8, DATA + (1 << 20), DATA + (3 << 20) - 8]
    for place in places:
        data[place - DATA : place - DATA + 8] = struct.pack("<Q", RODATA)
    data[4097:4105] = struct.pack("<Q", RODATA)
    elf = Elf([Part(".rodata", RODATA, b"x", 4), Part(".data", DATA, bytes(data), 6)])
    with Executable.open(saved(tmp_path, elf)) as exe:
        assert exe.pointers_to(RODATA) == places
        assert len(exe.pointers_to(RODATA, limit=2)) == 2
        assert exe.pointers_to(RODATA + 1) == []


def test_a_deleted_and_replaced_file_stays_readable(tmp_path: Path) -> None:
    path = saved(tmp_path, three_parts())
    with Executable.open(path) as exe:
        os.unlink(path)
        Path(path).write_bytes(b"something else")
        assert exe.read(RODATA, 9) == b"read only"


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_kills_nobody(tmp_path: Path) -> None:
    path = saved(tmp_path, three_parts())
    with Executable.open(path) as exe:
        os.truncate(path, 64)
        with pytest.raises(BinaryError, match="shorter"):
            exe.read(RODATA, 9)


def test_what_is_no_usable_elf_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    good = elf_file(three_parts())
    cases = {
        b"": "not an ELF file",
        b"#!/bin/sh\n": "not an ELF file",
        good[:40]: "truncated",
        good[:4] + b"\x01" + good[5:]: "32-bit",
        good[:5] + b"\x02" + good[6:]: "big-endian",
        good[:16] + b"\x01" + good[17:]: "ELF type 1",
        good[:1000]: "truncated",
        good[:-10]: "beyond",
    }
    for content, reason in cases.items():
        path = write(tmp_path / "broken", content)
        with pytest.raises(BinaryError, match=reason) as caught:
            Executable.open(path)
        assert str(path) in caught.value.what


@pytest.mark.parametrize("what", ["absent", "directory", "fifo", "nul\0byte"])
def test_what_is_no_file_at_all_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / what if "\0" not in what else what
    if what == "directory":
        os.mkdir(path)
    if what == "fifo":
        os.mkfifo(path)
    with pytest.raises(BinaryError):
        Executable.open(path)


def test_a_refused_file_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "broken", b"\x7fELF")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(BinaryError):
            Executable.open(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_overlapping_or_repeated_segments_are_refused(tmp_path: Path) -> None:
    overlapping = Elf([Part("a", TEXT, bytes(100), 4), Part("b", TEXT + 50, bytes(100), 4)])
    with pytest.raises(BinaryError, match="overlaps"):
        Executable.open(saved(tmp_path, overlapping))
    # Many segments that all claim the same megabyte of the file.
    repeated = bytearray(elf_file(Elf([Part(f"s{n}", n << 24, bytes(1 << 16), 4) for n in range(1, 9)])))
    first = struct.unpack_from("<Q", repeated, 64 + 8)[0]
    for index in range(8):
        struct.pack_into("<Q", repeated, 64 + 56 * index + 8, first)
        struct.pack_into("<QQ", repeated, 64 + 56 * index + 32, len(repeated) - first, len(repeated) - first)
    with pytest.raises(BinaryError, match="share"):
        Executable.open(write(tmp_path / "repeated", bytes(repeated)))


def test_a_refusal_by_the_kernel_is_told_apart_from_a_broken_file(tmp_path: Path) -> None:
    path = write(tmp_path / "program", elf_file(three_parts()))
    path.chmod(0)
    tmp_path.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(NotPermitted, match="ermission denied") as caught:
            Executable.open(path)
    finally:
        os.seteuid(user)
    assert "CAP_DAC_READ_SEARCH" in caught.value.fix
