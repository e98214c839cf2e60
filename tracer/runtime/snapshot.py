"""One snapshot of a live runtime: counters, pages, spans and regions, read without stopping it.

A heap that moves can be read torn: the parts are checked against each other by the runtime's own
accounting identities and read again, a bounded number of times.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words, read_words
from gomem.tracer.report import Consistency, JsonObject, ProfileBuckets, Timers
from gomem.tracer.runtime.caches import PCaches, read_p_caches
from gomem.tracer.runtime.counters import Counters, read_counters
from gomem.tracer.runtime.earlier import (
    first_number,
    gc_percent,
    pacer_record,
    required_globals,
    rest_of_arena,
    with_rest_of_arena,
)
from gomem.tracer.runtime.free_runs import FreeRuns, free_runs
from gomem.tracer.runtime.large_spans import LargeSpan, read_largest, records_types
from gomem.tracer.runtime.pace import Pace, read_pace
from gomem.tracer.runtime.pages import PAGE, Chunks, HeapPages, PageState, page_states, read_chunks
from gomem.tracer.runtime.regions import Region, Roots, owned_regions
from gomem.tracer.runtime.span_pages import has_page_allocator, pages_of_spans, scavenged_pages, span_arenas
from gomem.tracer.runtime.spans import IN_USE, MANUAL, Spans, read_spans
from gomem.tracer.runtime.stats import HeapStats, heap_stats, mem_stats, memory_limit, with_work_bufs
from gomem.tracer.runtime.structs import Record, follow_list, read_record
from gomem.tracer.runtime.structure import NOTHING_KNOWN, Structure, read_structure

# A busy heap is in unrest for some ten milliseconds at a time (a sweep, a burst of growth): short rests between the
# attempts outlast it, and leave the CPU to the target. A heap that takes longer to read gets a second chance only.
ATTEMPTS = 40
PATIENCE = 0.4  # seconds
REST = 0.003  # seconds
HOPELESS = 6  # attempts of which none could be decoded
MOST_WORK_BUF_SPANS = 1 << 17

GcPhase = Literal["off", "mark", "mark termination"]
_PHASES: tuple[GcPhase, ...] = ("off", "mark", "mark termination")


class Collector(Struct, frozen=True):
    """The garbage collector's targets; sizes in bytes."""

    live: int  # marked by the last cycle
    gc_percent: int | None  # -1: GOGC=off; None: could not be found
    memory_limit: int | None
    phase: GcPhase | None
    mapped_ready: int | None  # from Go 1.19 on
    # `live` and what was allocated since, with what mcaches have at hand; None in recordings from before it was read.
    live_now: int | None = None


class RuntimeSnapshot(Struct, frozen=True):
    """What the runtime says of its memory at one moment."""

    memstats: JsonObject
    stats: HeapStats
    pages: HeapPages
    spans: Spans
    caches: PCaches
    regions: list[Region]
    arena_bytes: int
    collector: Collector
    consistency: Consistency
    class_to_size: tuple[int, ...]
    missed: list[str]  # structures that could not be read, and why
    structure: Structure = NOTHING_KNOWN
    pace: Pace | None = None
    timers: Timers | None = None  # None in recordings from before they were read
    free_runs: FreeRuns | None = None  # None in recordings from before they were counted
    largest: list[LargeSpan] | None = None  # None in recordings from before they were read
    types_recorded: bool = False  # the release keeps the types of large objects
    profile_buckets: ProfileBuckets | None = None  # None where they are few, and in older recordings
    read_at: tuple[int, int] = (0, 0)  # when the attempt that was kept began, and all was read; CLOCK_MONOTONIC ns


