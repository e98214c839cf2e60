"""The bytes of a pclntab, decoded into arrays.

Source: debug/gosym/pclntab.go, and pcHeader, functab and _func in runtime/symtab.go and runtime2.go. Four versions,
called after the first release that wrote them: 1.2, 1.16, 1.18 and 1.20.
"""

from __future__ import annotations

import struct

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.binary.elf import Malformed

Words = NDArray[np.uint64]

MAGICS = {0xFFFFFFFB: "1.2", 0xFFFFFFFA: "1.16", 0xFFFFFFF0: "1.18", 0xFFFFFFF1: "1.20"}
QUANTA = (1, 2, 4)
_POINTER_SIZES = (4, 8)
# The smallest _func record of any release; a table that counts more functions than fit is made up.
_MIN_FUNC_SIZE = 32
MAX_FUNCTIONS = 1 << 23


class Header(Struct, frozen=True):
    """The pcHeader: where the parts of the table are, as offsets from its first byte."""

    version: str
    quantum: int  # size of the smallest instruction
    pointer_size: int
    count: int
    text_start: int | None  # runtime.text; None where the version has no such field, 0 from Go 1.26 on
    names: int  # funcnametab
    names_end: int | None
    units: int | None  # cutab; None where a _func's file numbers count in the whole program's filetab
    files: int | None  # filetab; None where it is behind functab (1.2)
    pctab: int  # what a _func's pc-value tables count from
    functions: int  # what functab's function offsets count from
    functab: int

    @property
    def relative(self) -> bool:
        """Whether functab holds 4-byte offsets from the text start, not addresses."""
        return self.version in ("1.18", "1.20")


def read_header(raw: bytes, version: str | None = None) -> Header:
    """Decode the pcHeader at the start of `raw`, of this `version` whatever its magic says; Malformed if it is none."""
    if len(raw) < 16:
        raise Malformed("truncated in the header")
    magic, pad, quantum, pointer_size = struct.unpack_from("<IHBB", raw)
    version = version or MAGICS.get(magic)
    if version is None or pad or quantum not in QUANTA or pointer_size not in _POINTER_SIZES:
        raise Malformed("no known header")
    fields = {"1.2": 1, "1.16": 7}.get(version, 8)
    if len(raw) < 8 + fields * pointer_size:
        raise Malformed("truncated in the header")
    words = struct.unpack_from(f"<{fields}{'Q' if pointer_size == 8 else 'I'}", raw, 8)
    if version == "1.2":
        return Header(version, quantum, pointer_size, words[0], None, 0, None, None, None, 0, 0, 8 + pointer_size)
    text_start = words[2] if fields == 8 else None
    names, units, files, pctab, functions = words[fields - 5 :]
    # The table of names goes up to cutab, the next part.
    return Header(
        version, quantum, pointer_size, words[0], text_start, names, units, units, files, pctab, functions, functions
    )


class Table(Struct, frozen=True):
    """A decoded table. Arrays have one row per function in address order; `entries` has one more, the end."""

    header: Header
    entries: Words  # shape (count + 1,): addresses, or offsets from the text start where header.relative
    name_offsets: NDArray[np.uint32]  # shape (count,), into `names`
    names: bytes


def decode(raw: bytes, version: str | None = None) -> Table:
    """Decode a whole pclntab (`raw` may go on behind it); Malformed when it contradicts itself.

    `version` as for `read_header`.
    """
    header = read_header(raw, version)
    field = 4 if header.relative else header.pointer_size
    if not 0 < header.count <= min(MAX_FUNCTIONS, len(raw) // _MIN_FUNC_SIZE):
        raise Malformed(f"it counts {header.count} functions in {len(raw)} bytes")
    names_end = len(raw) if header.names_end is None else header.names_end
    if not header.names <= names_end <= len(raw) or header.functab > len(raw):
        raise Malformed("its parts reach beyond its end")
    fields = 2 * header.count + 1
    if fields * field > len(raw) - header.functab:
        raise Malformed("truncated in the function table")
    functab = np.frombuffer(raw, dtype=f"<u{field}", count=fields, offset=header.functab)
    entries = functab[0::2].astype(np.uint64)
    if np.any(entries[1:] < entries[:-1]):
        raise Malformed("its functions are not in ascending order")
    name_offsets = _name_offsets(raw, header, functab[1::2])
    names = raw[header.names : names_end]
    if int(name_offsets.max()) > names.rfind(b"\0"):
        raise Malformed("a function's name lies outside the table of names")
    return Table(header, entries, name_offsets, names)


def _name_offsets(raw: bytes, header: Header, offsets: NDArray[np.unsignedinteger]) -> NDArray[np.uint32]:
    """Gather _func.nameOff, the field behind the entry (4 bytes where relative, else a pointer)."""
    entry_size = 4 if header.relative else header.pointer_size
    if int(offsets.max()) + _MIN_FUNC_SIZE > len(raw) - header.functions:
        raise Malformed("a function's record lies outside the table")
    if np.any(offsets & 3):
        raise Malformed("a function's record is not aligned")
    words = np.frombuffer(raw, dtype="<u4", count=(len(raw) - header.functions) // 4, offset=header.functions)
    return words[(offsets >> 2).astype(np.int64) + entry_size // 4].astype(np.uint32, copy=False)
