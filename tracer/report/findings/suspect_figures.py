"""The figures that decide on the suspects of `gomem why`: functions of a report.

Each returns a number, a sentence that settles it without one ("GOMEMLIMIT is not set"), or None: it could not be had.
"""

from __future__ import annotations

from collections.abc import Callable

from gomem.tracer.report import RUNTIME_NONE, Report, stat
from gomem.tracer.report.findings import address_space, cgroup, growth
from gomem.tracer.report.findings.base import MIB, NOTEWORTHY, lazy_free, memory_limit, resident_of

Value = float | str | None


def total(report: Report) -> float | None:
    """Return RSS in bytes."""
    return report.resident.total if report.resident is not None and report.resident.total else None


def share_of_rss(part: Callable[[Report], Value]) -> Callable[[Report], Value]:
    """Return a function that gives a part as a share of RSS."""

    def share(report: Report) -> Value:
        value, whole = part(report), total(report)
        return value / whole if isinstance(value, int | float) and whole else None

    return share


def page(name: str) -> Callable[[Report], Value]:
    """Return a function that gives the bytes in RAM of heap pages of one state."""
    return lambda report: getattr(report.heap.resident, name) if report.heap is not None else None


def resident(name: str) -> Callable[[Report], Value]:
    """Return a function that gives one figure of `resident`, bytes."""
    return lambda report: getattr(report.resident, name) if report.resident is not None else None


def kinds(*names: str) -> Callable[[Report], Value]:
    """Return a function that gives the bytes in RAM of some kinds of mappings, where Go could be read."""
    return lambda report: resident_of(report, *names) if report.heap is not None else None


def metadata(report: Report) -> Value:
    """Return the bytes in RAM of the runtime's own records."""
    return resident_of(report, "heap_metadata", "page_summary", "runtime_other") if report.heap is not None else None


def thread_stacks(report: Report) -> Value:
    """Return the bytes in RAM of stacks of OS threads."""
    return report.thread_stacks.resident if report.thread_stacks is not None else None


def copies(report: Report) -> Value:
    """Return the bytes of private copies of pages of files."""
    if report.kinds is None:
        return None
    row = next((row for row in report.kinds if row.kind == "file"), None)
    return 0.0 if row is None else row.anonymous


def file_pages(report: Report) -> Value:
    """Return the largest of what the kernel can drop, can drop after writing, or cannot drop."""
    resident = report.resident
    if resident is None:
        return None
    parts = (resident.file_clean, resident.file_dirty, resident.file_locked, copies(report))
    told = [float(part) for part in parts if isinstance(part, int | float)]
    return max(told) if len(told) == len(parts) else None


def released(report: Report) -> Value:
    """Return the bytes of released heap that are in RAM, and not lazily freed."""
    if report.heap is None or report.resident is None or report.resident.lazy_free is None:
        return None
    return float(max(report.heap.resident.scavenged - lazy_free(report), 0))


def idle_in_huge_pages(report: Report) -> Value:
    """Return the bytes without an object that huge pages can hold in RAM."""
    if report.heap is None or report.resident is None or report.resident.huge_pages is None:
        return None
    return float(min(report.heap.resident.free + report.heap.resident.outside, report.resident.huge_pages))


def holes(report: Report) -> Value:
    """Return the bytes of holes between objects."""
    if report.spans is None:
        return None
    return float(sum(row.free_slots * row.object_size + row.tail_waste for row in report.spans))


def holes_share(report: Report) -> Value:
    """Return holes as a share of the heap in use."""
    empty, in_use = holes(report), report.heap.pages.in_use if report.heap is not None else 0
    return empty / in_use if isinstance(empty, float) and in_use else None


def large_objects(report: Report) -> Value:
    """Return the bytes of the largest objects."""
    found = report.heap.large_objects if report.heap is not None else None
    return None if found is None else float(sum(one.size for one in found.largest if one.size >= NOTEWORTHY))


def large_objects_share(report: Report) -> Value:
    """Return the largest objects as a share of the heap in use."""
    large, in_use = large_objects(report), stat(report, "HeapInuse")
    return large / in_use if isinstance(large, float) and in_use else None


def free_runs(report: Report) -> Value:
    """Return the free bytes of the heap, where some object would find no run that is long enough."""
    runs = report.heap.free_runs if report.heap is not None else None
    if runs is None:
        return None
    return "the longest free run has room for every object" if runs.smallest_too_large is None else float(runs.size)


def beside_the_longest_run(report: Report) -> Value:
    """Return the share of the free pages that is not in the longest run."""
    runs = report.heap.free_runs if report.heap is not None else None
    return None if runs is None or not runs.size else 1 - runs.longest / runs.size


def zeros(report: Report) -> Value:
    """Return the bytes of zeros in huge pages of objects."""
    in_use = report.heap.in_use if report.heap is not None else None
    return None if in_use is None or in_use.huge_zeros is None else float(in_use.huge_zeros)


def memstat(name: str) -> Callable[[Report], Value]:
    """Return a function that gives one figure of MemStats."""
    return lambda report: stat(report, name)


def buckets_share(report: Report) -> Value:
    """Return the records of profiles as a share of Sys."""
    size, sys = stat(report, "BuckHashSys"), stat(report, "Sys")
    return size / sys if size is not None and sys else None


