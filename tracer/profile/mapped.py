"""Memory that is not the Go runtime's, by what is mapped there, and by what C is proven to use. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gomem.tracer.kernel.file_pages import FilePages, pages_of_mappings
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.smaps import Smaps
from gomem.tracer.profile.holders import GO_RUNTIME, Holder, Path, heap_mask, runtime_mask, sizes_of
from gomem.tracer.profile.slots import Integers
from gomem.tracer.report import KINDS
from gomem.tracer.snapshot.join import Addresses, AddressSpace

_FILES = {"binary": "executable", "shared_library": "shared libraries", "file": "mapped files"}
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Mapped:
    """What is known of mappings and their pages.

    `anonymous`: how much of each piece's residency that is, None where it is not told. `shmem_devices`: whose files
    are shared memory. `file_pages`: whether pages of files are clean; where not all are, `smaps` tells by mapping.
    """

    mappings: Mappings
    anonymous: Addresses | None
    shmem_devices: tuple[int, ...] = ()
    file_pages: FilePages | None = None
    smaps: Smaps | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """All pieces of one kind in one mapping. `anonymous`: of what is resident; None: not told."""

    at: int  # which mapping
    kind: str
    virtual: int
    resident: int
    anonymous: int | None


def of_the_rest(space: AddressSpace, mapped: Mapped) -> Iterator[Holder]:
    """Yield what holds everything outside the Go heap and its runtime."""
    namer = _Namer(mapped)
    for row in _rows(space, mapped.anonymous):
        yield from namer.holders(row)


def _rows(space: AddressSpace, anonymous: Addresses | None) -> Iterator[_Row]:
    rest = np.flatnonzero(~heap_mask(space) & ~runtime_mask(space))
    together, which = np.unique(space.mapping[rest] * len(KINDS) + space.kind[rest], return_inverse=True)
    sizes = sizes_of(space).at(rest).grouped(which, len(together))
    parts = np.zeros(len(together), np.int64)
    if anonymous is not None:
        np.add.at(parts, which, anonymous[rest].astype(np.int64))
    columns: tuple[Integers, ...] = (together, sizes.virtual, sizes.resident, parts)
    for key, virtual, resident, part in zip(*(column.tolist() for column in columns), strict=True):
        kind = KINDS[key % len(KINDS)]
        yield _Row(key // len(KINDS), kind, virtual, resident, None if anonymous is None else part)


class _Namer:
    """Says who holds what is in a mapping; asked in order of address."""

    def __init__(self, mapped: Mapped) -> None:
        self._mappings = mapped.mappings
        self._shmem = np.isin(mapped.mappings.device, mapped.shmem_devices) & (mapped.mappings.inode != 0)
        self._drops = _Drops(mapped)
        self._last: dict[str, str] = {}  # of each kind, the name before

    def holders(self, row: _Row) -> Iterator[Holder]:
        """Yield the holders of one row."""
        name = self._mappings.name[row.at]
        if row.kind in _FILES:
            yield from self._file(row, name)
        else:
            yield Holder(_other(row.kind, name), row.virtual, row.resident)

    def _file(self, row: _Row, name: str) -> Iterator[Holder]:
        """Yield the pages of the file, and the anonymous ones in its place: private copies, or the bss behind it."""
        own = name or self._last.get(row.kind, "")
        self._last[row.kind] = own
        if not name:
            yield Holder(self._path(row, own, "bss"), row.virtual, row.resident)
            return
        copies, segment = row.anonymous or 0, self._segment(row.at)
        yield Holder(self._path(row, own, f"{segment}, private copies"), copies, copies)
        rest = row.virtual - row.resident
        for state, size in self._states(row, row.resident - copies):
            yield Holder(self._path(row, own, segment + state), size + rest, size)
            rest = 0

    def _path(self, row: _Row, name: str, what: str) -> Path:
        shmem = bool(self._shmem[row.at]) and row.kind == "file"
        base = name.removesuffix(_DELETED).rpartition("/")[2] or name
        return "shared memory" if shmem else _FILES[row.kind], name, f"{base}: {what}"

    def _segment(self, at: int) -> str:
        if self._mappings.executable[at]:
            return "code"
        return "data" if self._mappings.writable[at] else "read-only data"

    def _states(self, row: _Row, resident: int) -> Iterable[tuple[str, int]]:
        """Return the pages of the file by what the kernel could do with them."""
        if self._shmem[row.at]:
            return [("" if row.kind == "file" else ", in shared memory", resident)]
        if row.anonymous is None:
            return [(", of the file or private copies", resident)]
        return self._drops.of(int(self._mappings.start[row.at]), resident)


class _Drops:
    """Tells which pages of files the kernel could drop: the clean ones, and those that are dirty once it wrote them."""

    def __init__(self, mapped: Mapped) -> None:
        pages, smaps = mapped.file_pages, mapped.smaps
        self._all_clean = pages is not None and not (pages.dirty or pages.locked)
        self._dirty: dict[int, tuple[int, bool]] = {}
        if smaps is not None:
            columns = smaps.start, pages_of_mappings(smaps)[1], smaps.locked
            rows = zip(*(column.tolist() for column in columns), strict=True)
            self._dirty = {start: (dirty, locked) for start, dirty, locked in rows}

    def of(self, start: int, resident: int) -> Iterable[tuple[str, int]]:
        """Return the resident pages of the file that is mapped at `start`."""
        if self._all_clean:
            return [(", clean", resident)]
        if start not in self._dirty:
            return [(", clean or dirty", resident)]
        dirty, locked = self._dirty[start]
        dirty = min(dirty, resident)
        return [(", locked", resident)] if locked else [(", clean", resident - dirty), (", dirty", dirty)]


def _other(kind: str, name: str) -> Path:
    if kind == "c_heap":
        return "C heap", "main arena of malloc, by brk" if name == "[heap]" else "arenas and mapped chunks of malloc"
    if kind == "thread_stack":
        return "thread stacks", "stack of the main thread" if name == "[stack]" else "stacks of threads that C made"
    if kind == "vdso":
        return "pages of the kernel", name
    if kind == "runtime_other":
        return GO_RUNTIME, name
    return "unknown", name or "anonymous memory of no known owner"
