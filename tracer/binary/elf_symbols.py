"""The functions of C and C++ code, by the symbols that its file has: what the pclntab is for Go's.

Source: elf(5): .symtab, which stripping takes away, and .dynsym, which a shared library always has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.binary.elf import SHT_DYNSYM, SHT_SYMTAB, Section
from gomem.tracer.binary.executable import SYMBOL, Executable
from gomem.tracer.binary.names import MAX_NAME, read_name
from gomem.tracer.errors import BinaryError
from gomem.tracer.report.profile import Line

_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_STB_LOCAL = 0
# Functions lie within others only where somebody wrote them so in assembly; aliases of one are a few.
_MOST_BEFORE = 16
_MAX_KEPT = 1 << 16


class ElfSymbols:
    """Tells the functions at link-time addresses of a file; the executable must stay open."""

    def __init__(self, exe: Executable, functions: NDArray[np.void], names: Section | None) -> None:
        """`functions`: rows of SYMBOL, by ascending value, whose names are in the section `names`."""
        self._exe = exe
        self._starts = np.ascontiguousarray(functions["value"])
        self._ends = self._starts + np.ascontiguousarray(functions["size"])
        self._offsets = np.ascontiguousarray(functions["name"])
        self._local = (functions["info"] >> 4) == _STB_LOCAL
        self._names = names
        self._known: dict[int, tuple[Line, ...]] = {}

    @classmethod
    def of(cls, exe: Executable) -> ElfSymbols:
        """Return the functions of .symtab, or else of .dynsym; none where they are damaged or there is neither."""
        for kind in (SHT_SYMTAB, SHT_DYNSYM):
            try:
                table = exe.symbol_table(kind)
            except BinaryError:
                continue
            if table is not None:
                rows, names = table
                rows = rows[np.isin(rows["info"] & 15, (_STT_FUNC, _STT_GNU_IFUNC)) & (rows["value"] != 0)]
                return cls(exe, rows[np.argsort(rows["value"], kind="stable")], names)
        return cls(exe, np.zeros(0, SYMBOL), None)

    def lines(self, address: int) -> tuple[Line, ...]:
        """Return the function at an address, without file and line; () where none is known."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _MAX_KEPT:
                self._known.clear()
            name = self._name(address)
            known = self._known[address] = (Line(name),) if name else ()
        return known

    def _name(self, address: int) -> str:
        if not 0 <= address < 1 << 64:
            return ""
        last = int(np.searchsorted(self._starts, np.uint64(address), side="right"))
        first = max(last - _MOST_BEFORE, 0)
        rows = [row for row in range(first, last) if self._reaches(row, address, last)]
        if not rows:
            return ""
        start = max(int(self._starts[row]) for row in rows)
        aliases = [row for row in rows if int(self._starts[row]) == start]
        return min((self._plainness(row) for row in aliases), default=(False, 0, ""))[-1]

    def _reaches(self, row: int, address: int, last: int) -> bool:
        """Tell whether a function goes up to an address. One without a size ends where the next begins."""
        sized = self._ends[row] != self._starts[row]
        return bool(address < int(self._ends[row])) if sized else bool(self._starts[row] == self._starts[last - 1])

    def _plainness(self, row: int) -> tuple[bool, int, str]:
        """Return what orders the names of one function, the one that people call it by first: malloc, __libc_malloc."""
        name = self._read(row)
        return bool(self._local[row]), len(name) - len(name.lstrip("_")), name

    def _read(self, row: int) -> str:
        offset = int(self._offsets[row])
        if self._names is None or offset >= self._names.size:
            return ""
        try:
            most = min(MAX_NAME, self._names.size - offset)
            return read_name(self._exe.read_at, self._names.offset + offset, most)
        except BinaryError:
            return ""
