"""Which malloc a process uses: told by the names of its libraries, and by what its executable defines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import numpy as np

from gomem.tracer.addresses.ranges import Ranges, normalise
from gomem.tracer.binary import elf
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.names import rows_named
from gomem.tracer.errors import BinaryError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.process.target import ExeIdentity
from gomem.tracer.report import CAllocator

# Files by their names, as distributions and projects call them; the first that is there has malloc, as the dynamic
# loader finds it before the C library's.
_LIBRARIES: Final[tuple[tuple[CAllocator, re.Pattern[str]], ...]] = (
    ("jemalloc", re.compile(r"libjemalloc\.so")),
    ("tcmalloc", re.compile(r"libtcmalloc\w*\.so")),
    ("mimalloc", re.compile(r"libmimalloc[\w.-]*\.so")),
    ("glibc", re.compile(r"libc(-2\.\d+\.so|\.so\.6)")),
    ("musl", re.compile(r"ld-musl-|libc\.musl-|libc\.so( \(deleted\))?$")),
)
# Functions that only these define, and what a program that brings a malloc of its own exports to the C library.
_SYMBOLS: Final[tuple[tuple[CAllocator, str], ...]] = (
    ("jemalloc", "mallctl"),
    ("jemalloc", "je_mallctl"),
    ("tcmalloc", "tc_malloc"),
    ("mimalloc", "mi_malloc"),
    ("own", "malloc"),
)


def mapped_allocators(mappings: Mappings) -> list[CAllocator]:
    """Return the allocators of the libraries that are mapped, that first which has malloc."""
    files = {name.rsplit("/", 1)[-1] for name in set(mappings.name) if "/" in name}
    return [allocator for allocator, named in _LIBRARIES if any(named.match(file) for file in files)]


def linked_allocators(executable: Executable) -> list[CAllocator]:
    """Return the allocators that the executable itself defines, as far as its symbols tell."""
    found: list[CAllocator] = []
    try:
        if executable.interpreter is None:
            return []
        names = {*_exported(executable), *executable.symbols([name for _, name in _SYMBOLS if name != "malloc"])}
    except BinaryError:
        return []
    for allocator, name in _SYMBOLS:
        if name in names and allocator not in found and (allocator != "own" or not found):
            found.append(allocator)
    return found


def _exported(executable: Executable) -> Iterable[str]:
    table = executable.symbol_table(elf.SHT_DYNSYM)
    if table is None:
        return ()
    rows, strings = table
    blob = np.frombuffer(executable.read_at(strings.offset, strings.size), np.uint8)
    offsets = np.ascontiguousarray(rows["name"])
    return [name for _, name in _SYMBOLS if len(rows_named(blob, offsets, name))]


def c_library_data(mappings: Mappings, identity: ExeIdentity) -> Ranges:
    """Return where the variables of the C library are: in its own mapping, else in the executable's."""
    private = mappings.writable & ~mappings.shared & (mappings.inode != 0)
    at = np.flatnonzero(private)
    of_glibc = next(named for allocator, named in _LIBRARIES if allocator == "glibc")
    names = (mappings.name[one].rsplit("/", 1)[-1] for one in at.tolist())
    library = at[np.fromiter((bool(of_glibc.match(name)) for name in names), np.bool_, len(at))]
    if not len(library):
        library = at[mappings.inode[at] == np.uint64(identity.inode)]
    return normalise(mappings.start[library], mappings.end[library])
