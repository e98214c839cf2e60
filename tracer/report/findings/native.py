"""Rules on memory that the Go runtime does not own: C's heap, mmap, and the stacks of threads."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import CHeap, Finding, Report, ThreadStacks
from gomem.tracer.report.findings.base import LARGE, mib, resident_of

OUTSIDE_SHARE: Final = 0.50  # of RSS: then a heap profile explains less than half
STACK_SHARE: Final = 0.20  # of RSS, as for goroutine stacks
FREE_SHARE: Final = 0.50  # of the C heap in RAM: then more is kept than is used


def outside_the_go_heap(report: Report) -> Finding | None:
    """Memory that pprof cannot see dominates RSS."""
    if report.heap is None or report.resident is None:
        return None
    foreign = resident_of(report, "c_heap", "other")
    total = report.resident.total
    if foreign is None or foreign < LARGE or foreign < OUTSIDE_SHARE * total:
        return None
    if c_heap_free(report) is not None and 2 * _free(report) >= foreign:
        return None  # that is what it is
    uses_cgo = report.process.cgo
    told = report.c_heap
    return Finding(
        id="outside-the-go-heap",
        severity="warning",
        title=f"{mib(foreign)} of {mib(total)} RSS is not the Go runtime's",
        explanation="It was mapped by C code (malloc) or by mmap system calls of the program. "
        "Go's heap profile, MemStats and GOMEMLIMIT do not see it." + _in_use_of_c(told),
        evidence={
            "resident_outside": foreign,
            "c_heap": resident_of(report, "c_heap"),
            "c_heap_in_use": None if told is None or told.in_use is None else told.in_use + (told.mapped or 0),
            "resident_total": total,
            "cgo": None if uses_cgo is None else str(uses_cgo).lower(),
        },
        action="Look at C libraries (cgo) with tools for C's heap (heaptrack, or the profilers of jemalloc and "
        "tcmalloc), and at code that calls mmap.",
    )


def c_heap_free(report: Report) -> Finding | None:
    """Much of RSS is memory that C has freed and its malloc keeps."""
    heap, resident, of_c = report.c_heap, report.resident, resident_of(report, "c_heap")
    if heap is None or resident is None or of_c is None or not heap.arenas:
        return None
    free = _free(report)
    if free < LARGE or free < FREE_SHARE * of_c or free < STACK_SHARE * resident.total:
        return None
    arenas = sum(arena.free_resident > 0 for arena in heap.arenas)
    kept_by = f"{arenas} arenas" if arenas > 1 else "malloc"
    return Finding(
        id="c-heap-free",
        severity="warning",
        title=f"{mib(max(of_c, free))} of RSS is C memory, of which {mib(free)} is free and kept by {kept_by}",
        explanation="C code has freed it; glibc's malloc keeps it in RAM for its next calls. Each of its arenas serves "
        "some threads, and what is free in one is of no use to the others."
        + (" Go's heap profile, MemStats and GOMEMLIMIT do not see it." if report.heap is not None else ""),
        evidence={
            "c_heap": of_c,
            "free_resident": free,
            "free": heap.free,
            "in_use": heap.in_use,
            "mapped": heap.mapped,
            "trimmable": heap.trimmable,
            "arenas": len(heap.arenas),
            "resident_total": resident.total,
        },
        action=_less_kept(arenas, heap.trimmable or 0, free),
    )


def _less_kept(arenas: int, trimmable: int, free: int) -> str:
    advice = []
    if 2 * trimmable >= free:
        advice.append(f"malloc_trim(0), called from C after a peak, returns {mib(trimmable)} of it.")
    else:
        advice.append("MALLOC_TRIM_THRESHOLD_=131072 lets free return what is at the end of an arena.")
    if arenas > 2:
        advice.append("MALLOC_ARENA_MAX=2 in the environment lets all threads share two arenas.")
    return " ".join([*advice, "Let fewer threads be in C at the same time, or use jemalloc, which returns by itself."])


def _free(report: Report) -> int:
    return (report.c_heap.free_resident or 0) if report.c_heap else 0


def _in_use_of_c(heap: CHeap | None) -> str:
    if heap is None or heap.in_use is None or heap.free is None:
        return ""
    used = heap.in_use + (heap.mapped or 0)
    return f" C's malloc has {mib(used)} in use, and {mib(heap.free)} free."


def thread_stacks(report: Report) -> Finding | None:
    """Stacks of OS threads are a large part of RSS."""
    stacks, resident = report.thread_stacks, report.resident
    if stacks is None or resident is None:
        return None
    if stacks.resident < LARGE or stacks.resident < STACK_SHARE * resident.total:
        return None
    scheduler = report.structure.scheduler if report.structure else None
    # Go's threads are its Ms; the others were made by C.
    threads = stacks.threads or stacks.stacks
    of_c = None if scheduler is None else max(threads - scheduler.ms, 0)
    return Finding(
        id="thread-stacks",
        severity="warning",
        title=f"{mib(stacks.resident)} of RSS is {stacks.stacks} stacks of OS threads",
        explanation=f"A stack holds {mib(stacks.median)} in RAM in the median, {mib(stacks.largest)} at the most"
        f"{_whose(stacks)}. "
        "It keeps every page that the thread has ever touched, until the thread ends."
        + (" Go's heap profile, MemStats and GOMEMLIMIT do not see it." if report.heap is not None else ""),
        evidence={
            "stacks": stacks.stacks,
            "threads": stacks.threads,
            "threads_of_c": of_c,
            "stacks_resident": stacks.resident,
            "median": stacks.median,
            "largest": stacks.largest,
            "largest_tid": stacks.rows[0].tid if stacks.rows else None,
            "resident_total": resident.total,
        },
        action=f"{_fewer_threads(threads, of_c)} Large local arrays and deep recursion in C belong on the heap.",
    )


def _whose(stacks: ThreadStacks) -> str:
    """Return which thread has the largest stack, if it has more than others."""
    row = stacks.rows[0] if stacks.rows else None
    return f" (thread {row.tid})" if row is not None and row.tid and stacks.largest > 2 * stacks.median else ""


def _fewer_threads(threads: int, of_c: int | None) -> str:
    if of_c is None:
        return "Run fewer threads."
    if 2 * of_c > threads:
        return f"C code made {of_c} of the {threads} threads itself: make its pool of threads smaller."
    return (
        "Let fewer goroutines be in C at the same time (a semaphore around the calls): each holds a thread, and Go "
        "keeps its threads."
    )
