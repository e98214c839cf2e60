"""Rules on memory that the Go runtime does not own: C's heap, mmap, and the stacks of threads."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Finding, Report
from gomem.tracer.report.findings.base import LARGE, mib, resident_of

OUTSIDE_SHARE: Final = 0.50  # of RSS: then a heap profile explains less than half
STACK_SHARE: Final = 0.20  # of RSS, as for goroutine stacks


def outside_the_go_heap(report: Report) -> Finding | None:
    """Memory that pprof cannot see dominates RSS."""
    if report.heap is None or report.resident is None:
        return None
    foreign = resident_of(report, "c_heap", "other")
    total = report.resident.total
    if foreign is None or foreign < LARGE or foreign < OUTSIDE_SHARE * total:
        return None
    uses_cgo = report.process.cgo
    return Finding(
        id="outside-the-go-heap",
        severity="warning",
        title=f"{mib(foreign)} of {mib(total)} RSS is not the Go runtime's",
        explanation="It was mapped by C code (malloc) or by mmap system calls of the program. "
        "Go's heap profile, MemStats and GOMEMLIMIT do not see it.",
        evidence={
            "resident_outside": foreign,
            "c_heap": resident_of(report, "c_heap"),
            "resident_total": total,
            "cgo": None if uses_cgo is None else str(uses_cgo).lower(),
        },
        action="Look at C libraries (cgo) with their own tools (jemalloc or tcmalloc profiling, MALLOC_ARENA_MAX), "
        "and at code that calls mmap.",
    )


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
        explanation=f"A stack holds {mib(stacks.median)} in RAM in the median, {mib(stacks.largest)} at the most. "
        "It keeps every page that the thread has ever touched, until the thread ends."
        + (" Go's heap profile, MemStats and GOMEMLIMIT do not see it." if report.heap is not None else ""),
        evidence={
            "stacks": stacks.stacks,
            "threads": stacks.threads,
            "threads_of_c": of_c,
            "stacks_resident": stacks.resident,
            "median": stacks.median,
            "largest": stacks.largest,
            "resident_total": resident.total,
        },
        action=f"{_fewer_threads(threads, of_c)} Large local arrays and deep recursion in C belong on the heap.",
    )


def _fewer_threads(threads: int, of_c: int | None) -> str:
    if of_c is None:
        return "Run fewer threads."
    if 2 * of_c > threads:
        return f"C code made {of_c} of the {threads} threads itself: make its pool of threads smaller."
    return (
        "Let fewer goroutines be in C at the same time (a semaphore around the calls): each holds a thread, and Go "
        "keeps its threads."
    )
