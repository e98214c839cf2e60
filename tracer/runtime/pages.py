"""Heap pages: which are in use, free, or scavenged, from the page allocator's bitmaps.

Source: pageAlloc in runtime/mpagealloc.go, pallocData in runtime/mpallocbits.go, pageCache in
runtime/mpagecache.go (Go 1.14 and later).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import normalise
from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import Memory, Words, read_words
from gomem.tracer.runtime.structs import Record

PAGE = 8192
CHUNK_PAGES = 512
CHUNK_BYTES = CHUNK_PAGES * PAGE
# What we hold of a heap grows with its pages and with how often they change state along the addresses: of a chunk its
# bitmaps and the state of its pages, of a change two ends, and what the join with the kernel's view makes of them.
CHUNK_HELD = 2560
CHANGE_HELD = 256
_RANGE_HELD = 256
MOST_CHUNKS = 1 << 18  # 1 TB of heap, whatever room there is
_CHUNKS_AT_ONCE = 1 << 12


class PageState(IntEnum):
    """What the runtime says of one heap page."""

    IN_USE = 0
    STACK = 1
    WORK_BUF = 2
    FREE = 3
    SCAVENGED = 4


class Chunks(Struct, frozen=True):
    """The page bitmaps of every chunk that the heap has grown into, by address.

    `allocated` and `scavenged` have shape (n, 8): 512 bits a chunk, page 0 in bit 0 of word 0.
    """

    base: Words  # shape (n,)
    allocated: Words
    scavenged: Words


class PageCache(Struct, frozen=True):
    """64 pages that a P took out of the bitmaps at once; set bits are free pages it still holds.

    The bitmaps call all of them allocated and none of them scavenged. Source: runtime/mpagecache.go.
    """

    base: int
    free: int
    scavenged: int


class HeapPages(Struct, frozen=True):
    """The state of every heap page of every chunk: `state` has shape (n * 512,), PageState values."""

    chunk_base: Words  # shape (n,), ascending
    state: NDArray[np.uint8]

    def bytes_of(self, state: PageState) -> int:
        """Return how many bytes of heap are in `state`."""
        return int(np.count_nonzero(self.state == state)) * PAGE

    def runs(self) -> tuple[Words, Words, NDArray[np.uint8]]:
        """Return maximal runs of equal state: start addresses, end addresses, states; each shape (m,)."""
        if not self.state.size:
            return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint8)
        first = np.concatenate(([0], np.flatnonzero(self._changes()) + 1))
        last = np.concatenate((first[1:], [self.state.size])) - 1
        return self._address(first), self._address(last) + np.uint64(PAGE), self.state[first]

    def take_room(self, room: Room) -> None:
        """Take room for the runs; raises SnapshotError if there is not enough."""
        if self.state.size:
            room.take(int(np.count_nonzero(self._changes())), CHANGE_HELD, "runs of heap pages in one state")

    def _changes(self) -> NDArray[np.bool_]:
        """Tell of each page but the first whether a new run begins with it."""
        change: NDArray[np.bool_] = self.state[1:] != self.state[:-1]
        boundary = np.arange(CHUNK_PAGES, self.state.size, CHUNK_PAGES)
        change[boundary - 1] |= self.chunk_base[1:] != self.chunk_base[:-1] + np.uint64(CHUNK_BYTES)
        return change

    def _address(self, index: NDArray[np.int64]) -> Words:
        offset = (index % CHUNK_PAGES * PAGE).astype(np.uint64)
        return self.chunk_base[index // CHUNK_PAGES] + offset


def read_chunks(memory: Memory, layout: Layout, mheap: Record) -> Chunks:
    """Read the bitmaps of all chunks in mheap.pages.inUse; SnapshotError if they make no sense."""
    size = layout.size("pallocData")
    l2_bits = layout.constant("palloc_chunks_l2_bits")
    offset = layout.constant("arena_base_offset")
    table = layout.field("mheap", "pages.chunks")
    bases: list[Words] = []
    blocks: list[Words] = []
    total = 0
    for start, limit in _grown_ranges(memory, layout, mheap):
        first = ((start - offset) & (1 << 64) - 1) // CHUNK_BYTES
        count = (limit - start) // CHUNK_BYTES
        total += count
        if total > MOST_CHUNKS:
            raise SnapshotError(f"the heap claims more than {MOST_CHUNKS} chunks of 4 MB")
        memory.room.take(count, CHUNK_HELD, "chunks of 4 MB of heap")
        while count:
            block = min(count, (1 << l2_bits) - (first & (1 << l2_bits) - 1))
            slot = (first >> l2_bits) * 8
            if slot >= table.size:
                raise SnapshotError(f"the heap claims a chunk outside the address space, at {start:#x}")
            l2 = int.from_bytes(mheap.bytes_at(table.offset + slot, 8), "little")
            words = read_words(memory, l2 + (first & (1 << l2_bits) - 1) * size, block * size // 8)
            bases.append(np.uint64(start) + np.arange(block, dtype=np.uint64) * np.uint64(CHUNK_BYTES))
            blocks.append(words.reshape(block, size // 8))
            first, count, start = first + block, count - block, start + block * CHUNK_BYTES
    if not blocks:
        empty = np.zeros((0, 8), np.uint64)
        return Chunks(np.zeros(0, np.uint64), empty, empty)
    words = np.concatenate(blocks)
    scavenged = layout.offset("pallocData", "scavenged") // 8
    return Chunks(np.concatenate(bases), words[:, :8], words[:, scavenged : scavenged + 8])


def _grown_ranges(memory: Memory, layout: Layout, mheap: Record) -> list[tuple[int, int]]:
    ranges = mheap.slice("pages.inUse.ranges")
    memory.room.take(ranges.length, _RANGE_HELD, "address ranges of heap")
    words = read_words(memory, ranges.address, ranges.length * 2)
    pairs = [(int(words[i]), int(words[i + 1])) for i in range(0, len(words), 2)]
    last = 0
    for start, limit in pairs:
        if not last <= start <= limit or start % CHUNK_BYTES or limit % CHUNK_BYTES or limit >> 57:
            raise SnapshotError(f"the heap's address range {start:#x}-{limit:#x} is not in order")
        last = limit
    return pairs


def page_states(chunks: Chunks, caches: list[PageCache], stacks: Words, work_bufs: Words, room: Room) -> HeapPages:
    """Join bitmaps, page caches and manual spans into one state a page.

    `stacks` and `work_bufs` have shape (k, 2): address and page count of manual spans. A page whose
    scavenged bit is set is scavenged even if its allocated bit is set: from Go 1.26 that marks the padding
    that randomises the heap's base (markRandomPaddingPages), and allocRange clears the bit for all others.
    """
    state = np.empty(chunks.base.size * CHUNK_PAGES, np.uint8)
    for first in range(0, chunks.base.size, _CHUNKS_AT_ONCE):
        some = slice(first, first + _CHUNKS_AT_ONCE)
        part = np.where(_unpack(chunks.allocated[some]), np.uint8(PageState.IN_USE), np.uint8(PageState.FREE))
        part[_unpack(chunks.scavenged[some])] = PageState.SCAVENGED
        state[first * CHUNK_PAGES : first * CHUNK_PAGES + part.size] = part
    pages = HeapPages(chunks.base, state)
    _paint(pages, stacks, PageState.STACK)
    _paint(pages, work_bufs, PageState.WORK_BUF)
    for cache in caches:
        _give_back(pages, cache)
    pages.take_room(room)
    return pages


def _unpack(words: Words) -> NDArray[np.bool_]:
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(-1)
    return np.unpackbits(octets, bitorder="little").astype(np.bool_)


def _index(pages: HeapPages, address: Words) -> NDArray[np.int64]:
    """Return the index into `state` of each address, or -1 where the heap has not grown."""
    chunk = np.searchsorted(pages.chunk_base, address, side="right").astype(np.int64) - 1
    inside = chunk >= 0
    offset = np.full(len(address), CHUNK_BYTES, np.uint64)
    offset[inside] = address[inside] - pages.chunk_base[chunk[inside]]
    inside &= offset < CHUNK_BYTES
    page = np.minimum(offset, np.uint64(CHUNK_BYTES)).astype(np.int64) // PAGE
    return np.where(inside, chunk * CHUNK_PAGES + page, -1)


def _paint(pages: HeapPages, spans: Words, state: PageState) -> None:
    if not len(spans) or not pages.state.size:
        return
    index = _index(pages, np.ascontiguousarray(spans[:, 0]))
    # A span lies in address space that grew in one piece, but chunks that are neighbours in `state`
    # are neighbours in address space only within such a piece; clip what would run past the end.
    count = np.minimum(spans[:, 1], np.uint64(pages.state.size)).astype(np.int64)
    known = index >= 0
    covered = normalise(index[known], np.minimum(index[known] + count[known], pages.state.size))
    border = np.zeros(pages.state.size + 1, np.int8)
    border[covered.start.astype(np.int64)] = 1
    border[covered.end.astype(np.int64)] = -1
    inside = np.cumsum(border[:-1], dtype=np.int8).astype(np.bool_)
    pages.state[inside & (pages.state == PageState.IN_USE)] = state


def _give_back(pages: HeapPages, cache: PageCache) -> None:
    bits = np.arange(64, dtype=np.uint64)
    addresses = np.uint64(cache.base & (1 << 64) - 1) + bits * np.uint64(PAGE)
    index = _index(pages, addresses)
    free = (np.uint64(cache.free) >> bits & np.uint64(1)).astype(np.bool_) & (index >= 0)
    scavenged = free & (np.uint64(cache.scavenged) >> bits & np.uint64(1)).astype(np.bool_)
    pages.state[index[free]] = PageState.FREE
    pages.state[index[scavenged]] = PageState.SCAVENGED
