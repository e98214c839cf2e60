"""A look as a map: the state and the residency of every heap page, spans, and what else is mapped. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, bytes_in, split
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.report.memory_map import HALF, PAGE, Areas, Arenas, MapSpans, MemoryMap, PageBits, PageUse
from gomem.tracer.runtime.large_spans import LargeSpan
from gomem.tracer.runtime.pages import CHUNK_BYTES, CHUNK_PAGES, HeapPages
from gomem.tracer.runtime.regions import Region
from gomem.tracer.runtime.slots import Slots
from gomem.tracer.runtime.spans import IN_USE, MANUAL, Spans
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.snapshot.join import Addresses, AddressSpace

# 256 GB of arenas: a byte each here, and in the browser. What is beyond is known as sums only.
MOST_PAGES = 1 << 25
_MOST_NAMES = 1 << 15  # different ones; what has a further one keeps its kind
_UNNAMED, _FURTHER = "", "(one of very many names)"
_U32 = np.uint32


def memory_map(look: Snapshot, slots: Slots | None = None) -> MemoryMap:
    """Return the map of a look; without the runtime's part it has areas only. `slots`: of the look's spans, if read."""
    runtime, residency = look.runtime, look.kernel.residency
    bases = [region for region in runtime.regions if region.what == "arena"] if runtime is not None else []
    arenas = _arenas(look.space, bases)
    shown = _shown(arenas)
    exact = residency.method != "smaps"
    pages, spans, outside = np.zeros(0, np.uint8), _no_spans(), 0
    if runtime is not None:
        places = _Places(shown)
        pages = _page_uses(places, runtime.pages)
        if exact:
            pages |= _page_bits(places, residency)
        spans, outside = _spans(places, runtime.spans, runtime.largest or (), slots)
    left_out = (int(arenas.size.sum()) - int(shown.size.sum())) // PAGE
    return MemoryMap(
        look.kernel.taken_at,
        _areas(look.space, look.kernel.mappings, residency, runtime.regions if runtime is not None else []),
        arenas, pages, spans, exact, left_out, outside,
    )  # fmt: skip


def _arenas(space: AddressSpace, bases: Sequence[Region]) -> Arenas:
    sums = np.zeros((2, len(bases) + 1), np.uint64)
    mine = np.flatnonzero(space.arena >= 0)
    for row, column in zip(sums, (space.resident, space.swap), strict=True):
        np.add.at(row, space.arena[mine], column[mine])
    base = np.array([region.start for region in bases], np.uint64)
    size = np.array([region.end - region.start for region in bases], np.uint64)
    return Arenas(base, size, sums[0, :-1], sums[1, :-1])


def _shown(arenas: Arenas) -> Arenas:
    """Return the arenas whose pages are shown, the first ones."""
    some = np.cumsum(arenas.size // np.uint64(PAGE)) <= MOST_PAGES
    return Arenas(arenas.base[some], arenas.size[some], arenas.resident[some], arenas.swap[some])


class _Places:
    """Where an address of an arena is among all pages."""

    def __init__(self, arenas: Arenas) -> None:
        self._start, self._end = arenas.base, arenas.base + arenas.size
        counts = (arenas.size // np.uint64(PAGE)).astype(np.int64)
        self._first = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        self.pages = int(self._first[-1])

    def of(self, address: Addresses, unit: int) -> NDArray[np.int64]:
        """Return the index of each address in units of `unit` bytes; -1 outside all arenas."""
        if not len(self._start):
            return np.full(len(address), -1, np.int64)
        at = np.maximum(np.searchsorted(self._start, address, side="right").astype(np.int64) - 1, 0)
        inside = (address >= self._start[at]) & (address < self._end[at])
        offset = np.where(inside, address - self._start[at], np.uint64(0)) // np.uint64(unit)
        return np.where(inside, self._first[at] * (PAGE // unit) + offset.astype(np.int64), -1)

    def covered(self, ranges: Ranges) -> NDArray[np.bool_]:
        """Tell of each half page whether it is in one of disjoint ranges, shape (2 * pages,)."""
        pieces, _ = split(ranges, np.concatenate((self._start, self._end)))
        first = self.of(pieces.start, HALF)
        inside = first >= 0
        count = (pieces.sizes()[inside] // np.uint64(HALF)).astype(np.int64)
        edge = np.zeros(2 * self.pages + 1, np.int32)
        np.add.at(edge, first[inside], 1)
        np.add.at(edge, first[inside] + count, -1)
        return np.cumsum(edge[:-1]) > 0


def _page_uses(places: _Places, pages: HeapPages) -> NDArray[np.uint8]:
    use = np.full(places.pages, PageUse.NOT_GROWN, np.uint8)
    first = places.of(pages.chunk_base, PAGE)
    last = places.of(pages.chunk_base + np.uint64(CHUNK_BYTES - 1), PAGE)
    whole = np.flatnonzero((first >= 0) & (last - first == CHUNK_PAGES - 1))
    index = first[whole, None] + np.arange(CHUNK_PAGES)
    use[index] = pages.state.reshape(-1, CHUNK_PAGES)[whole]
    return use


def _page_bits(places: _Places, residency: Residency) -> NDArray[np.uint8]:
    bits = np.zeros(places.pages, np.uint8)
    ranges, resident, swapped = residency.ranges, residency.rss > 0, residency.swap > 0
    huge = resident & (residency.flags & Page.HUGE != 0)
    for mask, first, second in (
        (resident, PageBits.FIRST_RESIDENT, PageBits.SECOND_RESIDENT),
        (swapped, PageBits.FIRST_SWAPPED, PageBits.SECOND_SWAPPED),
        (huge, PageBits.HUGE, PageBits.HUGE),
    ):
        halves = places.covered(Ranges(ranges.start[mask], ranges.end[mask]))
        bits[halves[::2]] |= np.uint8(first)
        bits[halves[1::2]] |= np.uint8(second)
    return bits


def _no_spans() -> MapSpans:
    small, large = np.zeros(0, np.uint8), np.zeros(0, _U32)
    return MapSpans(large, large, small, small, large, large, np.zeros(0, np.float64), large, ("",))


def _spans(places: _Places, spans: Spans, largest: Sequence[LargeSpan], slots: Slots | None) -> tuple[MapSpans, int]:
    some = np.flatnonzero((spans.state == IN_USE) | (spans.state == MANUAL))
    some = some[np.argsort(spans.start[some], kind="stable")]
    first = places.of(spans.start[some], PAGE)
    inside = first >= 0
    kept, manual = some[inside], spans.state[some[inside]] == MANUAL

    def of_objects(column: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.where(manual, 0, column[kept])

    type_of, types = _types(spans.start[kept], largest)
    return MapSpans(
        first[inside].astype(_U32),
        spans.pages[kept].astype(_U32),
        of_objects(spans.span_class).astype(np.uint8),
        manual.astype(np.uint8),
        of_objects(spans.capacity).astype(_U32),
        of_objects(spans.objects).astype(_U32),
        of_objects(spans.object_size).astype(np.float64),
        type_of,
        types,
        *_slots(kept, spans, slots),
    ), len(some) - len(kept)


def _types(start: Addresses, largest: Sequence[LargeSpan]) -> tuple[NDArray[np.uint32], list[str]]:
    """Return the type of each span that begins at one of the ascending addresses, and who made what is in it."""
    types, of_spans = [""], np.zeros(len(start), _U32)
    for one in largest:
        at = int(np.searchsorted(start, np.uint64(one.start)))
        told = one.type_name or ""
        told += f"{', ' if told else ''}allocated by {one.function}" if one.function else ""
        if told and at < len(start) and int(start[at]) == one.start:
            of_spans[at] = len(types)
            types.append(told)
    return of_spans, types


def _slots(kept: NDArray[np.int64], spans: Spans, slots: Slots | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return which of the kept spans have slots that are known, and these as bits, each span from a byte on."""
    if slots is None:
        return np.zeros(len(kept), np.uint8), np.zeros(0, np.uint8)
    first = slots.first[kept]
    known = np.flatnonzero(first >= 0)
    count = spans.capacity[kept[known]].astype(np.int64)
    octets = (count + 7) // 8
    # Where each slot is in the source, and in the result.
    nth = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    bits = np.zeros(8 * int(octets.sum()), np.bool_)
    bits[np.repeat(8 * (np.cumsum(octets) - octets), count) + nth] = slots.used[np.repeat(first[known], count) + nth]
    return (first >= 0).astype(np.uint8), np.packbits(bits, bitorder="little")


