"""Where the releases before Go 1.19 keep the figures that newer ones have in heapStats and gcController.

Source: runtime/mstats.go (updatememstats, purgecachedstats), runtime/mheap.go and runtime/mgc.go, Go 1.11 to 1.18.
What a release has is asked of its layout: nothing here knows a version.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory
from gomem.tracer.runtime.pages import CHUNK_BYTES, Chunks
from gomem.tracer.runtime.structs import Record, read_record

# Neighbouring arenas that one large allocation asks for at once: 1 TB.
MOST_ARENAS = 1 << 14


class SmallObjects(Struct, frozen=True):
    """Allocations and frees of each size class, shape (n,), and of large objects (count, bytes)."""

    allocs: NDArray[np.int64]
    frees: NDArray[np.int64]
    large_allocs: int
    large_alloc: int
    large_frees: int
    large_free: int


class LocalFrees(Struct, frozen=True):
    """What one mcache has freed: by size class, shape (n,), and large objects (count, bytes)."""

    small: NDArray[np.int64]
    large_frees: int
    large_free: int


def has_pacer(layout: Layout) -> bool:
    """Tell whether gcController holds the marked heap and the goal (Go 1.17 and later); before, memstats does."""
    return layout.has("gcControllerState", "heapMarked")


def required_globals(layout: Layout) -> tuple[str, ...]:
    """Return the globals without which a runtime of this layout cannot be read."""
    if layout.has("mheap", "arena_start"):
        return ("mheap_",)
    return ("mheap_", "memstats", "allp", *(("gcController",) if has_pacer(layout) else ()))


def optional_globals(layout: Layout) -> tuple[str, ...]:
    """Return the globals that tell more."""
    found = ["work", "gcphase", "gcBitsArenas", "buckhash", "sched", "allgs"]
    found += [name for name in ("gcpercent", "gcCPULimiter", "allfin", "gcCleanups") if name in layout.globals]
    if "scavenge" in layout.globals and layout.has("scavenge", "memoryLimitGoal"):
        found += ["scavenge", "scavenger"]
    if "persistentChunks" in layout.globals or has_pacer(layout):
        found.append("persistentChunks")
    return tuple(found)


def pacer_record(memory: Memory, layout: Layout, addresses: Mapping[str, int], memstats: Record) -> Record:
    """Return the record that holds the collector's goal: gcController, or memstats itself where it does."""
    if not has_pacer(layout):
        return memstats
    return read_record(memory, layout, "gcControllerState", addresses["gcController"])


def small_objects(mheap: Record) -> SmallObjects:
    """Sum what mheap and its mcentrals count (up to Go 1.15; from 1.16 on heapStats does).

    Raises SnapshotError for counts that no runtime can reach.
    """
    layout = mheap.layout
    central = layout.field("mheap", "central")
    words = np.frombuffer(mheap.bytes_at(central.offset, central.size), "<i8").reshape(central.count, -1)
    mallocs = words[:, layout.offset("mcentral", "nmalloc") // 8]
    frees = _words(mheap, "nsmallfree")
    allocs = np.zeros(frees.size, np.int64)
    np.add.at(allocs, np.arange(central.count) >> 1, mallocs)
    if np.any(mallocs < 0) or np.any(mallocs >> 57) or np.any(frees < 0) or np.any(frees >> 57):
        raise SnapshotError("mheap's counts of objects make no sense")
    names = ("nlargealloc", "largealloc", "nlargefree", "largefree")
    return SmallObjects(allocs, frees, *(mheap.number(name) for name in names))


def local_frees(mcache: Record) -> LocalFrees | None:
    """Return what an mcache has freed and not told mheap; None where mcaches do not count that."""
    if not mcache.has("local_nsmallfree"):
        return None
    large = mcache.number("local_nlargefree"), mcache.number("local_largefree")
    return LocalFrees(_words(mcache, "local_nsmallfree"), *large)


def _words(record: Record, field: str) -> NDArray[np.int64]:
    spot = record.layout.field(record.struct, field)
    return np.frombuffer(record.bytes_at(spot.offset, spot.size), "<i8")


def rest_of_arena(mheap: Record) -> tuple[int, int]:
    """Return where the part of the current arena begins and ends that counts as released, though it was never used.

    Go 1.13.4 to 1.16 map an arena whole, and mheap.grow takes pieces of it. Later releases leave the rest reserved
    (sysMap in mheap.grow, with linearAlloc.mapMemory). Raises SnapshotError if it is too large.
    """
    if mheap.has("arena.mapMemory") or not mheap.has("curArena.base"):
        return 0, 0
    base, end = mheap.number("curArena.base"), mheap.number("curArena.end")
    if not base <= end <= base + mheap.layout.constant("heap_arena_bytes") * MOST_ARENAS:
        raise SnapshotError(f"the heap claims {base:#x} to {end:#x} as its current arena")
    return base, end


def with_rest_of_arena(chunks: Chunks, mheap: Record) -> Chunks:
    """Return the chunks with those of the current arena that the heap has not grown into."""
    base, end = rest_of_arena(mheap)
    if (base | end) % CHUNK_BYTES:
        raise SnapshotError(f"the heap claims {base:#x} to {end:#x} as its current arena")
    rest = np.arange(base, end, CHUNK_BYTES, dtype=np.uint64)
    if not rest.size:
        return chunks
    bases = np.concatenate((chunks.base, rest))
    order = np.argsort(bases, kind="stable")
    if np.any(np.diff(bases[order]) == 0):
        raise SnapshotError("the heap has grown into the rest of its current arena")
    nothing = np.zeros((rest.size, chunks.allocated.shape[1]), np.uint64)
    return Chunks(
        bases[order],
        np.concatenate((chunks.allocated, nothing))[order],
        np.concatenate((chunks.scavenged, ~nothing))[order],
    )


def first_number(record: Record, *fields: str) -> int:
    """Return the first of these fields that the record has."""
    name = next((field for field in fields if record.has(field)), fields[-1])
    return record.number(name)


def gc_percent(memory: Memory, pacer: Record, addresses: Mapping[str, int]) -> int | None:
    """Return GOGC, -1 when it is off, None where it could not be found."""
    if pacer.has("gcPercent"):
        return pacer.number("gcPercent", signed=True)
    if "gcpercent" not in addresses:
        return None
    return int.from_bytes(memory.read(addresses["gcpercent"], 4), "little", signed=True)