class _Heap(Struct, frozen=True):
    """One attempt: the parts that must agree."""

    records: dict[str, Record]
    stats: HeapStats
    caches: PCaches
    pages: HeapPages
    spans: Spans
    chunks: Chunks | None  # None: the release has no page bitmaps
    lists_known: bool  # of work buffers

    def skew(self) -> int:
        """Return by how many bytes the parts contradict each other."""
        stats, pages = self.stats, self.pages
        manual = stats.in_stacks + stats.in_work_bufs
        stacks, work_bufs = pages.bytes_of(PageState.STACK), pages.bytes_of(PageState.WORK_BUF)
        # Work buffers are told from stacks by lists that change meanwhile. Unrolled GC programs are on none of them,
        # and without the lists all manual spans count as stacks.
        unlisted = stats.in_gc_programs if self.lists_known else stats.in_work_bufs
        pairs = (
            (pages.bytes_of(PageState.IN_USE), stats.in_heap),
            (stacks + work_bufs, manual),
            (stacks, stats.in_stacks + unlisted),
            (pages.bytes_of(PageState.FREE), stats.free),
            (pages.bytes_of(PageState.SCAVENGED), stats.released),
            (self.spans.bytes_of(IN_USE), stats.in_heap),
            (self.spans.bytes_of(MANUAL), manual),
        )
        return sum(abs(left - right) for left, right in pairs)


