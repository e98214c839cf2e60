"""What holds in every Go runtime, whatever the program does.

That is: the sizes that the runtime keeps of its own structs, its own double entries (readmemstats_m in
runtime/mstats.go throws when they differ), and pointers that must lead back.

Each invariant yields, in words, how a snapshot and its evidence break it. It raises LayoutError where the release
lacks what the invariant is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.process.memory import Words
from gomem.tracer.runtime.evidence import Evidence
from gomem.tracer.runtime.pages import PAGE
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import DEAD, IN_USE
from gomem.tracer.runtime.stats import HeapStats, heap_stats

_WORD = (1 << 64) - 1
_TINY_SIZE = 16
_DEFAULT_HEAP_MINIMUM = 4 << 20
_YEAR_2009 = 1_230_768_000_000_000_000  # Go's own birth, in Unix nanoseconds

Invariant = Callable[[RuntimeSnapshot, Evidence], Iterator[str]]


def _accounting_identities(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    if not snapshot.consistency.exact:
        yield f"pages, spans and counters contradict each other by {snapshot.consistency.skew_bytes} bytes"


def _sizes_of_structs(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare the sizes that mheap's allocators were made for (mheap.init) with the layout's."""
    for allocator, struct in _ALLOCATORS.items():
        if not evidence.mheap.has(f"{allocator}.size") or not evidence.mheap.layout.has_struct(struct):
            continue
        said, known = evidence.mheap.number(f"{allocator}.size"), evidence.mheap.layout.size(struct)
        # An allocator gives structs that have no pointers the room for one: fixalloc links free ones.
        if said != max(known, 8):
            yield f"the runtime's {struct} has {said} bytes, the table's {known}"


_ALLOCATORS = {
    "spanalloc": "mspan",
    "cachealloc": "mcache",
    "specialprofilealloc": "specialprofile",
    "arenaHintAlloc": "arenaHint",
    "spanSPMCAlloc": "spanSPMC",
}


