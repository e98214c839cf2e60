"""The function table (pclntab) that every Go program carries, stripped or not: names and entry addresses."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator

import numpy as np
from msgspec import Struct

from gomem.tracer.binary.elf import PF_X, SHT_NOBITS, Malformed
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.moduledata import find_moduledata
from gomem.tracer.binary.names import MAX_NAME, name_at, read_name, rows_beginning, rows_named
from gomem.tracer.binary.pclntab_format import MAGICS, QUANTA, Table, decode, read_header
from gomem.tracer.errors import BinaryError

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
# The size of the smallest instruction, where it is known: it stands in the header behind the magic.
_QUANTUM = {"amd64": (1,), "arm64": (4,)}
_MAX_CANDIDATES = 32
_SINCE_1_20 = "runtime.(*mspan).setUserArenaChunkToFault"
# The largest Go programs have less than a hundred megabytes of it.
_MAX_TABLE = 1 << 28


class Function(Struct, frozen=True):
    """A function of the program: link-time addresses; `end` is the next one's entry (padding included)."""

    name: str
    entry: int
    end: int


class FunctionTable:
    """Lookup of functions by name and by address; all addresses are link-time addresses.

    `version` is the format's ("1.2", "1.16", "1.18", "1.20"), `header` where the table's parts are, `text_start` the
    address of runtime.text, `count` the number of functions, `address` where the table is, `moduledata` where
    runtime.firstmoduledata is (None where it was not found).
    """

    def __init__(self, table: Table, address: int, text_start: int, moduledata: int | None) -> None:
        self.version = table.header.version
        self.header = table.header
        self.address = address
        self.text_start = text_start
        self.moduledata = moduledata
        self.count = len(table.name_offsets)
        self._entries = table.entries + np.uint64(text_start if table.header.relative else 0)
        self._offsets = table.name_offsets
        self._names: bytes | None = table.names
        self._names_at = address + table.header.names
        self._names_size = len(table.names)
        self._exe: Executable | None = None

    @classmethod
    def find(cls, exe: Executable) -> FunctionTable:
        """Find and check the table; BinaryError when there is none or it is corrupt.

        Its sections are tried first, then every place in the segments that looks like its header. The place that a
        moduledata describes wins: a program may carry another program's table in its data.
        """
        fallback: FunctionTable | None = None
        reason = "it has no function table (pclntab), so it is no Go program"
        for address in _candidates(exe):
            try:
                functions = _load(exe, address)
            except Malformed as why:
                reason = f"corrupt function table (pclntab) at {address:#x}: {why}"
                continue
            if functions.moduledata is not None:
                return functions
            fallback = fallback or functions
        fallback = fallback or _disguised(exe)
        if fallback is None:
            raise exe.error(reason)
        return fallback

    def leave_names_in(self, exe: Executable) -> None:
        """Hold no names from now on: read them from the file, which must stay open, whenever they are asked for.

        They are most of the table. `at` then reads one name, `lookup` all of them.
        """
        self._exe, self._names = exe, None

    def lookup(self, name: str) -> list[Function]:
        """Return all functions of that name, [] if there is none.

        A name may stand twice, for the body and for the wrapper that adapts it to the other calling
        convention (ABI0, ABIInternal): the body, which is the larger, comes first.
        """
        rows = rows_named(np.frombuffer(self._all_names(), dtype=np.uint8), self._offsets, name)
        found = [Function(name, int(self._entries[row]), int(self._entries[row + 1])) for row in rows]
        return sorted(found, key=lambda function: function.entry - function.end)

    def extent_of(self, prefixes: Iterable[str]) -> tuple[int, int] | None:
        """Return from where to where functions lie whose names begin with any of these; None without any.

        The linker puts the functions of a package side by side; what else lies between them is no matter here.
        """
        names = np.frombuffer(self._all_names(), dtype=np.uint8)
        rows = np.concatenate([rows_beginning(names, self._offsets, prefix) for prefix in prefixes])
        return (int(self._entries[rows.min()]), int(self._entries[rows.max() + 1])) if len(rows) else None

    def at(self, address: int) -> Function | None:
        """Return the function that the address lies in, None outside of Go's text."""
        row = self.row(address)
        return None if row is None else self.function(row)

    def row(self, address: int) -> int | None:
        """Return the row (from 0, in address order) of the function that the address lies in, None outside of them."""
        if not int(self._entries[0]) <= address < int(self._entries[-1]):
            return None
        return int(np.searchsorted(self._entries, np.uint64(address), side="right")) - 1

    def extent(self, row: int) -> tuple[int, int]:
        """Return the entry of a row's function and its end, as those of Function."""
        return int(self._entries[row]), int(self._entries[row + 1])

    def record_address(self, exe: Executable, row: int) -> int:
        """Return where the _func of a row is, as the program's file has it. Raises BinaryError."""
        field = 4 if self.header.relative else self.header.pointer_size
        at = self.address + self.header.functab + (2 * row + 1) * field
        return self.address + self.header.functions + int.from_bytes(exe.read(at, field), "little")

    def name(self, offset: int) -> str:
        """Return the name at an offset of the table of names, "" where none is."""
        if not 0 <= offset < self._names_size:
            return ""
        if self._names is not None or self._exe is None:
            return name_at(self._all_names(), offset) or ""
        return read_name(self._exe.read_up_to, self._names_at + offset, min(MAX_NAME, self._names_size - offset))

    def starts_name(self, offset: int) -> bool:
        """Tell whether a name begins at an offset of the table of names."""
        return bool(self.name(offset)) and (offset == 0 or not self.name(offset - 1))

    @property
    def bounds(self) -> tuple[int, int]:
        """The first function's entry and the last one's end."""
        return int(self._entries[0]), int(self._entries[-1])

    def __iter__(self) -> Iterator[Function]:
        """Yield every function, in address order."""
        return (self.function(row) for row in range(self.count))

    def function(self, row: int) -> Function:
        """Return the function of a row."""
        return Function(self.name(int(self._offsets[row])), *self.extent(row))

    def _all_names(self) -> bytes:
        if self._names is not None or self._exe is None:
            return self._names or b""
        return self._exe.read(self._names_at, self._names_size)