def _areas(space: AddressSpace, mappings: Mappings, residency: Residency, regions: Sequence[Region]) -> Areas:
    some = np.flatnonzero(space.arena < 0)
    start, end, mapping = space.start[some], space.end[some], space.mapping[some]
    known = mapping < len(mappings)
    where = np.where(known, mapping, 0)
    access = np.zeros(len(some), np.uint8)
    for bit, column in enumerate((mappings.readable, mappings.writable, mappings.executable, mappings.shared)):
        if len(column):
            access |= (column[where] & known).astype(np.uint8) << np.uint8(bit)
    huge = residency.ranges
    is_huge = (residency.rss > 0) & (residency.flags & Page.HUGE != 0)
    names = _Names()
    owned = _owners(start, regions)
    rows = zip(owned, where.tolist(), known.tolist(), strict=True)
    name = [names.of(regions[at].what if at >= 0 else mappings.name[row] if there else "") for at, row, there in rows]
    return Areas(
        start, end - start, space.kind[some].astype(np.uint8), space.state[some].astype(np.uint8), access,
        space.resident[some], space.swap[some],
        bytes_in(Ranges(huge.start[is_huge], huge.end[is_huge]), start, end),
        np.array(name, _U32), names.all,
    )  # fmt: skip


def _owners(points: Addresses, regions: Sequence[Region]) -> list[int]:
    """Return which region each point is in, or -1."""
    if not regions:
        return [-1] * len(points)
    starts = np.array([region.start for region in regions], np.uint64)
    ends = np.array([region.end for region in regions], np.uint64)
    at = np.maximum(np.searchsorted(starts, points, side="right").astype(np.int64) - 1, 0)
    inside = (points >= starts[at]) & (points < ends[at])
    found: list[int] = np.where(inside, at, -1).tolist()
    return found


class _Names:
    """Different names, each kept once, so many and no more."""

    def __init__(self) -> None:
        self.all = [_UNNAMED, _FURTHER]
        self._index = {_UNNAMED: 0}

    def of(self, name: str) -> int:
        known = self._index.get(name)
        if known is None:
            if len(self.all) >= _MOST_NAMES:
                return 1
            known = self._index[name] = len(self.all)
            self.all.append(name)
        return known
