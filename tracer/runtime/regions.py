"""The address ranges that the runtime owns, each proven by an address that one of its structures holds.

A mapping's kind comes from here, never from its size or its neighbours: the kernel merges adjacent
anonymous mappings, so one line of maps may hold several regions, or parts of the program's own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import Memory, read_words
from gomem.tracer.runtime.structs import Record, Slice, follow_list, read_record

# Lists that grow with the heap: gc bits have 64 KB an element, persistentalloc chunks 256 KB.
MOST_ELEMENTS = 1 << 18
# What we hold of an element of a list, or of an arena: a Region, and in the join with the kernel's view a few rows.
REGION_HELD = 512
MOST_ARENAS = 1 << 15  # 2 TB of heap, whatever room there is
# persistentalloc hands requests of at least this size straight to sysAlloc (maxBlock, runtime/malloc.go).
DIRECT_SIZE = 64 << 10
PERSISTENT = "persistentalloc chunk"  # what such a region is
OS_PAGE = 4096
ADDRESS_SPACE = 1 << 57


class Region(Struct, frozen=True):
    """One range that the runtime got from the OS in one piece.

    `size` is what the runtime asked for; the kernel gave whole OS pages. `counted`: the runtime counts it in
    gcController.mappedReady once it is Ready.
    """

    start: int
    size: int
    kind: str  # a kind of REPORT.md
    what: str
    counted: bool = True

    @property
    def end(self) -> int:
        """Return the end of the last OS page."""
        return self.start + (self.size + OS_PAGE - 1) // OS_PAGE * OS_PAGE


class Roots(Struct, frozen=True):
    """What the walk starts from: the records read once a snapshot, and the globals' addresses."""

    memory: Memory
    layout: Layout
    mheap: Record
    globals: Mapping[str, int]
    arenas: tuple[int, ...] = ()  # base addresses, where mheap keeps no list of them (Go 1.11)


def owned_regions(roots: Roots) -> tuple[list[Region], list[str]]:
    """Return all regions found, sorted by address, and the names of the structures that could not be walked."""
    found: list[Region] = []
    missed: list[str] = []
    for walk in _WALKS:
        try:
            found.extend(_checked(walk(roots), roots.memory.room))
        except (SnapshotError, LayoutError) as error:
            missed.append(f"{walk.__name__.lstrip('_').replace('_', ' ')}: {error.what}")
    return _without_overlap(found), missed


def _checked(walk: Iterator[Region], room: Room) -> list[Region]:
    regions: list[Region] = []
    for region in walk:
        room.take(1, REGION_HELD, "parts of the runtime's own memory")
        if not 0 < region.start <= region.end <= ADDRESS_SPACE:
            raise SnapshotError(f"{region.what}: {region.size} bytes at {region.start:#x} leave the address space")
        if region.size:
            regions.append(region)
    return regions


def _global(roots: Roots, name: str) -> int:
    """Return the address of a global; LayoutError if it could not be found in the executable."""
    if name not in roots.globals:
        raise LayoutError(f"the global {name} could not be found in the executable")
    return roots.globals[name]


def _without_overlap(found: list[Region]) -> list[Region]:
    kept: list[Region] = []
    for region in sorted(found, key=lambda region: (region.start, -region.size)):
        if not kept or region.start >= kept[-1].end:
            kept.append(region)
    return kept


def arena_bases(roots: Roots) -> list[int]:
    """Return the base address of every heap arena, ascending."""
    name = "heapArenas" if roots.mheap.has("heapArenas") else "allArenas"
    if not roots.mheap.has(name):
        return sorted(roots.arenas)
    return sorted(_arena_base(roots, index) for index in _indices(roots, roots.mheap.slice(name)))


def _all_arena_indices(roots: Roots) -> Iterator[int]:
    """Yield the index of every arena that has a heapArena."""
    for name in ("heapArenas", "allArenas", "userArenaArenas"):
        if roots.mheap.has(name):
            yield from _indices(roots, roots.mheap.slice(name))
    offset, size = roots.layout.constant("arena_base_offset"), roots.layout.constant("heap_arena_bytes")
    for base in roots.arenas:
        yield (base - offset & (1 << 64) - 1) // size


def _arena_base(roots: Roots, index: int) -> int:
    base = index * roots.layout.constant("heap_arena_bytes") + roots.layout.constant("arena_base_offset")
    return base & (1 << 64) - 1


def _indices(roots: Roots, arenas: Slice) -> list[int]:
    if arenas.length > MOST_ARENAS:
        raise SnapshotError(f"the heap claims {arenas.length} arenas")
    bound = 1 << roots.layout.constant("arena_l1_bits") + roots.layout.constant("arena_l2_bits")
    indices = [int(word) for word in read_words(roots.memory, arenas.address, arenas.length)]
    if any(index >= bound for index in indices):
        raise SnapshotError("the heap claims an arena outside the address space")
    return indices


def _arenas(roots: Roots) -> Iterator[Region]:
    size = roots.layout.constant("heap_arena_bytes")
    for base in arena_bases(roots):
        yield Region(base, size, "heap_arena", "arena", counted=False)


def _user_arenas(roots: Roots) -> Iterator[Region]:
    if roots.mheap.has("userArenaArenas"):
        size = roots.layout.constant("heap_arena_bytes")
        for index in _indices(roots, roots.mheap.slice("userArenaArenas")):
            yield Region(_arena_base(roots, index), size, "heap_arena", "user arena", counted=False)