def _structs_in_use(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare how many mspans and mcaches were allocated with how many there are."""
    mheap, spans = evidence.mheap, snapshot.spans
    size = mheap.layout.size("mspan")
    live, made = int(np.count_nonzero(spans.state != DEAD)), spans.address.size
    in_use = mheap.number("spanalloc.inuse")
    # A P keeps up to 128 mspans that are allocated and not used (p.mspancache).
    if in_use % size or not live <= in_use // size <= made:
        yield f"{live} of {made} mspans of {size} bytes are in use, and take {in_use} bytes"
    size = mheap.layout.size("mcache")
    in_use, caches = mheap.number("cachealloc.inuse"), sum(p.mcache is not None for p in evidence.processors)
    if in_use != caches * size:
        yield f"{caches} mcaches of {size} bytes take {in_use} bytes"


def _processors_know_their_number(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    for index, processor in enumerate(evidence.processors):
        if processor.number != index:
            yield f"P {index} says it is P {processor.number}"


def _mcaches(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Check that each slot holds a span of its own class, and that the tiny block is what it can be."""
    sweepgen = evidence.mheap.number("sweepgen")
    starts, ends = _arena_bounds(snapshot)
    for processor in evidence.processors:
        mcache = processor.mcache
        if mcache is None:
            continue
        wanted = np.arange(processor.slots.size, dtype=np.uint64)
        held = processor.slots != processor.slots[0]  # slot 0 always holds emptymspan
        if np.any(processor.span_class[held] != wanted[held]):
            yield f"the mcache of P {processor.number} holds spans in slots of other classes"
        tiny = mcache.number("tiny")
        in_heap = not tiny or bool(_within(np.array([tiny], np.uint64), starts, ends).all())
        if not in_heap or mcache.number("tinyoffset") > _TINY_SIZE:
            yield f"the tiny block of P {processor.number} is no part of the heap"
        if mcache.has("flushGen") and mcache.number("flushGen") not in (sweepgen, sweepgen - 2 & 0xFFFF_FFFF):
            yield f"the mcache of P {processor.number} was flushed in no known sweep"


def _spans_lie_in_arenas(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    spans = snapshot.spans
    live = spans.state != DEAD
    start = spans.start[live]
    end = start + spans.pages[live] * np.uint64(PAGE)
    starts, ends = _arena_bounds(snapshot)
    # A span may cross from one arena to its neighbour, but not leave them.
    outside = ~_within(start, starts, ends) | ~_within(end - np.uint64(1), starts, ends)
    if not live.any() or outside.any():
        yield f"{int(np.count_nonzero(outside))} of {start.size} spans lie in no arena"
    order = np.argsort(start)
    if np.any(end[order][:-1] > start[order][1:]):
        yield "spans overlap"


def _arenas_lead_back_to_spans(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    wrong = [address for address, entry in evidence.arena_entries if address != entry]
    if wrong or not evidence.arena_entries:
        yield f"for {len(wrong)} of {len(evidence.arena_entries)} spans, the heapArena names another"


def _span_lists_lead_back(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    for what, head, back, previous in evidence.span_lists:
        if back != head or previous:
            yield f"the first span of {what} belongs to another list"


def _object_sizes(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare each span's elemsize with its class, and its nelems with what has room."""
    spans, used = snapshot.spans, snapshot.spans.with_state(IN_USE)
    classes = np.array(snapshot.class_to_size, np.uint64)
    number = (spans.span_class[used] >> np.uint64(1)).astype(np.int64)
    size, capacity = spans.object_size[used], spans.capacity[used]
    if np.any(number >= classes.size):
        yield "spans have a size class that does not exist"
        return
    if np.any((number > 0) & (size != classes[number])) or np.any(size == 0):
        yield "spans have another object size than their size class"
    if np.any(capacity == 0) or np.any((number == 0) & (capacity != 1)):
        yield "spans have no room for an object, or large ones for several"


def _object_counts(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare the objects in spans with those that were allocated and not freed, class by class."""
    if not evidence.mstats.has("heapStats.stats"):
        return  # releases before Go 1.16 count frees elsewhere, and late
    spans, used, stats = snapshot.spans, snapshot.spans.with_state(IN_USE), snapshot.stats
    found = np.zeros(len(snapshot.class_to_size), np.int64)
    np.add.at(found, (spans.span_class[used] >> np.uint64(1)).astype(np.int64), spans.objects[used].astype(np.int64))
    counted = stats.small_allocs + snapshot.caches.unflushed.small_allocs - stats.small_frees
    counted[0] = stats.large_allocs - stats.large_frees
    different = np.flatnonzero(found != counted)
    if different.size:
        one = int(different[0])
        yield f"spans of size class {one} hold {int(found[one])} objects, the runtime counts {int(counted[one])}"


def _double_entries(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare the pacer's sums with those of heapStats, as the runtime does itself (doubleCheckReadMemStats)."""
    controller = evidence.controller
    if controller is None or not controller.has("heapInUse"):
        return
    stats = heap_stats(evidence.mstats)
    for name, counted in (
        ("heapInUse", stats.in_heap),
        ("heapReleased", stats.released),
        ("heapFree", stats.free),
        ("totalAlloc", _bytes_allocated(snapshot, stats)),
        ("totalFree", _bytes_freed(snapshot, stats)),
    ):
        if controller.number(name) != counted:
            yield f"gcController.{name} is {controller.number(name)}, by heapStats it is {counted}"


def _bytes_allocated(snapshot: RuntimeSnapshot, stats: HeapStats) -> int:
    sizes = np.array(snapshot.class_to_size, np.int64)
    return stats.large_alloc + int((stats.small_allocs * sizes).sum())


def _bytes_freed(snapshot: RuntimeSnapshot, stats: HeapStats) -> int:
    sizes = np.array(snapshot.class_to_size, np.int64)
    return stats.large_free + int((stats.small_frees * sizes).sum())


def _mapped_bytes(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare gcController.mappedReady with the sum of what each part of the runtime has mapped."""
    if evidence.controller is None or not evidence.controller.has("mappedReady"):
        return
    stats = heap_stats(evidence.mstats)
    parts = ("stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys")
    total = stats.committed + sum(evidence.mstats.number(name) for name in parts)
    ready = evidence.controller.number("mappedReady")
    if ready != total:
        yield f"gcController.mappedReady is {ready}, the parts sum up to {total}"


def _garbage_collections(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare the number of collections with the sweeps, and the pauses with their sum (gcMarkTermination)."""
    mstats = evidence.mstats
    cycles, forced = mstats.number("numgc"), mstats.number("numforcedgc")
    if forced > cycles or evidence.mheap.number("sweepgen") != 2 * cycles & 0xFFFF_FFFF:
        yield f"{cycles} collections, {forced} of them forced, do not fit the sweep generation"
    ring = mstats.layout.field("mstats", "pause_ns")
    pauses = np.frombuffer(mstats.bytes_at(ring.offset, ring.size), dtype="<u8")
    total, recent = mstats.number("pause_total_ns"), sum(pauses.tolist())
    if recent > total or (cycles <= pauses.size and recent != total):
        yield f"{cycles} pauses took {recent} ns, together {total} ns"
    last = mstats.number("last_gc_unix")
    if (last > _YEAR_2009) != (cycles > 0) or (last and not cycles):
        yield f"the last of {cycles} collections was at {last}"


def _central_lists(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Every span in use is in a set of its mcentral or in an mcache; sets may hold swept ones a second time.

    But for the few that somebody has just taken out, to cache or to sweep them.
    """
    if not snapshot.structure.mcentral and not evidence.mheap.layout.has("mcentral", "partial"):
        return
    spans, used = snapshot.spans, snapshot.spans.with_state(IN_USE)
    held = np.concatenate([p.slots for p in evidence.processors if p.mcache is not None] or [np.zeros(0, np.uint64)])
    waiting = used & ~np.isin(spans.address, held)
    needed = np.bincount(spans.span_class[waiting].astype(np.int64), minlength=256)
    listed = np.zeros(256, np.int64)
    for row in snapshot.structure.mcentral or ():
        listed[row.span_class & 255] = row.partial + row.full + row.partial_unswept + row.full_unswept
    lacking = int(np.maximum(needed[:256] - listed, 0).sum())
    if lacking > max(8, int(needed.sum()) // 16) or np.any(listed > spans.address.size * 2):
        yield f"{int(needed.sum())} spans belong to central lists, which hold {int(listed.sum())}"


def _cycles(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare what gcStart and gcMarkTermination note in work with what they note in memstats."""
    if evidence.work is None or not evidence.work.has("cycles"):
        return
    begun, ended = evidence.work.number("cycles"), evidence.mstats.number("numgc")
    if begun not in (ended, ended + 1):
        yield f"{begun} collections began and {ended} ended"
    if evidence.work.has("tEnd") and evidence.mstats.has("last_gc_nanotime"):
        end, last = evidence.work.number("tEnd"), evidence.mstats.number("last_gc_nanotime")
        if end != last:
            yield f"the last collection ended at {end} and at {last}"


def _pacing(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compute the heap goal from what it is made of (gcControllerState.commit and setGCPercent)."""
    controller, cycles = evidence.controller, evidence.mstats.number("numgc")
    if controller is None or not controller.has("lastStackScan"):
        return
    percent, minimum = controller.number("gcPercent", signed=True), controller.number("heapMinimum")
    if percent < -1 or minimum != (_DEFAULT_HEAP_MINIMUM * percent & _WORD) // 100:
        yield f"GOGC={percent} does not give a least heap of {minimum} bytes"
    if controller.number("memoryLimit", signed=True) < 0:
        yield "the memory limit is negative"
    marked = controller.number("heapMarked")
    scanned = marked + controller.number("lastStackScan") + controller.number("globalsScan")
    goal = _WORD if percent < 0 else max(minimum, marked + scanned * percent // 100)
    if cycles and controller.number("gcPercentHeapGoal") != goal:
        yield f"the heap goal is {controller.number('gcPercentHeapGoal')}, by its parts it is {goal}"


def _goroutines(snapshot: RuntimeSnapshot, evidence: Evidence) -> Iterator[str]:
    """Compare the goroutines that are not dead with those that are on no free list."""
    scheduler = snapshot.structure.scheduler
    if scheduler is None or scheduler.goroutine_states is None:
        return
    alive = sum(count for state, count in scheduler.goroutine_states.items() if not state.startswith("dead"))
    if "other" in scheduler.goroutine_states:
        yield "goroutines are in states that do not exist"
    # Those of the extra Ms that wait for calls from C are dead, on no free list, and count as the system's.
    if not scheduler.goroutines <= alive <= scheduler.goroutines + scheduler.system_goroutines:
        yield (
            f"{alive} goroutines are not dead, {scheduler.goroutines} and {scheduler.system_goroutines} "
            "of the system's are not free"
        )
    if scheduler.ps != len(evidence.processors):
        yield f"there are {scheduler.ps} Ps and {len(evidence.processors)}"


def _arena_bounds(snapshot: RuntimeSnapshot) -> tuple[Words, Words]:
    arenas = sorted((region.start, region.end) for region in snapshot.regions if region.kind == "heap_arena")
    starts, ends = zip(*arenas, strict=True) if arenas else ((), ())
    return np.array(starts, np.uint64), np.array(ends, np.uint64)


def _within(address: Words, starts: Words, ends: Words) -> NDArray[np.bool_]:
    """Tell of each address whether it lies in one of the ranges, which are sorted and disjoint."""
    if not starts.size:
        return np.zeros(address.shape, np.bool_)
    index = np.searchsorted(starts, address, side="right").astype(np.int64) - 1
    inside: NDArray[np.bool_] = (index >= 0) & (address < ends[np.maximum(index, 0)])
    return inside


INVARIANTS: tuple[Invariant, ...] = (
    _accounting_identities,
    _sizes_of_structs,
    _structs_in_use,
    _processors_know_their_number,
    _mcaches,
    _spans_lie_in_arenas,
    _arenas_lead_back_to_spans,
    _span_lists_lead_back,
    _object_sizes,
    _object_counts,
    _double_entries,
    _mapped_bytes,
    _garbage_collections,
    _central_lists,
    _cycles,
    _pacing,
    _goroutines,
)
