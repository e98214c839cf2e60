"""The runtime's own counters: heapStats, and from them the figures of runtime.MemStats.

Source: consistentHeapStats and readmemstats_m in runtime/mstats.go, mcache in runtime/mcache.go, heapGoalInternal and
memoryLimitHeapGoal in runtime/mgcpacer.go (Go 1.19 to 1.27); see gomem.tracer.runtime.earlier for Go 1.11 to 1.18.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.report import JsonObject
from gomem.tracer.runtime.earlier import LocalFrees, first_number, small_objects
from gomem.tracer.runtime.structs import Record

# No counter reaches this: it is the address space, and a billion allocations a second for four years.
MOST = 1 << 57
_ALL_ONES = (1 << 64) - 1
_NO_LIMIT = (1 << 63) - 1


class HeapStats(Struct, frozen=True):
    """The sum of heapStats' three deltas (heapStatsDelta). Sizes in bytes.

    The rest of the arrays is by size class, shape (68,).
    """

    committed: int
    released: int
    in_heap: int
    in_stacks: int
    in_work_bufs: int  # with the unrolled GC programs that releases up to 1.22 count apart
    tiny_allocs: int
    large_alloc: int
    large_allocs: int
    large_free: int
    large_frees: int
    small_allocs: NDArray[np.int64]
    small_frees: NDArray[np.int64]
    in_gc_programs: int = 0  # of in_work_bufs: unrolled GC programs, which lie in no work buffer

    @property
    def free(self) -> int:
        """Return the bytes of free pages that are not scavenged."""
        return self.committed - self.in_heap - self.in_stacks - self.in_work_bufs


class Unflushed(Struct, frozen=True):
    """What mcaches have counted and heapStats not yet; ReadMemStats flushes it first."""

    tiny_allocs: int
    small_allocs: NDArray[np.int64]  # shape (68,)
    small_frees: NDArray[np.int64] | None = None  # shape (67,), up to Go 1.15
    large_frees: int = 0
    large_free: int = 0


def with_frees(unflushed: Unflushed, freed: Sequence[LocalFrees | None]) -> Unflushed:
    """Return what mcaches have not told, with what they have freed."""
    known = [frees for frees in freed if frees is not None]
    if not known:
        return unflushed
    return replace(
        unflushed,
        small_frees=np.sum([frees.small for frees in known], axis=0),
        large_frees=sum(frees.large_frees for frees in known),
        large_free=sum(frees.large_free for frees in known),
    )


def heap_stats(memstats: Record, mheap: Record | None = None) -> HeapStats:
    """Sum the three deltas of memstats.heapStats; up to Go 1.15, take the same from memstats and `mheap`.

    Raises SnapshotError if a sum is one that no runtime can reach: the deltas are being merged, or are none.
    """
    layout = memstats.layout
    if mheap is not None and not layout.has("mstats", "heapStats.stats"):
        return _without_deltas(memstats, mheap)
    size = layout.size("heapStatsDelta")
    start = layout.offset("mstats", "heapStats.stats")
    deltas = np.frombuffer(memstats.bytes_at(start, 3 * size), dtype="<i8").reshape(3, size // 8)
    total = deltas.sum(axis=0)
    if np.any(total < 0) or np.any(total > MOST) or np.any(abs(deltas.astype(np.float64)) > MOST):
        raise SnapshotError("memstats.heapStats makes no sense")

    def one(name: str) -> int:
        if not layout.has("heapStatsDelta", name):
            return 0
        return int(total[layout.offset("heapStatsDelta", name) // 8])

    def many(name: str) -> NDArray[np.int64]:
        spot = layout.field("heapStatsDelta", name)
        part: NDArray[np.int64] = total[spot.offset // 8 : (spot.offset + spot.size) // 8]
        return part

    stats = HeapStats(
        committed=one("committed"),
        released=one("released"),
        in_heap=one("inHeap"),
        in_stacks=one("inStacks"),
        in_work_bufs=one("inWorkBufs") + one("inPtrScalarBits"),
        in_gc_programs=one("inPtrScalarBits"),
        tiny_allocs=one("tinyAllocCount") + (memstats.number("tinyallocs") if memstats.has("tinyallocs") else 0),
        large_alloc=one("largeAlloc"),
        large_allocs=one("largeAllocCount"),
        large_free=one("largeFree"),
        large_frees=one("largeFreeCount"),
        small_allocs=many("smallAllocCount"),
        small_frees=many("smallFreeCount"),
    )
    if stats.free < 0:
        raise SnapshotError("memstats.heapStats has more bytes in use than committed")
    return stats


def _without_deltas(memstats: Record, mheap: Record) -> HeapStats:
    """Return the figures of a release that has them as plain counters; work buffers are counted in gc_sys only."""
    objects = small_objects(mheap)
    names = ("heap_idle", "heap_inuse", "heap_released", "stacks_inuse", "tinyallocs")
    idle, in_heap, released, in_stacks, tiny = (memstats.number(name) for name in names)
    if max(idle, in_heap, in_stacks, tiny) > MOST or released > idle:
        raise SnapshotError("memstats makes no sense")
    return HeapStats(
        committed=idle - released + in_heap + in_stacks,
        released=released,
        in_heap=in_heap,
        in_stacks=in_stacks,
        in_work_bufs=0,
        tiny_allocs=tiny,
        large_alloc=objects.large_alloc,
        large_allocs=objects.large_allocs,
        large_free=objects.large_free,
        large_frees=objects.large_frees,
        small_allocs=objects.allocs,
        small_frees=objects.frees,
    )


def with_work_bufs(stats: HeapStats, size: int) -> HeapStats:
    """Return the figures with `size` bytes of work buffers, where the counters do not tell them apart."""
    return replace(stats, committed=stats.committed + size, in_work_bufs=stats.in_work_bufs + size)


def mem_stats(stats: HeapStats, pending: Unflushed, memstats: Record, mheap: Record, controller: Record) -> JsonObject:
    """Return the fields of runtime.MemStats, by its own names, as ReadMemStats would compute them now."""
    sizes = memstats.layout.constants("class_to_size")
    mallocs_by_size: list[int] = (stats.small_allocs + pending.small_allocs).tolist()
    small_frees = stats.small_frees if pending.small_frees is None else stats.small_frees + pending.small_frees
    frees_by_size: list[int] = small_frees.tolist()
    tiny = stats.tiny_allocs + pending.tiny_allocs
    large_free, large_frees = stats.large_free + pending.large_free, stats.large_frees + pending.large_frees
    # Python's integers, because 64 bits would wrap around for counts that make no sense.
    total_alloc = stats.large_alloc + sum(map(mul, mallocs_by_size, sizes))
    total_free = large_free + sum(map(mul, frees_by_size, sizes))
    mallocs = stats.large_allocs + sum(mallocs_by_size) + tiny
    frees = large_frees + sum(frees_by_size) + tiny
    off_heap = {name: memstats.number(name) for name in _SYS_FIELDS.values() if memstats.has(name)}
    if "gcMiscSys" not in off_heap:
        off_heap["gcMiscSys"] = memstats.number("gc_sys") - stats.in_work_bufs
    heap_sys = stats.in_heap + stats.free + stats.released
    return {
        "Alloc": total_alloc - total_free,
        "TotalAlloc": total_alloc,
        "Sys": heap_sys + stats.in_stacks + stats.in_work_bufs + sum(off_heap.values()),
        "Mallocs": mallocs,
        "Frees": frees,
        "HeapAlloc": total_alloc - total_free,
        "HeapSys": heap_sys,
        "HeapIdle": stats.free + stats.released,
        "HeapInuse": stats.in_heap,
        "HeapReleased": stats.released,
        "HeapObjects": mallocs - frees,
        "StackInuse": stats.in_stacks,
        "StackSys": stats.in_stacks + off_heap["stacks_sys"],
        "MSpanInuse": mheap.number("spanalloc.inuse"),
        "MSpanSys": off_heap["mspan_sys"],
        "MCacheInuse": mheap.number("cachealloc.inuse"),
        "MCacheSys": off_heap["mcache_sys"],
        "BuckHashSys": off_heap["buckhash_sys"],
        "GCSys": off_heap["gcMiscSys"] + stats.in_work_bufs,
        "OtherSys": off_heap["other_sys"],
        "NextGC": heap_goal(controller, total_alloc - total_free, stats.free),
        "LastGC": memstats.number("last_gc_unix"),
        "PauseTotalNs": memstats.number("pause_total_ns"),
        "NumGC": memstats.number("numgc"),
        "NumForcedGC": memstats.number("numforcedgc"),
        # runtime.MemStats has room for 61 size classes since Go 1.0; it never shows the rest.
        "BySize": [
            [size, allocs, freed]
            for size, allocs, freed in zip(sizes[:61], mallocs_by_size[:61], frees_by_size[:61], strict=True)
        ],
    }


_SYS_FIELDS = {
    "StackSys": "stacks_sys",
    "MSpanSys": "mspan_sys",
    "MCacheSys": "mcache_sys",
    "BuckHashSys": "buckhash_sys",
    "GCSys": "gcMiscSys",
    "OtherSys": "other_sys",
}


def heap_goal(controller: Record, heap_alloc: int, heap_free: int) -> int:
    """Return the heap size at which the current or next cycle should end (gcControllerState.heapGoal)."""
    if not controller.has("gcPercentHeapGoal"):
        return first_number(controller, "heapGoal", "next_gc")
    goal = controller.number("gcPercentHeapGoal")
    limited = _memory_limit_goal(controller, heap_alloc, heap_free)
    if limited < goal:
        return limited
    goal = max(goal, controller.number("sweepDistMinTrigger"))
    triggered = controller.number("triggered")
    if triggered != _ALL_ONES:
        goal = max(goal, triggered + (64 << 10))
    return goal


def _memory_limit_goal(controller: Record, heap_alloc: int, heap_free: int) -> int:
    # Without a limit the runtime computes with 2^63-1 all the same: that is what NextGC shows with GOGC=off.
    limit = controller.number("memoryLimit", signed=True)
    ready = controller.number("mappedReady")
    marked = controller.number("heapMarked")
    other = ready - heap_free - heap_alloc + max(0, ready - limit)
    if other >= limit:
        return marked
    goal = limit - other
    headroom = _headroom(controller.layout, goal)
    return max(headroom if goal - headroom < headroom else goal - headroom, marked)


def _headroom(layout: Layout, goal: int) -> int:
    """Return what is kept between the goal and the limit: 1 MB, and from Go 1.21 on at least 3 % of the goal."""
    percent = "memory_limit_headroom_percent"
    return max(1 << 20, goal // 100 * (layout.constant(percent) if layout.has_constant(percent) else 0))


def memory_limit(controller: Record) -> int | None:
    """Return GOMEMLIMIT in bytes, or None when there is none (or the release does not know it)."""
    if not controller.has("memoryLimit"):
        return None
    limit = controller.number("memoryLimit", signed=True)
    return None if limit == _NO_LIMIT else limit
