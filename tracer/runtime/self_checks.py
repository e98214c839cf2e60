"""Whether a layout fits a live runtime: what must hold whatever the program does, checked before a figure is shown.

A table that nobody measured for this very build can be wrong in ways that still give plausible figures. The checks
therefore tie together what the figures are made of: the sizes that the runtime keeps of its own structs, its
own double entries (readmemstats_m in runtime/mstats.go throws when they differ), and pointers that must lead back.

A live target moves while it is read, so each check has to hold only once in a few attempts; none holds by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tracer.errors import LayoutError, SnapshotError
from tracer.layout.layout import Layout
from tracer.runtime.memory import Memory, Words, read_words
from tracer.runtime.pages import PAGE
from tracer.runtime.snapshot import RuntimeSnapshot
from tracer.runtime.spans import DEAD, IN_USE, read_span_columns
from tracer.runtime.stats import HeapStats, heap_stats
from tracer.runtime.structs import Record, read_record

ATTEMPTS = 8
_REPETITIONS = 2
_MOST_PS = 1 << 12
_SAMPLED_SPANS = 256
_WORD = (1 << 64) - 1
_TINY_SIZE = 16
_DEFAULT_HEAP_MINIMUM = 4 << 20
_YEAR_2009 = 1_230_768_000_000_000_000  # Go's own birth, in Unix nanoseconds


@dataclass(frozen=True, slots=True)
class Processor:
    """What one P says of itself; `slots` has shape (136,), the mcache's spans by span class."""

    number: int
    mcache: Record | None
    slots: Words
    span_class: Words  # of the span in each slot, shape (136,)


@dataclass(frozen=True, slots=True)
class Witness:
    """What the checks look at, besides the snapshot; read anew at each attempt."""

    mheap: Record
    mstats: Record
    controller: Record | None  # releases before Go 1.17 have it not, or little in it
    processors: list[Processor]
    arena_entries: list[tuple[int, int]]  # of sampled spans: the mspan, and what heapArena.spans has for its page
    span_lists: list[tuple[str, int, int, int]]  # what, address of the list, first.list, first.prev


Check = Callable[[RuntimeSnapshot, Witness], Iterator[str]]


@dataclass(slots=True)
class SelfChecks:
    """The checks of one runtime over a few attempts."""

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, snapshot: RuntimeSnapshot, witness: Witness) -> None:
        """Run the checks that have not passed yet."""
        for check in CHECKS:
            name = check.__name__.lstrip("_").replace("_", " ")
            if name in self.passed:
                continue
            try:
                found = next(check(snapshot, witness), None)
            except SnapshotError as error:
                found = error.what
            except LayoutError:  # the release has not what the check looks at
                continue
            if found is None:
                self.passed.add(name)
                self.failed.pop(name, None)
            else:
                self.failed[name] = found


def contradictions(
    take: Callable[[], RuntimeSnapshot],
    memory: Memory,
    layout: Layout,
    addresses: Mapping[str, int],
    attempts: int = ATTEMPTS,
) -> list[str]:
    """Return in words what speaks against the layout, [] if it fits; `take` returns a fresh snapshot each time.

    Raises TargetGone or NotPermitted when the process cannot be read any more.
    """
    checks = SelfChecks()
    against, before = ["nothing was checked"], [""]
    repeated = 0
    for _ in range(attempts):
        try:
            snapshot = take()
            checks.run(snapshot, read_witness(memory, layout, addresses, snapshot))
            against = [*checks.failed.values()]
        except (SnapshotError, LayoutError) as error:
            against = [error.what]
        if not against:
            return []
        # What moves is not wrong to the byte by the same figures again.
        repeated = repeated + 1 if against == before else 0
        if repeated == _REPETITIONS:
            break
        before = against
    return against


def ensure_fits(
    take: Callable[[], RuntimeSnapshot], memory: Memory, layout: Layout, addresses: Mapping[str, int]
) -> None:
    """Raise LayoutError with what speaks against the layout; see `contradictions`."""
    against = contradictions(take, memory, layout, addresses)
    if against:
        more = f" (and {len(against) - 1} more)" if len(against) > 1 else ""
        raise LayoutError(
            f"the layout of go{layout.table_version} does not fit {layout.go_version}: {against[0]}{more}",
            "generate the release's own table: python -m tracer.layout.generate --toolchain GOROOT; "
            "if it is only that the target moves too fast to be checked, --freeze helps",
        )