def timers(report: Report) -> Value:
    """Return the bytes of timers that wait to fire."""
    found = report.structure.timers if report.structure is not None else None
    if found is None:
        return None
    return float(found.size * (found.count - found.stopped) // found.count) if found.count else 0.0


def timers_share(report: Report) -> Value:
    """Return timers that wait to fire as a share of the heap in use."""
    held, in_use = timers(report), stat(report, "HeapInuse")
    return held / in_use if isinstance(held, float) and in_use else None


def queued(report: Report) -> Value:
    """Return how many finalizers and cleanups of dead objects wait to be run."""
    found = report.structure.queued if report.structure is not None else None
    return None if found is None else float(found.finalizers + (found.cleanups or 0))


def c_heap(report: Report) -> Value:
    """Return the bytes in RAM of C's heap."""
    return resident_of(report, "c_heap")


def free_of_c(report: Report) -> Value:
    """Return the bytes in RAM that C has freed and malloc keeps."""
    heap = report.c_heap
    return None if heap is None or heap.free_resident is None else float(heap.free_resident)


def free_share_of_c(report: Report) -> Value:
    """Return what malloc keeps as a share of C's heap in RAM."""
    free, whole = free_of_c(report), resident_of(report, "c_heap")
    return free / whole if isinstance(free, float) and whole else None


def bound_share(*names: str) -> Callable[[Report], Value]:
    """Return a function that gives the largest share of limits of these names that is used, of those that are seen."""

    def share(report: Report) -> Value:
        limited = [bound for bound in report.bounds or () if bound.name in names and bound.limit is not None]
        if not limited:
            return "no such limit holds for it" if report.bounds else None
        used = [(bound.used, bound.limit) for bound in limited if bound.used is not None]
        return max((some / limit if limit else float(some > 0) for some, limit in used), default=None)

    return share


def ended(report: Report) -> Value:
    """Return the bytes of g structs that goroutines have left."""
    scheduler = report.structure.scheduler if report.structure is not None else None
    return scheduler.ended_bytes if scheduler is not None else None


def grown(name: str) -> Callable[[Report], Value]:
    """Return a function that gives by how much a figure of `courses` grew and goes on to grow."""

    def grown(report: Report) -> Value:
        course = (report.courses or {}).get(name)
        if course is None:
            return None
        first, _, last = course.thirds
        rise = last.median - first.median
        if rise > 0 and not growth.goes_on(course.thirds):
            return "what it grew by came and went, or has come to rest while it was watched"
        return float(max(rise, 0))

    return grown


def live_growth(report: Report) -> Value:
    """Return by how much what is alive grew; where no collection told that, by how much all objects did, if little."""
    course = report.heap.live_course if report.heap is not None else None
    if course is not None:
        first, _, last = course.thirds
        rise = last.median - first.median
        if rise > 0 and not growth.goes_on(course.thirds):
            return "what is alive came and went, or has come to rest while it was watched"
        return float(max(rise, 0))
    parts = [(report.courses or {}).get(name) for name in ("live", "garbage")]
    if not all(parts):
        return None
    rise = sum(part.thirds[2].highest - part.thirds[0].lowest for part in parts if part is not None)
    return float(max(rise, 0)) if rise < MIB else None


def limit_share(report: Report) -> Value:
    """Return what Go uses of GOMEMLIMIT as a share."""
    if report.heap is None:
        return None
    limit = memory_limit(report.heap)
    if limit is None:
        return None if report.heap.memory_limit is None and report.heap.limit_use is None else "GOMEMLIMIT is not set"
    return report.heap.limit_use.total / limit if report.heap.limit_use is not None and limit else None


def cgroup_share(report: Report) -> Value:
    """Return what the cgroup uses of its nearest limit as a share."""
    cgroup = report.process.cgroup
    if cgroup is None or cgroup.memory_current is None:
        return None
    if not cgroup.memory_max and not cgroup.memory_high:
        return "its cgroup has no limit of its own"
    return max(cgroup.memory_current / limit for limit in (cgroup.memory_max, cgroup.memory_high) if limit)


def in_no_process(report: Report) -> Value:
    """Return the bytes that the cgroup is charged beside its processes' RSS."""
    known = cgroup.of_report(report)
    if known is not None:
        return known[0].unmapped
    if not report.cgroup_bills:
        return None
    return "its cgroup has no limit and is no container's"


def goal_above_live(report: Report) -> Value:
    """Return the bytes that the heap may grow to above what is alive."""
    heap = report.heap
    if heap is None or heap.goal is None or heap.gc_percent is None:
        return None
    if heap.gc_percent < 0:
        return "GOGC is off, and GOMEMLIMIT paces the collector" if memory_limit(heap) is not None else None
    if not heap.live:
        return "no collection has run yet"
    return "there is no goal" if heap.goal >= RUNTIME_NONE else float(heap.goal - heap.live)


def address_share(report: Report) -> Value:
    """Return the largest share of a limit on address space that is used."""
    known, virtual = report.address_limits, report.virtual
    if known is None or virtual is None:
        return None
    shares = [
        used / limit
        for used, limit in ((virtual.total, known.address_space), (known.data_used, known.data))
        if limit and used is not None
    ]
    if known.overcommit == address_space.NEVER and known.commit_limit and known.committed is not None:
        shares.append(known.committed / known.commit_limit)
    return max(shares) if shares else "no limit on address space is set"
