"""The Go heap: its pages by the runtime's state and the kernel's, what it allocates, and the collector."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gomem.exporters.prometheus.metric import ProcessMetric, Sample, Value, figure, of_report
from gomem.tracer.report import Heap, Report, stat

PAGE_STATES = ("in_use", "stacks", "work_bufs", "free", "scavenged")
_PHASES = {"off": "off", "mark": "mark", "mark termination": "mark_termination"}
_SYS_PARTS = {
    "heap": "HeapSys",
    "stack": "StackSys",
    "mspan": "MSpanSys",
    "mcache": "MCacheSys",
    "buck_hash": "BuckHashSys",
    "gc": "GCSys",
    "other": "OtherSys",
}
# math.MaxInt64 (no GOMEMLIMIT) and math.MaxUint64 (no goal) mean "none" in the runtime; so do all sizes near them.
_NONE = 1 << 62


def _heap(read: Callable[[Heap], Value | None]) -> Callable[[Report], Value | None]:
    return lambda report: None if report.heap is None else read(report.heap)


def _pages(report: Report) -> Iterator[Sample]:
    if report.heap is None:
        return
    for state in PAGE_STATES:
        size, resident = getattr(report.heap.pages, state), getattr(report.heap.resident, state)
        yield (state, "resident"), resident
        yield (state, "not_resident"), max(size - resident, 0)
    yield ("outside", "resident"), report.heap.resident.outside


def _rare_pages(labels: tuple[str, ...]) -> bool:
    state, residency = labels
    return state in ("work_bufs", "outside") or (residency == "not_resident" and state != "scavenged")


def _rare_phase(labels: tuple[str, ...]) -> bool:
    return labels == ("mark_termination",)  # the program stands still in it, for some microseconds


def _phase(report: Report) -> Iterator[Sample]:
    if report.heap is None or report.heap.gc_phase is None:
        return
    for phase, label in _PHASES.items():
        yield (label,), int(report.heap.gc_phase == phase)


def _sys(report: Report) -> Iterator[Sample]:
    for part, name in _SYS_PARTS.items():
        value = stat(report, name)
        if value is not None:
            yield (part,), value


def _limited(report: Report) -> int | None:
    sys, released = stat(report, "Sys"), stat(report, "HeapReleased")
    return None if sys is None or released is None else sys - released


def memory_limit(report: Report) -> int | None:
    """Return GOMEMLIMIT in bytes, None where none is set."""
    limit = report.heap.memory_limit if report.heap else None
    return None if limit is None or limit >= _NONE else limit


def goal(report: Report) -> int | None:
    """Return the heap goal in bytes, None where the collector has none (GOGC=off without GOMEMLIMIT)."""
    wanted = report.heap.goal if report.heap else None
    return None if wanted is None or wanted >= _NONE else wanted


def _seconds(name: str) -> Callable[[Report], Value | None]:
    def read(report: Report) -> Value | None:
        value = stat(report, name)
        return None if value is None else value / 1e9

    return read


def _last_collection(report: Report) -> Value | None:
    value = stat(report, "LastGC")
    return value / 1e9 if value else None


METRICS: tuple[ProcessMetric, ...] = (
    of_report(
        "gomem_heap_page_bytes",
        "Heap pages by the runtime's state and by whether they are in RAM; resident free pages explain an RSS that "
        "does not fall, resident scavenged ones are lazily freed or huge pages; outside is arena memory in no page.",
        _pages,
        ("state", "residency"),
        _rare_pages,
    ),
    figure(
        "gomem_heap_arenas",
        "Arenas (64 MiB of heap address space each); address space that a heap has grown into is never given back.",
        _heap(lambda heap: len(heap.arenas)),
    ),
    figure(
        "gomem_heap_longest_free_run_bytes",
        "The longest run of free heap pages; what is larger makes the heap grow, however much is free.",
        _heap(lambda heap: heap.free_runs.longest if heap.free_runs else None),
    ),
    figure(
        "gomem_heap_allocated_bytes",
        "Objects in the heap, dead ones that no sweep has freed yet included (HeapAlloc); it swings between the live "
        "heap and the goal.",
        lambda report: stat(report, "HeapAlloc"),
    ),
    figure(
        "gomem_heap_objects",
        "Objects in the heap (Mallocs - Frees); many small objects make marking slow.",
        lambda report: stat(report, "HeapObjects"),
    ),
    figure(
        "gomem_heap_live_bytes",
        "What the last collection found reachable; if this rises for hours, the program leaks.",
        _heap(lambda heap: heap.live),
    ),
    figure(
        "gomem_heap_goal_bytes",
        "Heap size at which the current or next collection should end; RSS follows it. Absent with GOGC=off and no "
        "memory limit.",
        goal,
    ),
    figure(
        "gomem_gogc_percent",
        "GOGC, by how much the heap may grow over the live heap before the next collection; -1: off.",
        _heap(lambda heap: heap.gc_percent),
    ),
    figure(
        "gomem_memory_limit_bytes",
        "GOMEMLIMIT, the soft limit for all memory that the runtime holds; absent when none is set.",
        memory_limit,
    ),
    figure(
        "gomem_memory_limit_usage_bytes",
        "What GOMEMLIMIT is held against (Sys - HeapReleased); near the limit the collector runs more and more often.",
        _limited,
    ),
    of_report(
        "gomem_gc_phase",
        "1 for the collector's phase when the process was looked at, else 0; an average over time that is high for "
        "mark means that the collector hardly rests.",
        _phase,
        ("phase",),
        _rare_phase,
    ),
    figure(
        "gomem_gc_cycles_total",
        "Completed garbage collections (NumGC); a high rate costs CPU.",
        lambda report: stat(report, "NumGC"),
    ),
    figure(
        "gomem_gc_forced_cycles_total",
        "Collections that the program asked for (runtime.GC, debug.FreeOSMemory); they should be rare.",
        lambda report: stat(report, "NumForcedGC"),
    ),
    figure(
        "gomem_gc_pause_seconds_total",
        "Time that collections stopped the whole program; a high rate shows up as latency.",
        _seconds("PauseTotalNs"),
    ),
    figure(
        "gomem_gc_last_timestamp_seconds",
        "When the last collection ended, in seconds since 1970; absent before the first. Unless GOGC is off, the "
        "runtime collects every two minutes, so an age far above that means a stuck collector.",
        _last_collection,
    ),
    figure(
        "gomem_allocated_bytes_total",
        "Bytes ever allocated for heap objects (TotalAlloc); the rate is what drives collections.",
        lambda report: stat(report, "TotalAlloc"),
    ),
    figure(
        "gomem_allocations_total",
        "Heap objects ever allocated (Mallocs); a high rate costs CPU in the allocator.",
        lambda report: stat(report, "Mallocs"),
    ),
    figure(
        "gomem_frees_total",
        "Heap objects ever freed (Frees); over hours it keeps up with the allocations, or the heap grows.",
        lambda report: stat(report, "Frees"),
    ),
    of_report(
        "gomem_runtime_sys_bytes",
        "Memory that the runtime got from the kernel, by what for; the sum is MemStats.Sys. A high part beside heap is "
        "the runtime's own bookkeeping.",
        _sys,
        ("part",),
    ),
)
