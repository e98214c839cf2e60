"""Damaged executables: nothing but a BinaryError, in bounded time, with no more memory than the file calls for."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.tracer.binary.buildinfo import read_build_info
from gomem.tracer.binary.code import references
from gomem.tracer.binary.elf_symbols import ElfSymbols
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.binary.symbols import Symbolizer
from gomem.tracer.errors import BinaryError, LayoutError
from gomem.tracer.layout.dwarf import read_raw_layout
from tests.support.samples.executables import (
    DATA,
    MAGIC,
    TEXT,
    Elf,
    Part,
    elf_file,
    encode_pclntab,
    go_elf,
    inline_build_info,
    write,
)

FUNCTIONS = [("runtime.text", 16), ("runtime.mallocinit", 64), ("main.main", 48)]


def whole_program(version: str, pie: bool) -> bytes:
    elf = go_elf(version, FUNCTIONS, pie=pie)
    elf.notes = [(b"GNU\0", 3, b"id"), (b"Go\0\0", 4, b"a/b/c/d")]
    elf.interpreter = "/lib/ld.so"
    elf.parts.append(Part(".go.buildinfo", DATA + 0x10000, inline_build_info("go1.21.0", "path\tx\n"), 6))
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0, 0, 1, TEXT, 16)
    strings_index = len(elf.parts) + (2 if elf.relocations else 0) + 2
    elf.unloaded = [(".symtab", 2, symbols, strings_index), (".strtab", 3, b"\0runtime.text\0", 0)]
    return elf_file(elf)


PROGRAMS = {(version, pie): whole_program(version, pie) for version in MAGIC for pie in (False, True)}


def exercise(path: Path) -> None:
    """Use everything there is on the file; pass when each part gives a result or a BinaryError that names it."""
    errors: list[BinaryError] = []
    with contextlib.ExitStack() as stack:
        try:
            exe = stack.enter_context(Executable.open(path))
        except BinaryError as error:
            errors.append(error)
            uses: list[Callable[[], object]] = []
        else:
            uses = everything(exe)
        for use in uses:
            try:
                use()
            except BinaryError as error:
                errors.append(error)
    assert all(str(path) in error.what for error in errors)


def everything(exe: Executable) -> list[Callable[[], object]]:
    return [
        lambda: read_build_info(exe),
        lambda: (exe.interpreter, exe.gnu_build_id, exe.go_build_id, exe.stripped, exe.has_dwarf),
        lambda: exe.symbols(["runtime.text", "main.main", ""]),
        lambda: exe.pointers_to(TEXT),
        lambda: exe.relocated(DATA + 64),
        lambda: use_dwarf(exe),
        lambda: use_functions(exe),
    ]


def use_dwarf(exe: Executable) -> None:
    with contextlib.suppress(LayoutError):
        read_raw_layout(exe)


def use_functions(exe: Executable) -> None:
    table = FunctionTable.find(exe)
    list(table)
    table.at(TEXT + 20)
    for function in table.lookup("runtime.mallocinit"):
        references(exe, function)
    symbolizer = Symbolizer.of(exe, table)
    for function in itertools.islice(table, 10):
        symbolizer.lines(function.entry + 1)
    ElfSymbols.of(exe).lines(TEXT)


def test_the_undamaged_program_is_read(tmp_path: Path) -> None:
    for content in PROGRAMS.values():
        with Executable.open(write(tmp_path / "program", content)) as exe:
            info = read_build_info(exe)
            assert info is not None
            assert info.go_version == "go1.21.0"
            assert [(f.name, f.end - f.entry) for f in FunctionTable.find(exe)] == FUNCTIONS
            assert exe.symbols(["runtime.text"]) == {"runtime.text": TEXT}
            assert (exe.interpreter, exe.go_build_id) == ("/lib/ld.so", "a/b/c/d")


nasty = [b"\xff" * 8, bytes(8), b"\xff" * 7 + b"\x7f", struct.pack("<Q", 1 << 31), struct.pack("<Q", TEXT)]
interesting = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(nasty))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    which=st.sampled_from(list(PROGRAMS)),
    damage=st.lists(st.tuples(st.floats(0, 1), interesting), min_size=1, max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_flipped_bytes_and_truncation_are_survived(
    tmp_path: Path, which: tuple[str, bool], damage: list[tuple[float, bytes]], kept: float
) -> None:
    content = bytearray(PROGRAMS[which])
    used = [at for at, byte in enumerate(content) if byte]
    for place, value in damage:
        # Most of the file is padding: damage what says something.
        at = used[int(place * (len(used) - 1))]
        content[at : at + len(value)] = value
    path = write(tmp_path / "program", bytes(content[: int(kept * len(content))]))
    began = time.process_time()
    exercise(path)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("which", [("1.20", True), ("1.2", False)])
def test_every_field_of_the_headers_may_be_wrong(tmp_path: Path, which: tuple[str, bool]) -> None:
    content = PROGRAMS[which]
    for at in range(16, 64 + 56 * 9, 2):
        for value in (b"\xff\xff", b"\x00\x00", b"\x00\x80"):
            exercise(write(tmp_path / "program", content[:at] + value + content[at + 2 :]))


def peak_and_seconds(path: Path) -> tuple[int, float]:
    tracemalloc.start()
    begin = time.process_time()
    try:
        exercise(path)
        return tracemalloc.get_traced_memory()[1], time.process_time() - begin
    finally:
        tracemalloc.stop()


def huge_counts() -> dict[str, bytes]:
    """Return files of 4 MB, each built to make a careless reader loop or allocate."""
    size = 4 << 20
    table = bytearray(encode_pclntab("1.20", FUNCTIONS).raw)
    struct.pack_into("<Q", table, 8, 1 << 62)
    headers = bytes.fromhex("f1ffffff00000108") + struct.pack("<8Q", 1000, 0, TEXT, 72, 72, 72, 72, 72)
    dense = {
        "pclntab headers": headers * (size // len(headers)),
        "magic tails": b"\xff\xff\xff\0\0" * (size // 5),
        "build magic": (b"\xff Go buildinf:\x08\x02" + b"\xff" * 16) * (size // 32),
        "pointers": struct.pack("<Q", 0x500000) * (size // 8),
        "zeros": bytes(size),
        "count": bytes(table).ljust(size, b"\0"),
    }
    made = {
        name: elf_file(Elf([Part(".text", TEXT, b"\xc3", 5), Part(".x", 0x500000, content, 6)]))
        for name, content in dense.items()
    }
    # One name of 4 MB that all sections and symbols share.
    names = b"n" * size
    elf = Elf([Part(".text", TEXT, b"\xc3", 5)])
    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 1, 0, 0) * (size // 24)
    elf.unloaded = [(".symtab", 2, symbols, 3), (".strtab", 3, names, 0)]
    made["symbols"] = elf_file(elf)
    elf = go_elf("1.20", FUNCTIONS, pie=True)
    elf.relocations |= {DATA + 1024 + 8 * n: 0x500000 for n in range(size // 24)}
    made["relocations"] = elf_file(elf)
    return made


def test_made_up_counts_cost_neither_time_nor_memory(tmp_path: Path) -> None:
    for name, content in huge_counts().items():
        peak, seconds = peak_and_seconds(write(tmp_path / "program", content))
        print(f"{name}: {len(content)} bytes, peak {peak}, {seconds:.2f} s")
        assert peak < 3 * len(content) + (2 << 20), name
        assert seconds < 5, name


def grown(path: Path, content: bytes, header_at: int, size_at: tuple[int, ...], size: int) -> Path:
    """Write a sparse file in which a header claims `size` bytes."""
    raw = bytearray(content)
    for at in size_at:
        struct.pack_into("<Q", raw, header_at + at, size)
    write(path, bytes(raw))
    os.truncate(path, size + len(raw))
    return path


def test_a_sparse_file_of_terabytes_costs_no_more_than_a_small_one(tmp_path: Path) -> None:
    elf = go_elf("1.20", FUNCTIONS)
    elf.unloaded = [(".symtab", 2, bytes(48), 5), (".strtab", 3, b"\0x\0", 0)]
    content = elf_file(elf)
    sections = struct.unpack_from("<Q", content, 40)[0]
    huge = 1 << 40
    last_segment = grown(tmp_path / "segment", content, 64 + 56 * 2, (32, 40), huge)
    with pytest.raises(BinaryError, match="segments of"):
        Executable.open(last_segment)
    for index in (4, 5):  # .symtab, .strtab
        path = grown(tmp_path / f"section-{index}", content, sections + 64 * index, (32,), huge)
        with Executable.open(path) as exe, pytest.raises(BinaryError, match="symbol table"):
            exe.symbols(["x"])
        peak, seconds = peak_and_seconds(path)
        assert peak < 1 << 20
        assert seconds < 1
