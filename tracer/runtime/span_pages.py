"""Heap pages from the spans alone: in Go 1.11 to 1.13 every page of an arena belongs to a span, also when it is free.

Source: mheap.grow, mheap.freeSpanLocked and mspan.scavenge in runtime/mheap.go. A free span is in size-class lists or a
treap (1.11), in one of two treaps (1.12: free and scav) or in one (1.13); mheap.allspans holds them all.
"""

from __future__ import annotations

import numpy as np

from gomem.tracer.addresses.ranges import normalise
from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import Memory, Words
from gomem.tracer.runtime.pages import CHUNK_BYTES, CHUNK_HELD, CHUNK_PAGES, MOST_CHUNKS, PAGE, HeapPages, PageState
from gomem.tracer.runtime.spans import DEAD, FREE, IN_USE, Spans, read_span_columns


def has_page_allocator(layout: Layout) -> bool:
    """Tell whether bitmaps know the heap's pages (Go 1.14 and later), not spans."""
    return layout.has("mheap", "pages.chunks")


def scavenged_pages(memory: Memory, layout: Layout, spans: Spans) -> Words:
    """Return how many pages of each span are scavenged, shape (n,); 0 for a span that is not free."""
    counts = np.zeros(spans.address.size, np.uint64)
    free = spans.with_state(FREE)
    if layout.has("mspan", "npreleased"):
        counts[free] = read_span_columns(memory, layout, spans.address[free], ("scavenged_pages",))["scavenged_pages"]
    else:
        flag = read_span_columns(memory, layout, spans.address[free], ("scavenged",))["scavenged"]
        counts[free] = np.where(flag != 0, spans.pages[free], 0)
    if np.any(counts > spans.pages):
        raise SnapshotError("a free mspan has more scavenged pages than pages")
    return counts


def span_arenas(spans: Spans, arena_bytes: int) -> list[int]:
    """Return the bases of the arenas that spans lie in, ascending."""
    return [number * arena_bytes for number in _numbers(spans, (0, 0), arena_bytes).tolist()]


def pages_of_spans(
    spans: Spans, scavenged: Words, stacks: Words, work_bufs: Words, room: Room, rest: tuple[int, int] = (0, 0)
) -> HeapPages:
    """Return the state of every page that a span holds, and of the `rest` of an arena, which counts as scavenged.

    `stacks` and `work_bufs` have shape (k, 2): address and page count of manual spans. Go 1.11 knows of a free span
    only how many of its pages are scavenged: they are taken to be its last ones.
    """
    chunks = _numbers(spans, rest, CHUNK_BYTES) * np.uint64(CHUNK_BYTES)
    room.take(chunks.size, CHUNK_HELD, "chunks of 4 MB of heap")
    pages = HeapPages(chunks, np.full(chunks.size * CHUNK_PAGES, PageState.SCAVENGED, np.uint8))
    free = spans.with_state(FREE)
    retained = spans.pages[free].astype(np.uint64) - scavenged[free]
    used = spans.with_state(IN_USE)
    for extents, state in (
        (np.stack((spans.start[free], retained), axis=1), PageState.FREE),
        (spans.extents(used), PageState.IN_USE),
        (stacks, PageState.STACK),
        (work_bufs, PageState.WORK_BUF),
    ):
        _paint(pages, extents, state)
    pages.take_room(room)
    return pages


def _numbers(spans: Spans, rest: tuple[int, int], unit: int) -> Words:
    """Return which units of `unit` bytes of the address space any span, or `rest`, has a part of, ascending."""
    live = spans.state != DEAD
    start = np.append(spans.start[live], np.uint64(rest[0]))
    end = np.append(spans.start[live] + spans.pages[live].astype(np.uint64) * np.uint64(PAGE), np.uint64(rest[1]))
    held = normalise(start // np.uint64(unit), (end + np.uint64(unit - 1)) // np.uint64(unit))
    if held.bytes * unit > MOST_CHUNKS * CHUNK_BYTES:
        raise SnapshotError(f"the heap's spans claim more than {MOST_CHUNKS} chunks of 4 MB")
    ranges = [np.arange(low, high, dtype=np.uint64) for low, high in zip(held.start, held.end, strict=True)]
    return np.concatenate([np.zeros(0, np.uint64), *ranges])


def _paint(pages: HeapPages, extents: Words, state: PageState) -> None:
    """Give the pages of spans a state; every span lies in chunks that `pages` has, without a gap."""
    if not len(extents):
        return
    covered = normalise(extents[:, 0], extents[:, 0] + extents[:, 1] * np.uint64(PAGE))
    chunk = np.searchsorted(pages.chunk_base, covered.start, side="right").astype(np.int64) - 1
    first = chunk * CHUNK_PAGES + ((covered.start - pages.chunk_base[chunk]) // np.uint64(PAGE)).astype(np.int64)
    edge = np.zeros(pages.state.size + 1, np.int32)
    np.add.at(edge, first, 1)
    np.add.at(edge, first + (covered.sizes() // np.uint64(PAGE)).astype(np.int64), -1)
    pages.state[np.cumsum(edge[:-1]) > 0] = state
