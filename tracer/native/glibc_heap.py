"""glibc's heap from outside: its arenas, found in memory by what only they look like, and what each has free.

`main_arena` is a static variable of the C library, of which a stripped one has no symbol. But it shows itself: an empty
bin points at itself, and the ring of `next` leads through all arenas and back, each of which begins a heap that names
it. That is a proof that a symbol is not, and holds for a program that is linked statically, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Addresses, Ranges
from gomem.tracer.errors import SnapshotError
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.native import glibc_layout as glibc
from gomem.tracer.native.free_chunks import MOVED, FreeChunks, free_chunks
from gomem.tracer.native.glibc_layout import PARAMETERS, STATES, ParameterLayout, StateLayout
from gomem.tracer.process.memory import Memory, read_words
from gomem.tracer.report import CArena, CHeap

_OS_PAGE = 4096
_WORDS = _OS_PAGE // 8
_BLOCK = 16 * _OS_PAGE  # read at once where chunks are small
# glibc makes 8 arenas a CPU at the most, unless it is told otherwise.
_MOST_ARENAS = 8192
_MOST_DATA = 16 << 20
_ATTEMPTS = 3
_TOO_MANY = "it has more free chunks than are counted in one look"
# mp_ stands within the same object file as main_arena.
_NEAR = 16 << 10
_SUMS = ("system", "in_use", "free", "free_resident", "trimmable")

Span = tuple[int, int]


class Place(Struct, frozen=True):
    """Where main_arena is, and of which layout."""

    main: int
    layout: StateLayout


class _Budget:
    """What all arenas together may cost in one look: about 2 us a chunk, and 5 us a read."""

    def __init__(self) -> None:
        self.chunks, self.reads = 30_000, 8_000

    @property
    def spent(self) -> bool:
        """Tell whether it is used up."""
        return self.chunks <= 0 or self.reads <= 0


class _Pages:
    """Chunks in memory, each OS page read once; nothing in swap, which a read would bring back to RAM."""

    def __init__(self, memory: Memory, residency: Residency, budget: _Budget) -> None:
        self._memory, self._residency, self._budget = memory, residency, budget
        self._pages: dict[int, memoryview] = {}
        self._asked = self._reads = self._last = 0

    def chunk(self, address: int) -> tuple[int, int, int]:
        if not 0 < address < 1 << 63 or address % glibc.CHUNK_ALIGNED:
            raise SnapshotError(MOVED)
        if self._budget.chunks <= 0:
            raise SnapshotError(_TOO_MANY)
        self._asked += 1
        self._budget.chunks -= 1
        number, at = address // _OS_PAGE, address % _OS_PAGE // 8
        page = self._pages.get(number) or self._read(number)
        if at + 3 < _WORDS:
            return page[at + 1], page[at + 2], page[at + 3]
        following = self._pages.get(number + 1) or self._read(number + 1)
        return page[at + 1], following[0], following[1]

    def _read(self, number: int) -> memoryview:
        """Return a page; where chunks are near each other, what is in RAM beside it is read, too."""
        if self._budget.spent:
            raise SnapshotError(_TOO_MANY)
        self._budget.reads -= 1
        self._reads += 1
        first, last = self._in_ram(number * _OS_PAGE)
        near = abs(number - self._last) <= _BLOCK // _OS_PAGE or self._asked > 2 * self._reads
        self._last = number
        if not near:
            first, last = number, number + 1
        raw = memoryview(self._memory.read(first * _OS_PAGE, (last - first) * _OS_PAGE)).cast("Q")
        for page in range(first, last):
            self._pages[page] = raw[(page - first) * _WORDS : (page - first + 1) * _WORDS]
        return self._pages[number]

    def _in_ram(self, address: int) -> tuple[int, int]:
        """Return the pages around that of `address` that may be read with it."""
        ranges, block = self._residency.ranges, address // _BLOCK * _BLOCK
        at = int(np.searchsorted(ranges.end, np.uint64(address), side="right"))
        if at == len(ranges) or int(ranges.start[at]) > address:
            return address // _OS_PAGE, address // _OS_PAGE + 1  # it came to RAM after the look at what is there
        if self._residency.swap[at]:
            raise SnapshotError("part of its free memory is in swap")
        low, high = max(int(ranges.start[at]), block), min(int(ranges.end[at]), block + _BLOCK)
        return low // _OS_PAGE, high // _OS_PAGE


def find_main_arena(data: Ranges, memory: Memory) -> Place | None:
    """Return where main_arena is in `data`, ranges that may be read; None: there is none that was ever used."""
    left = _MOST_DATA
    for start, end in zip(data.start.tolist(), data.end.tolist(), strict=True):
        count = min(end - start, left) // 8
        left -= count * 8
        try:
            words = read_words(memory, start, count)
        except SnapshotError:
            continue
        for last in _lonely_pairs(words, start):
            place = proven(last - glibc.LAST_BIN, memory)
            if place is not None:
                return place
    return None


def _lonely_pairs(words: NDArray[np.uint64], base: int) -> Iterator[int]:
    """Yield the addresses of pairs of words that point at where a chunk would be that they are fd and bk of.

    Of a row of them, only that of the last: such are the ends of an arena's bins.
    """
    if len(words) < 2 * glibc.BINS:
        return
    own = np.uint64(base - glibc.BEFORE_FD) + np.arange(len(words) - 1, dtype=np.uint64) * np.uint64(8)
    lonely = (words[:-1] == own) & (words[1:] == own)
    ends = lonely.copy()
    ends[:-2] &= ~lonely[2:]
    yield from (base + 8 * at for at in np.flatnonzero(ends).tolist())


def proven(bins: int, memory: Memory) -> Place | None:
    """Return the main arena whose bins are at `bins`, if the ring of arenas proves it."""
    for layout in STATES:
        try:
            ring(Place(bins - layout.bins, layout), memory)
        except SnapshotError:
            continue
        return Place(bins - layout.bins, layout)
    return None


def ring(place: Place, memory: Memory) -> list[int]:
    """Return the addresses of all arenas, the main one first. Raises SnapshotError if the ring is none."""
    arenas, layout = [place.main], place.layout
    at = place.main
    while True:
        last = at + layout.bins + glibc.LAST_BIN
        if read_words(memory, last, 2).tolist() != [last - glibc.BEFORE_FD] * 2:
            raise SnapshotError(f"there is no arena of glibc at {at:#x}")
        at = _word(memory, at + layout.bins + glibc.NEXT)
        if at == place.main:
            return arenas
        heap = at // glibc.ARENA_HEAP * glibc.ARENA_HEAP
        if not glibc.HEAP_INFO <= at - heap <= glibc.MOST_HEAP_INFO or _word(memory, heap) != at:
            raise SnapshotError(f"no heap of glibc begins with an arena at {at:#x}")
        if len(arenas) == _MOST_ARENAS:
            raise SnapshotError("the ring of arenas has no end")
        arenas.append(at)


def read_heap(place: Place, brk: Span | None, residency: Residency, memory: Memory) -> tuple[CHeap, str]:
    """Return what glibc has in use and free, and why that is not exact, or "".

    `brk`: where [heap] is. Raises SnapshotError if the arenas are not there any more.
    """
    budget, arenas, trouble = _Budget(), [], ""
    for at in ring(place, memory):
        arena = _read_arena(at, place.layout, memory, residency, budget)
        trouble = trouble or arena.why
        arenas.append(_row(arena, residency, main=at == place.main))
    total = {name: sum(getattr(arena, name) for arena in arenas) for name in _SUMS}
    count, mapped = _mapped(place, brk, memory)
    heap = CHeap(
        allocators=["glibc"],
        **total,
        top=arenas[0].top,
        mapped=mapped,
        mapped_chunks=count,
        exact=not trouble,
        arenas=arenas,
    )
    return heap, trouble


class _Arena(Struct, frozen=True):
    """What was read of an arena; `why` it is not exact, or ""."""

    at: int
    system: int
    threads: int
    top: tuple[int, int]  # address and size
    free: FreeChunks
    why: str


def _read_arena(at: int, layout: StateLayout, memory: Memory, residency: Residency, budget: _Budget) -> _Arena:
    """Return one arena, read until nothing moved meanwhile: of several attempts, the last that was complete."""
    best: _Arena | None = None
    for _ in range(_ATTEMPTS):
        pages = _Pages(memory, residency, budget)
        state = memory.read(at, layout.bins + glibc.BEHIND_BINS)
        system, threads, top = (_in(state, offset) for offset in _offsets(layout))
        found = free_chunks(state, at, layout, pages, system)
        size = _top_size(top, system, found, pages)
        moved = memory.read(at, len(state)) != state
        why = found.broken or ("a thread allocated while its lists were read" if moved else "")
        if best is None or not found.broken:
            best = _Arena(at, system, threads, (top, size), found, why)
        if not why or budget.spent:
            break
    assert best is not None
    return best


def _offsets(layout: StateLayout) -> tuple[int, int, int]:
    return layout.bins + glibc.SYSTEM, layout.bins + glibc.ATTACHED, layout.top


def _top_size(top: int, system: int, found: FreeChunks, pages: _Pages) -> int:
    try:
        size = pages.chunk(top)[0] & ~glibc.CHUNK_FLAGS
    except SnapshotError as error:
        found.broken = found.broken or error.what
        return 0
    if size + found.bytes > system:
        found.broken = found.broken or "its free chunks are more than it has"
    return min(size, system)


def _row(arena: _Arena, residency: Residency, *, main: bool) -> CArena:
    top, top_size = arena.top
    free = min(arena.free.bytes + top_size, arena.system)
    chunks = np.array(arena.free.chunks, np.uint64).reshape(-1, 2)
    bins = _whole_pages(chunks[:, 0], chunks[:, 0] + chunks[:, 1], residency)
    # malloc_trim() shortens by brk what is above the top chunk's least size; other arenas keep theirs.
    end = np.array([top + top_size], np.uint64)
    at_top = _whole_pages(np.array([top], np.uint64), end, residency)
    return CArena(
        address=arena.at,
        main=main,
        threads=arena.threads,
        system=arena.system,
        in_use=arena.system - free,
        free=free,
        top=top_size,
        free_chunks=len(chunks) + arena.free.fast_chunks + 1,
        free_resident=min(bins + at_top, free),
        trimmable=min(bins + (at_top if main else 0), free),
        complete=arena.free.broken is None,
    )


def _whole_pages(start: Addresses, end: Addresses, residency: Residency) -> int:
    """Return what is in RAM of the pages that malloc_trim would give back of these chunks: mtrim() in malloc.c."""
    page = np.uint64(_OS_PAGE)
    first = (start + np.uint64(glibc.CHUNK_STRUCT) + page - np.uint64(1)) // page * page
    return int(residency.rss_in(first, np.maximum(end // page * page, first)).sum())


def _mapped(place: Place, brk: Span | None, memory: Memory) -> tuple[int | None, int | None]:
    """Return n_mmaps and mmapped_mem of mp_, None where it was not found."""
    low = place.main // _OS_PAGE * _OS_PAGE - _NEAR
    for base, size in ((low, 2 * _NEAR), (low + _NEAR, _NEAR), (low + _NEAR - _OS_PAGE, _OS_PAGE)):
        try:
            words = read_words(memory, base, size // 8)
        except SnapshotError:
            continue
        for layout in PARAMETERS:
            found = _parameters(words, layout, brk)
            if found is not None:
                return found
    return None, None


def _parameters(words: NDArray[np.uint64], layout: ParameterLayout, brk: Span | None) -> tuple[int, int] | None:
    """Return n_mmaps and mmapped_mem of the struct malloc_par in `words`: by its figures, and where the heap began."""
    ints, last = words.view("<u4"), len(words) - layout.size // 8

    def of(offset: int) -> NDArray[np.uint64]:
        return words[offset // 8 :][:last]

    def counts(offset: int) -> NDArray[np.int64]:
        return ints[offset // 4 :: 2][:last].astype(np.int64)

    count, most, mapped, began = counts(layout.count), counts(layout.most), of(layout.mapped), of(layout.sbrk_base)
    fits = (count <= most) & (mapped <= of(layout.mapped + 8)) & (mapped % np.uint64(_OS_PAGE) == 0)
    fits &= (mapped >= count.astype(np.uint64) * np.uint64(_OS_PAGE)) & ((count > 0) | (mapped == 0))
    low, high = brk or (0, 0)
    by_heap = (began >= np.uint64(low)) & (began < np.uint64(high))
    as_linked = (of(glibc.TOP_PAD) == glibc.DEFAULT_TOP_PAD) & (counts(layout.count_max) == glibc.DEFAULT_MMAP_MAX)
    found = np.flatnonzero(fits & (as_linked & ((began == 0) | by_heap)))
    if not len(found):
        found = np.flatnonzero(fits & by_heap & (counts(layout.count_max) > 0) & (most > 0))
    return (int(count[found[0]]), int(mapped[found[0]])) if len(found) == 1 else None


def _word(memory: Memory, address: int) -> int:
    return int(read_words(memory, address, 1)[0])


def _in(state: bytes, offset: int) -> int:
    return int.from_bytes(state[offset : offset + glibc.WORD], "little")
