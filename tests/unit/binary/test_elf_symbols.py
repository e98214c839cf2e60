from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.tracer.binary.elf import SHT_DYNSYM, SHT_SYMTAB
from gomem.tracer.binary.elf_symbols import ElfSymbols
from gomem.tracer.binary.executable import Executable
from tests.support.samples.executables import TEXT, Elf, Part, elf_file, write

LOCAL, GLOBAL = 0, 1
FUNC, OBJECT, IFUNC = 2, 1, 10
STRTAB = 3

Symbol = tuple[str, int, int, int, int]
"""Name, address, size, binding, type."""


def library(symbols: list[Symbol], kind: int = SHT_SYMTAB, link: int = 3) -> Elf:
    blob, rows = b"\0", bytearray(24)
    for name, address, size, binding, what in symbols:
        rows += struct.pack("<IBBHQQ", len(blob), binding << 4 | what, 0, 1, address, size)
        blob += name.encode() + b"\0"
    # One section with bytes comes first.
    unloaded = [("symbols", kind, bytes(rows), link), ("names", STRTAB, blob, 0)]
    return Elf([Part(".text", TEXT, bytes(4096), 5)], pie=True, unloaded=unloaded)


def names(directory: Path, elf: Elf, addresses: list[int]) -> list[str]:
    with Executable.open(write(directory / "library", elf_file(elf))) as exe:
        symbols = ElfSymbols.of(exe)
        found = [symbols.lines(address) for address in addresses]
        assert all(line.file == "" and line.line == 0 for lines in found for line in lines)
        return [lines[0].function if lines else "" for lines in found]


@pytest.mark.parametrize("kind", [SHT_SYMTAB, SHT_DYNSYM])
def test_a_function_goes_as_far_as_its_size(tmp_path: Path, kind: int) -> None:
    elf = library([("second", TEXT + 64, 16, GLOBAL, FUNC), ("first", TEXT, 32, LOCAL, FUNC)], kind)
    at = [TEXT - 1, TEXT, TEXT + 31, TEXT + 32, TEXT + 63, TEXT + 64, TEXT + 79, TEXT + 80, 1 << 64, -1]
    assert names(tmp_path, elf, at) == ["", "first", "first", "", "", "second", "second", "", "", ""]


def test_one_without_a_size_goes_up_to_the_next(tmp_path: Path) -> None:
    elf = library([("start", TEXT, 0, GLOBAL, FUNC), ("next", TEXT + 64, 16, GLOBAL, FUNC)])
    assert names(tmp_path, elf, [TEXT, TEXT + 63, TEXT + 64, TEXT + 80]) == ["start", "start", "next", ""]


def test_what_lies_within_a_function_comes_before_it(tmp_path: Path) -> None:
    elf = library([("outer", TEXT, 100, GLOBAL, FUNC), ("inner", TEXT + 40, 10, GLOBAL, FUNC)])
    assert names(tmp_path, elf, [TEXT + 39, TEXT + 40, TEXT + 49, TEXT + 50]) == ["outer", "inner", "inner", "outer"]


def test_of_many_names_the_one_that_people_use_is_told(tmp_path: Path) -> None:
    aliases = [("__libc_malloc", GLOBAL), ("malloc", GLOBAL), ("allocate", LOCAL), ("_malloc", GLOBAL)]
    elf = library([(name, TEXT, 16, binding, FUNC) for name, binding in aliases])
    assert names(tmp_path, elf, [TEXT + 8]) == ["malloc"]


def test_only_functions_are_told(tmp_path: Path) -> None:
    elf = library([("data", TEXT, 16, GLOBAL, OBJECT), ("memcpy", TEXT + 16, 16, GLOBAL, IFUNC)])
    assert names(tmp_path, elf, [TEXT + 8, TEXT + 20]) == ["", "memcpy"]


def test_without_symbols_nothing_is_known(tmp_path: Path) -> None:
    assert names(tmp_path, Elf([Part(".text", TEXT, bytes(64), 5)]), [TEXT]) == [""]
    # Names that are in no section.
    assert names(tmp_path, library([("first", TEXT, 32, GLOBAL, FUNC)], link=77), [TEXT]) == [""]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 1 << 32), st.integers(0, 255), st.integers(0, 2), st.integers(0, 1 << 64),
            st.integers(0, 1 << 64),
        ).map(lambda row: (row[0] % (1 << 32), row[1], row[2], row[3] % (1 << 64), row[4] % (1 << 64))),
        max_size=40,
    ),
    address=st.integers(0, (1 << 64) - 1),
)  # fmt: skip
def test_any_symbols_give_a_name_or_none(
    tmp_path: Path, rows: list[tuple[int, int, int, int, int]], address: int
) -> None:
    elf = library([])
    raw = b"".join(struct.pack("<IBBHQQ", name, info, 0, index, value, size) for name, info, index, value, size in rows)
    elf.unloaded = [("symbols", SHT_SYMTAB, raw, 3), elf.unloaded[1]]
    names(tmp_path, elf, [address, *(row[3] for row in rows)])