def _disguised(exe: Executable) -> FunctionTable | None:
    """Return the table in a program whose magic is another (garble draws one for each program), where one fits.

    Which version it has is told by the moduledata, which says where the table's parts are; of the two that have them in
    the same places, by a function.
    """
    for address in _in_sections(exe):
        for version in MAGICS.values():
            try:
                functions = _load(exe, address, version)
            except Malformed:
                continue
            is_newer = version == "1.18" and functions.lookup(_SINCE_1_20)
            if functions.moduledata is not None and not is_newer:
                return functions
    return None


def _in_sections(exe: Executable) -> Iterator[int]:
    for name in _SECTIONS:
        section = exe.section(name)
        if section is not None and section.type != SHT_NOBITS:
            yield section.address


def _candidates(exe: Executable) -> Iterator[int]:
    """Yield the addresses at which a pclntab header stands, the likeliest first."""
    yield from _in_sections(exe)
    patterns = [
        struct.pack("<IHBB", magic, 0, quantum, 8)
        for magic in sorted(MAGICS, reverse=True)
        for quantum in _QUANTUM.get(exe.machine, QUANTA)
    ]
    for segment in sorted(exe.segments, key=lambda segment: segment.flags & PF_X):
        for pattern in patterns:
            yield from itertools.islice(exe.occurrences(pattern, segment, align=8), _MAX_CANDIDATES)


def _load(exe: Executable, address: int, version: str | None = None) -> FunctionTable:
    """Decode the table at the address and find the text start; Malformed when they make no sense."""
    section = next((section for section in exe.sections if section.address == address and section.size), None)
    try:
        size = section.size if section else exe.file_size
        header = read_header(exe.read_up_to(address, 128), version)
        # Before Go 1.18 the table holds addresses, which PIE files leave to the loader.
        raw = exe.read_up_to(address, min(size, _MAX_TABLE))
        if not header.relative:
            raw = exe.read_relocated(address, len(raw))
    except BinaryError as why:
        raise Malformed(why.what) from why
    table = decode(raw, version)
    if table.header.pointer_size != 8:
        raise Malformed("written for a 32-bit machine")
    module = find_moduledata(exe, address, table)
    # From Go 1.26 on the header has 0 for the text start, and it may be unrelocated before.
    text_start = module.text if module else (table.header.relative and exe.relocated(address + 24)) or 0
    if table.header.relative and not text_start:
        raise Malformed("the start of Go's text is not in it, and no moduledata describes it")
    functions = FunctionTable(table, address, text_start or int(table.entries[0]), module.address if module else None)
    _check_text(exe, functions)
    return functions


def _check_text(exe: Executable, functions: FunctionTable) -> None:
    first, end = functions.bounds
    for segment in exe.segments:
        if segment.flags & PF_X and segment.address <= first and end <= segment.address + segment.file_size:
            return
    raise Malformed(f"its functions ({first:#x} to {end:#x}) are not in the program's code")
