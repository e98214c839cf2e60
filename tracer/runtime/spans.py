"""Every span of the heap, read in few large blocks and decoded without a Python loop.

Source: mspan in runtime/mheap.go; mheap.allspans holds every mspan ever made, also the dead ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words, read_words
from gomem.tracer.report import SpanClassRow, SpanState
from gomem.tracer.runtime.pages import PAGE
from gomem.tracer.runtime.structs import Record

# A free span has a struct only up to Go 1.13; later releases know free pages by the page allocator alone.
DEAD, IN_USE, MANUAL, FREE = 0, 1, 2, 3
# What we hold of a span: its columns, its address once more for the sorting, and where it lies.
SPAN_HELD = 64
# 16 TB in one span: what is more, and a count of objects that is more, no heap has.
MOST_PAGES = np.uint64(1 << 31)
_ADDRESS_BITS = np.uint64(57)
# mspans come from 16 KB fixalloc chunks inside 256 KB blocks: gaps below this are cheaper to read over.
READ_OVER = 4096
_SPANS_AT_ONCE = 1 << 13


class Spans(Struct, frozen=True):
    """All mspans, one row each; every column has shape (n,), and no more bits than a heap can need."""

    address: Words
    start: Words
    pages: NDArray[np.uint32]
    state: NDArray[np.uint8]  # DEAD, IN_USE, MANUAL or FREE
    span_class: NDArray[np.uint8]  # size class << 1 | noscan
    capacity: NDArray[np.uint32]  # object slots
    objects: NDArray[np.uint32]  # allocated slots
    object_size: Words
    unswept: NDArray[np.bool_] | None = None  # since the last collection; None in recordings from before it was read

    def with_state(self, state: int) -> NDArray[np.bool_]:
        """Return a mask of the spans in `state`."""
        return np.equal(self.state, np.uint8(state))

    def bytes_of(self, state: int) -> int:
        """Return the bytes of pages that spans in `state` hold."""
        return int(self.pages[self.with_state(state)].sum(dtype=np.uint64)) * PAGE

    def extents(self, mask: NDArray[np.bool_]) -> Words:
        """Return address and page count of the masked spans, shape (k, 2)."""
        return np.stack((self.start[mask], self.pages[mask].astype(np.uint64)), axis=1)


# What mspan.sweepgen is of a span that needs sweeping, is being swept, or needs it and is cached, less mheap's own; it
# counts in 32 bits (runtime/mheap.go).
_U32 = np.uint64(0xFFFF_FFFF)
_UNSWEPT = np.array([0xFFFF_FFFE, 0xFFFF_FFFF, 1], np.uint64)

_COLUMNS = {
    "start": "startAddr",
    "pages": "npages",
    "state": "state",
    "span_class": "spanclass",
    "capacity": "nelems",
    "objects": "allocCount",
    "objects_before_cache": "allocCountBeforeCache",
    "object_size": "elemsize",
    "sweepgen": "sweepgen",
    "alloc_bits": "allocBits",
    "free_index": "freeindex",
    "scavenged": "scavenged",
    "scavenged_pages": "npreleased",
}
_KEPT = {
    "start": np.uint64,
    "pages": np.uint32,
    "state": np.uint8,
    "span_class": np.uint8,
    "capacity": np.uint32,
    "objects": np.uint32,
    "object_size": np.uint64,
}


def read_spans(memory: Memory, layout: Layout, mheap: Record) -> Spans:
    """Read all spans. Raises SnapshotError if the list or a span in use makes no sense."""
    listed = mheap.slice("allspans")
    memory.room.take(listed.length, SPAN_HELD, "spans")
    address = np.sort(read_words(memory, listed.address, listed.length))
    if (address.size and int(address[0]) == 0) or np.any(np.diff(address) < np.uint64(_span_size(layout, _KEPT))):
        raise SnapshotError("mheap.allspans holds something that is not an mspan")
    classes = len(layout.constants("class_to_size"))
    highest = FREE if layout.has("mheap", "free") else MANUAL
    columns = {name: np.empty(address.size, kind) for name, kind in _KEPT.items()}
    unswept, sweepgen = np.zeros(address.size, np.bool_), mheap.number("sweepgen")
    for some, part in _batches(memory, layout, address, (*_KEPT, "sweepgen")):
        # Checked before it is narrowed, and while it is still in the processor's caches.
        _check(part, classes, highest)
        for name, column in columns.items():
            column[some] = part[name]
        unswept[some] = np.isin(part["sweepgen"] - np.uint64(sweepgen) & _U32, _UNSWEPT)
    return Spans(address=address, unswept=unswept, **columns)


def read_span_columns(memory: Memory, layout: Layout, address: Words, names: tuple[str, ...]) -> dict[str, Words]:
    """Read the mspans at sorted addresses, shape (n,); return the columns named as in _COLUMNS, shape (n,) each."""
    columns = {name: np.empty(address.size, np.uint64) for name in names}
    for some, part in _batches(memory, layout, address, names):
        for name, column in columns.items():
            column[some] = part[name]
    return columns


def _batches(
    memory: Memory, layout: Layout, address: Words, names: tuple[str, ...]
) -> Iterator[tuple[slice, dict[str, Words]]]:
    if np.any(address & np.uint64(7)):
        raise SnapshotError("an mspan is said to lie where none can be")
    for first in range(0, address.size, _SPANS_AT_ONCE):
        some = slice(first, first + _SPANS_AT_ONCE)
        words, position = read_blocks(memory, address[some], _span_size(layout, names))
        yield some, {name: _column(words, position, layout, _COLUMNS[name]) for name in names}


def _span_size(layout: Layout, names: Iterable[str]) -> int:
    """Return the size of an mspan; where this patch release's is not known, the part that has the columns."""
    try:
        return layout.size("mspan")
    except LayoutError:
        spots = [layout.field("mspan", _COLUMNS[name]) for name in names]
        return max(spot.offset + spot.size for spot in spots) + 7 & -8