def read_witness(
    memory: Memory, layout: Layout, addresses: Mapping[str, int], snapshot: RuntimeSnapshot
) -> Witness:
    """Read what the checks need. Raises SnapshotError or LayoutError."""
    mheap = read_record(memory, layout, "mheap", addresses["mheap_"])
    return Witness(
        mheap=mheap,
        mstats=read_record(memory, layout, "mstats", addresses["memstats"]),
        controller=(
            read_record(memory, layout, "gcControllerState", addresses["gcController"])
            if "gcController" in addresses and layout.has_struct("gcControllerState")
            else None
        ),
        processors=_processors(memory, layout, addresses["allp"]),
        arena_entries=_arena_entries(memory, layout, mheap, snapshot),
        span_lists=_span_lists(memory, layout, addresses.get("work")),
    )


def _processors(memory: Memory, layout: Layout, allp: int) -> list[Processor]:
    address, count, _ = (int(word) for word in read_words(memory, allp, 3))
    if count > _MOST_PS:
        raise SnapshotError(f"the runtime claims {count} Ps")
    spot = layout.field("mcache", "alloc")
    found = []
    for at in read_words(memory, address, count).tolist():
        p = read_record(memory, layout, "p", at)
        pointer = p.number("mcache")
        none = np.zeros(0, np.uint64)
        if not pointer:
            found.append(Processor(p.number("id"), None, none, none))
            continue
        mcache = read_record(memory, layout, "mcache", pointer)
        slots = np.frombuffer(mcache.bytes_at(spot.offset, spot.size), dtype="<u8")
        unique, back = np.unique(slots, return_inverse=True)
        classes = read_span_columns(memory, layout, unique, ("span_class",))["span_class"]
        found.append(Processor(p.number("id"), mcache, slots, classes[back]))
    return found