def _heap_index(roots: Roots) -> Iterator[Region]:
    size = 8 << roots.layout.constant("arena_l2_bits")
    table = roots.layout.offset("mheap", "arenas")
    for l1 in range(1 << roots.layout.constant("arena_l1_bits")):
        address = int.from_bytes(roots.mheap.bytes_at(table + l1 * 8, 8), "little")
        if address:
            yield Region(address, size, "heap_metadata", "heap index", counted=False)


def _arena_metadata(roots: Roots) -> Iterator[Region]:
    size = roots.layout.size("heapArena")
    table = roots.layout.offset("mheap", "arenas")
    l2_bits = roots.layout.constant("arena_l2_bits")
    for index in _all_arena_indices(roots):
        l1, l2 = index >> l2_bits, index & (1 << l2_bits) - 1
        second = int.from_bytes(roots.mheap.bytes_at(table + l1 * 8, 8), "little")
        address = int(read_words(roots.memory, second + l2 * 8, 1)[0])
        yield Region(address, size, "heap_metadata", "heapArena")


def _page_summaries(roots: Roots) -> Iterator[Region]:
    if not roots.mheap.has("pages.summary"):
        return
    spot = roots.layout.field("mheap", "pages.summary")
    for level in range(spot.size // 24):
        words = [int.from_bytes(roots.mheap.bytes_at(spot.offset + level * 24 + step, 8), "little") for step in (0, 16)]
        if words[0]:
            yield Region(words[0], words[1] * 8, "page_summary", f"page summary level {level}")


def _scavenge_index(roots: Roots) -> Iterator[Region]:
    if roots.mheap.has("pages.scav.index.chunks"):
        chunks = roots.mheap.slice("pages.scav.index.chunks")
        if chunks.address:
            # One bit a chunk in bytes up to Go 1.19, a struct a chunk since.
            packed = not roots.layout.has_struct("atomicScavChunkData")
            width = 1 if packed else roots.layout.size("atomicScavChunkData")
            yield Region(chunks.address, chunks.capacity * width, "page_summary", "scavenge index")


def _chunk_bitmaps(roots: Roots) -> Iterator[Region]:
    if not roots.mheap.has("pages.chunks"):
        return
    spot = roots.layout.field("mheap", "pages.chunks")
    size = roots.layout.size("pallocData") << roots.layout.constant("palloc_chunks_l2_bits")
    for (address,) in struct.iter_unpack("<Q", roots.mheap.bytes_at(spot.offset, spot.size)):
        if address:
            yield Region(address, size, "heap_metadata", "page bitmaps")


def _persistent_chunks(roots: Roots) -> Iterator[Region]:
    size = roots.layout.constant("persistent_chunk_size")
    head = int(read_words(roots.memory, _global(roots, "persistentChunks"), 1)[0])
    seen: set[int] = set()
    while head:
        if head in seen or len(seen) >= MOST_ELEMENTS:
            raise SnapshotError("the list of persistentalloc chunks does not end")
        seen.add(head)
        yield Region(head, size, "heap_metadata", PERSISTENT)
        head = int(read_words(roots.memory, head, 1)[0])


def _direct_slices(roots: Roots) -> Iterator[Region]:
    """Yield backing arrays of mheap's own slices that are too large for persistentalloc's chunks."""
    for name in ("heapArenas", "allArenas", "userArenaArenas"):
        if roots.mheap.has(name):
            arenas = roots.mheap.slice(name)
            if arenas.capacity * 8 >= DIRECT_SIZE:
                yield Region(arenas.address, arenas.capacity * 8, "heap_metadata", name)


def _all_spans(roots: Roots) -> Iterator[Region]:
    spans = roots.mheap.slice("allspans")
    if spans.address:
        yield Region(spans.address, spans.capacity * 8, "heap_metadata", "allspans array")


def _gc_bits(roots: Roots) -> Iterator[Region]:
    start = _global(roots, "gcBitsArenas")
    size = roots.layout.constant("gc_bits_chunk_bytes")
    for name in ("free", "next", "current", "previous"):
        head = int(read_words(roots.memory, start + roots.layout.offset("gcBitsArenas", name), 1)[0])
        for address in follow_list(roots.memory, roots.layout, "gcBitsArena", "next", head, MOST_ELEMENTS):
            yield Region(address, size, "heap_metadata", "gc bits")


def _profile_buckets(roots: Roots) -> Iterator[Region]:
    address = int(read_words(roots.memory, _global(roots, "buckhash"), 1)[0])
    if address:
        size = roots.layout.constant("buck_hash_size") * 8
        yield Region(address, size, "heap_metadata", "profiler hash buckets")


def _span_queues(roots: Roots) -> Iterator[Region]:
    """Yield the rings that the Green Tea collector queues spans in (runtime/mgcmark_greenteagc.go, Go 1.26)."""
    if not roots.layout.has("work", "spanSPMCs.list.obj"):
        return
    list_head = _global(roots, "work") + roots.layout.offset("work", "spanSPMCs.list.obj")
    head = int(read_words(roots.memory, list_head, 1)[0])
    for address in follow_list(roots.memory, roots.layout, "spanSPMC", "allnode.next", head, MOST_ELEMENTS):
        queue = read_record(roots.memory, roots.layout, "spanSPMC", address)
        ring, capacity = queue.number("ring"), queue.number("cap")
        if ring and capacity <= MOST_ELEMENTS:
            yield Region(ring, capacity * 8, "heap_metadata", "GC span queue")


_WALKS: tuple[Callable[[Roots], Iterator[Region]], ...] = (
    _arenas,
    _user_arenas,
    _heap_index,
    _arena_metadata,
    _page_summaries,
    _scavenge_index,
    _chunk_bitmaps,
    _persistent_chunks,
    _direct_slices,
    _all_spans,
    _gc_bits,
    _profile_buckets,
    _span_queues,
)