def read_blocks(memory: Memory, address: Words, size: int) -> tuple[Words, NDArray[np.int64]]:
    """Read structs of `size` bytes at sorted addresses; return all words read and each struct's first index."""
    breaks = np.flatnonzero(np.diff(address) > np.uint64(size + READ_OVER)) + 1
    first = np.concatenate(([0], breaks))
    last = np.concatenate((breaks, [address.size])) - 1
    lengths = (address[last] - address[first]).astype(np.int64) + size
    where = np.concatenate(([0], np.cumsum(lengths)))
    words = np.empty(int(where[-1]) // 8, dtype=np.uint64)
    octets = words.view(np.uint8)
    for block, begin in enumerate(address[first].tolist()):
        memory.read_into(begin, octets[int(where[block]) : int(where[block + 1])])
    block_of = np.repeat(np.arange(first.size), last - first + 1)
    position = (address - address[first][block_of]).astype(np.int64) + where[:-1][block_of]
    return words, position // 8


def _column(words: Words, position: NDArray[np.int64], layout: Layout, name: str) -> Words:
    spot = layout.field("mspan", name)
    column = words[position + spot.offset // 8]
    if spot.size >= 8:
        return column
    shift, mask = np.uint64(spot.offset % 8 * 8), np.uint64((1 << spot.size * 8) - 1)
    return column >> shift & mask


def _check(columns: dict[str, Words], classes: int, highest: int) -> None:
    state, pages = columns["state"], columns["pages"]
    live = state != DEAD
    start = columns["start"][live]
    if np.any(state > highest) or np.any(pages[live] > MOST_PAGES) or np.any(start % PAGE | (start >> _ADDRESS_BITS)):
        raise SnapshotError("an mspan has an impossible state, size or address")
    used = state == IN_USE
    capacity, size, room = columns["capacity"][used], columns["object_size"][used], pages[used] * np.uint64(PAGE)
    # Divided, not multiplied: the product of two lies may overflow into something plausible.
    crowded = (size > room) | (capacity > room // np.maximum(size, np.uint64(1))) | (capacity > MOST_PAGES)
    crowded |= (columns["objects"][used] > capacity) | (columns["span_class"][used] >= 2 * classes)
    if np.any(crowded):
        raise SnapshotError("an mspan has an impossible size class or object count")


def class_rows(spans: Spans, class_to_size: Sequence[int]) -> list[SpanClassRow]:
    """Sum in-use spans by span class."""
    totals = np.zeros((5, 256), np.int64)
    for first in range(0, spans.address.size, _SPANS_AT_ONCE):
        _add_up(totals, spans, slice(first, first + _SPANS_AT_ONCE))
    return [_class_row(number, totals[:, number], class_to_size) for number in np.flatnonzero(totals[0]).tolist()]


def _add_up(totals: NDArray[np.int64], spans: Spans, some: slice) -> None:
    mask = spans.state[some] == IN_USE
    group = spans.span_class[some][mask]
    pages, objects, capacity = (
        column[some][mask].astype(np.int64) for column in (spans.pages, spans.objects, spans.capacity)
    )
    waste = pages * PAGE - capacity * spans.object_size[some][mask].astype(np.int64)
    for row, column in zip(totals, (np.ones_like(pages), pages, objects, capacity, waste), strict=True):
        np.add.at(row, group, column)


def _class_row(span_class: int, sums: NDArray[np.int64], class_to_size: Sequence[int]) -> SpanClassRow:
    count, pages, objects, capacity, waste = (int(value) for value in sums)
    size_class = span_class >> 1
    return SpanClassRow(
        span_class=span_class,
        size_class=size_class,
        object_size=class_to_size[size_class] if size_class < len(class_to_size) else 0,
        noscan=bool(span_class & 1),
        spans=count,
        pages=pages,
        objects=objects,
        capacity=capacity,
        free_slots=capacity - objects,
        tail_waste=waste,
    )


def state_rows(spans: Spans) -> dict[str, SpanState]:
    """Count spans by state."""
    states = [("in_use", IN_USE), ("manual", MANUAL), ("dead", DEAD)]
    if np.any(spans.with_state(FREE)):
        states.append(("free", FREE))
    return {
        name: SpanState(int(np.count_nonzero(spans.with_state(state))), spans.bytes_of(state) if state else 0)
        for name, state in states
    }