def _arena_entries(
    memory: Memory, layout: Layout, mheap: Record, snapshot: RuntimeSnapshot
) -> list[tuple[int, int]]:
    """Follow mheap.arenas to the heapArena of some spans, and see which mspan it has for their last page."""
    spans = snapshot.spans
    used = np.flatnonzero(spans.with_state(IN_USE))
    sample = used[:: max(1, used.size // _SAMPLED_SPANS)][:_SAMPLED_SPANS]
    arena, page = snapshot.arena_bytes, layout.constant("arena_base_offset")
    table, l2_bits = layout.offset("mheap", "arenas"), layout.constant("arena_l2_bits")
    entries = layout.offset("heapArena", "spans")
    found = []
    for address, start, pages in zip(
        spans.address[sample].tolist(), spans.start[sample].tolist(), spans.pages[sample].tolist(), strict=True
    ):
        last = start + (pages - 1) * PAGE
        index = ((last - page) & _WORD) // arena
        l1, l2 = index >> l2_bits, index & (1 << l2_bits) - 1
        second = int.from_bytes(mheap.bytes_at(table + l1 * 8, 8), "little")
        heap_arena = int(read_words(memory, second + l2 * 8, 1)[0])
        place = heap_arena + entries + ((last - page) & _WORD) % arena // PAGE * 8
        found.append((address, int(read_words(memory, place, 1)[0])))
    return found


def _span_lists(memory: Memory, layout: Layout, work: int | None) -> list[tuple[str, int, int, int]]:
    found = []
    for name in ("free", "busy") if work is not None else ():
        assert work is not None
        head = work + layout.offset("work", f"wbufSpans.{name}")
        first = int(read_words(memory, head, 1)[0])
        if first:
            record = read_record(memory, layout, "mspan", first)
            found.append((f"work.wbufSpans.{name}", head, record.number("list"), record.number("prev")))
    return found


def _accounting_identities(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    if not snapshot.consistency.exact:
        yield f"pages, spans and counters contradict each other by {snapshot.consistency.skew_bytes} bytes"


def _sizes_of_structs(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Compare the sizes that mheap's allocators were made for (mheap.init) with the layout's."""
    for allocator, struct in _ALLOCATORS.items():
        if not witness.mheap.has(f"{allocator}.size") or not witness.mheap.layout.has_struct(struct):
            continue
        said, known = witness.mheap.number(f"{allocator}.size"), witness.mheap.layout.size(struct)
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


def _structs_in_use(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Compare how many mspans and mcaches were allocated with how many there are."""
    mheap, spans = witness.mheap, snapshot.spans
    size = mheap.layout.size("mspan")
    live, made = int(np.count_nonzero(spans.state != DEAD)), spans.address.size
    in_use = mheap.number("spanalloc.inuse")
    # A P keeps up to 128 mspans that are allocated and not used (p.mspancache).
    if in_use % size or not live <= in_use // size <= made:
        yield f"{live} of {made} mspans of {size} bytes are in use, and take {in_use} bytes"
    size = mheap.layout.size("mcache")
    in_use, caches = mheap.number("cachealloc.inuse"), sum(p.mcache is not None for p in witness.processors)
    if in_use != caches * size:
        yield f"{caches} mcaches of {size} bytes take {in_use} bytes"


def _processors_know_their_number(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    for index, processor in enumerate(witness.processors):
        if processor.number != index:
            yield f"P {index} says it is P {processor.number}"


def _mcaches(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Check that each slot holds a span of its own class, and that the tiny block is what it can be."""
    sweepgen = witness.mheap.number("sweepgen")
    starts, ends = _arena_bounds(snapshot)
    for processor in witness.processors:
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


def _spans_lie_in_arenas(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
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


def _arenas_lead_back_to_spans(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    wrong = [address for address, entry in witness.arena_entries if address != entry]
    if wrong or not witness.arena_entries:
        yield f"for {len(wrong)} of {len(witness.arena_entries)} spans, the heapArena names another"


def _span_lists_lead_back(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    for what, head, back, previous in witness.span_lists:
        if back != head or previous:
            yield f"the first span of {what} belongs to another list"


def _object_sizes(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
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


def _object_counts(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Compare the objects in spans with those that were allocated and not freed, class by class."""
    if not witness.mstats.has("heapStats.stats"):
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


def _double_entries(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Compare the pacer's sums with those of heapStats, as the runtime does itself (doubleCheckReadMemStats)."""
    controller = witness.controller
    if controller is None or not controller.has("heapInUse"):
        return
    stats = heap_stats(witness.mstats)
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


def _mapped_bytes(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Compare gcController.mappedReady with the sum of what each part of the runtime has mapped."""
    if witness.controller is None or not witness.controller.has("mappedReady"):
        return
    stats = heap_stats(witness.mstats)
    parts = ("stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys")
    total = stats.committed + sum(witness.mstats.number(name) for name in parts)
    ready = witness.controller.number("mappedReady")
    if ready != total:
        yield f"gcController.mappedReady is {ready}, the parts sum up to {total}"


def _garbage_collections(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Compare the number of collections with the sweeps, and the pauses with their sum (gcMarkTermination)."""
    mstats = witness.mstats
    cycles, forced = mstats.number("numgc"), mstats.number("numforcedgc")
    if forced > cycles or witness.mheap.number("sweepgen") != 2 * cycles & 0xFFFF_FFFF:
        yield f"{cycles} collections, {forced} of them forced, do not fit the sweep generation"
    ring = mstats.layout.field("mstats", "pause_ns")
    pauses = np.frombuffer(mstats.bytes_at(ring.offset, ring.size), dtype="<u8")
    total, recent = mstats.number("pause_total_ns"), sum(pauses.tolist())
    if recent > total or (cycles <= pauses.size and recent != total):
        yield f"{cycles} pauses took {recent} ns, together {total} ns"
    last = mstats.number("last_gc_unix")
    if (last > _YEAR_2009) != (cycles > 0) or (last and not cycles):
        yield f"the last of {cycles} collections was at {last}"


def _pacing(snapshot: RuntimeSnapshot, witness: Witness) -> Iterator[str]:
    """Compute the heap goal from what it is made of (gcControllerState.commit and setGCPercent)."""
    controller, cycles = witness.controller, witness.mstats.number("numgc")
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


CHECKS: tuple[Check, ...] = (
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
    _pacing,
)