class RuntimeReader:
    """Reads snapshots of one live runtime, whose layout and globals are known."""

    def __init__(self, memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> None:
        """`addresses`: where the globals lie in the process, link-time address plus load bias."""
        missing = [name for name in required_globals(layout) if name not in addresses]
        if missing:
            raise LayoutError(f"the runtime's {', '.join(missing)} could not be found in the executable")
        self._memory = memory
        self._layout = layout
        self._addresses = addresses

    def snapshot(self, attempts: int = ATTEMPTS, patience: float = PATIENCE) -> RuntimeSnapshot:
        """Read until the parts agree, at most `attempts` times, and after the second only for `patience` seconds.

        The attempt that agrees best is kept. Raises SnapshotError when none could be decoded at all, TargetGone when
        the process has ended.
        """
        best: _Heap | None = None
        failure: SnapshotError | None = None
        least = -1
        deadline = time.monotonic() + patience
        tried = began = 0
        while tried < attempts and least and (tried < 2 or time.monotonic() < deadline):
            if tried:
                time.sleep(REST)
            tried += 1
            start = time.monotonic_ns()
            self._memory.room.give_back()
            try:
                heap = self._read_heap()
            except SnapshotError as error:
                failure = error
                if best is None and tried == HOPELESS:
                    break
                continue
            skew = heap.skew()
            if best is None or skew < least:
                best, least, began = heap, skew, start
        if best is None:
            raise failure or SnapshotError("no attempt was made")
        return self._complete(best, Consistency(exact=least == 0, attempts=tried, skew_bytes=least), began)

    def counters(self) -> Counters:
        """Read the counters alone: well below a millisecond. Raises SnapshotError, TargetGone."""
        return read_counters(self._memory, self._layout, self._addresses)

    def _complete(self, heap: _Heap, consistency: Consistency, began: int) -> RuntimeSnapshot:
        regions, missed = self._regions(heap)
        if "work" not in self._addresses:
            missed.append("work buffers: the global work could not be found in the executable; they count as stacks")
        records = heap.records
        structure, unknown = read_structure(self._memory, self._layout, self._addresses, records["mheap"])
        return RuntimeSnapshot(
            memstats=mem_stats(
                heap.stats, heap.caches.unflushed, records["mstats"], records["mheap"], records["pacer"]
            ),
            stats=heap.stats,
            pages=heap.pages,
            spans=heap.spans,
            caches=heap.caches,
            regions=regions,
            arena_bytes=self._layout.constant("heap_arena_bytes"),
            collector=self._collector(heap),
            consistency=consistency,
            class_to_size=self._layout.constants("class_to_size"),
            missed=missed + unknown,
            structure=structure,
            pace=self._pace(heap),
            free_runs=self._free_runs(heap),
            largest=read_largest(self._memory, self._layout, heap.spans),
            types_recorded=records_types(self._layout),
            read_at=(began, time.monotonic_ns()),
        )

    def _read_heap(self) -> _Heap:
        records = {
            struct: read_record(self._memory, self._layout, struct, self._addresses[name])
            for struct, name in (("mheap", "mheap_"), ("mstats", "memstats"))
        }
        records["pacer"] = pacer_record(self._memory, self._layout, self._addresses, records["mstats"])
        caches = read_p_caches(self._memory, self._layout, self._addresses["allp"])
        paged = has_page_allocator(self._layout)
        chunks = self._chunks(records["mheap"]) if paged else None
        spans = read_spans(self._memory, self._layout, records["mheap"])
        manual = spans.with_state(MANUAL)
        work_bufs = manual & _among(spans.address, self._work_buf_spans())
        painted = spans.extents(manual & ~work_bufs), spans.extents(work_bufs)
        if chunks is not None:
            pages = page_states(chunks, caches.page_caches, *painted, self._memory.room)
        else:
            pages = self._span_pages(records["mheap"], spans, *painted)
        stats = heap_stats(records["mstats"], records["mheap"])
        if not self._layout.has("mstats", "heapStats.stats"):
            stats = with_work_bufs(stats, int(spans.pages[work_bufs].sum(dtype=np.uint64)) * PAGE)
        return _Heap(records, stats, caches, pages, spans, chunks, "work" in self._addresses)

    def _chunks(self, mheap: Record) -> Chunks:
        return with_rest_of_arena(read_chunks(self._memory, self._layout, mheap), mheap)

    def _span_pages(self, mheap: Record, spans: Spans, stacks: Words, work_bufs: Words) -> HeapPages:
        scavenged = scavenged_pages(self._memory, self._layout, spans)
        return pages_of_spans(spans, scavenged, stacks, work_bufs, self._memory.room, rest_of_arena(mheap))

    def _work_buf_spans(self) -> Words:
        """Return the mspans that hold GC work buffers (work.wbufSpans in runtime/mgc.go)."""
        work = self._addresses.get("work")
        if work is None:
            return np.zeros(0, np.uint64)
        found: list[int] = []
        for name in ("wbufSpans.free.first", "wbufSpans.busy.first"):
            head = int(read_words(self._memory, work + self._layout.offset("work", name), 1)[0])
            found += follow_list(self._memory, self._layout, "mspan", "next", head, MOST_WORK_BUF_SPANS)
        return np.asarray(found, dtype=np.uint64)

    def _regions(self, heap: _Heap) -> tuple[list[Region], list[str]]:
        mheap = heap.records["mheap"]
        listed = mheap.has("allArenas") or mheap.has("heapArenas")
        arenas = [] if listed else span_arenas(heap.spans, self._layout.constant("heap_arena_bytes"))
        return owned_regions(Roots(self._memory, self._layout, mheap, self._addresses, tuple(arenas)))

    def _free_runs(self, heap: _Heap) -> FreeRuns:
        return free_runs(heap.pages, heap.chunks, sum(row.free_pages for row in heap.caches.page_rows))

    def _collector(self, heap: _Heap) -> Collector:
        controller = heap.records["pacer"]
        return Collector(
            live=first_number(controller, "heapMarked", "heap_marked"),
            live_now=first_number(controller, "heapLive", "heap_live"),
            gc_percent=gc_percent(self._memory, controller, self._addresses),
            memory_limit=memory_limit(controller),
            phase=self._phase(),
            mapped_ready=controller.number("mappedReady") if controller.has("mappedReady") else None,
        )

    def _pace(self, heap: _Heap) -> Pace | None:
        procs = len(heap.caches.rows)
        try:
            return read_pace(self._memory, self._layout, self._addresses, heap.records, heap.pages, procs)
        except SnapshotError:
            return None  # it is no part of what must agree

    def _phase(self) -> GcPhase | None:
        address = self._addresses.get("gcphase")
        if address is None:
            return None
        value = int.from_bytes(self._memory.read(address, 4), "little")
        return _PHASES[value] if value < len(_PHASES) else None


def _among(addresses: Words, few: Words) -> NDArray[np.bool_]:
    """Return a mask of the ascending `addresses` that are among `few`."""
    mask = np.zeros(addresses.size, np.bool_)
    if addresses.size:
        position = np.minimum(np.searchsorted(addresses, few), addresses.size - 1)
        mask[position[addresses[position] == few]] = True
    return mask
