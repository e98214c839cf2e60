"""Rules on what RSS and VSZ are made of: what is harmless, what is waste, what Go cannot see."""

from __future__ import annotations

from typing import Final

from tracer.finding_base import LARGE, MIB, NOTEWORTHY, lazy_free, mib, resident_of, stat
from tracer.report import Finding, Report

RUNTIME_PAGE: Final = 8192
# A process under this is small: shares of it say nothing.
SMALL_PROCESS: Final = 32 * MIB
EMPTY_ADDRESS_SPACE_FACTOR: Final = 4  # VSZ this many times RSS makes people ask
LAZY_SHARE: Final = 0.10  # of RSS: visible as a step in a graph
# Of RSS that is not lazily freed. The scavenger aims at 10 % over the heap goal: less is its normal slack.
RETAINED_SHARE: Final = 0.25
WASTE_SHARE: Final = 0.40  # of in-use spans; half-empty spans just after a collection are normal up to here
OUTSIDE_SHARE: Final = 0.50  # of RSS: then a heap profile explains less than half
STACK_SHARE: Final = 0.20  # of RSS; 2-8 KiB a goroutine, so 64 MiB are thousands of goroutines
METADATA_SHARE: Final = 0.15  # of RSS; normally 2-5 %
FILE_SHARE: Final = 0.30  # of RSS
HUGE_PAGE_SHARE: Final = 0.50  # of RSS
UNTOUCHED_SHARE: Final = 0.25  # of Ready


def reserved_address_space(report: Report) -> Finding | None:
    """VSZ is far above RSS because most of it is only an address range."""
    virtual, resident = report.virtual, report.resident
    if virtual is None or resident is None or virtual.reserved is None or virtual.prepared is None:
        return None
    idle = virtual.reserved + virtual.prepared
    if virtual.total < EMPTY_ADDRESS_SPACE_FACTOR * resident.total or idle < LARGE:
        return None
    return Finding(
        id="reserved-address-space",
        severity="info",
        title=f"VSZ is {mib(virtual.total)}, but {mib(idle)} of it is only address space",
        explanation="The Go runtime reserves address space ahead of need (PROT_NONE or never touched). "
        "It holds no RAM and counts towards no memory limit.",
        evidence={
            "virtual_total": virtual.total,
            "reserved": virtual.reserved,
            "prepared": virtual.prepared,
            "resident_total": resident.total,
        },
        action="Nothing to do. Alert on RSS or on the cgroup's memory, not on VSZ.",
    )


def lazily_freed(report: Report) -> Finding | None:
    """RSS holds pages that the runtime gave back with MADV_FREE."""
    if report.resident is None:
        return None
    lazy, total = lazy_free(report), report.resident.total
    if lazy < NOTEWORTHY or lazy < LAZY_SHARE * total:
        return None
    return Finding(
        id="lazily-freed",
        severity="info",
        title=f"{mib(lazy)} of RSS is already given back and only still counted",
        explanation="The Go runtime released this memory with MADV_FREE: the kernel takes it the moment anybody "
        "needs memory, before it swaps or kills. Until then RSS still shows it.",
        evidence={"lazy_free": lazy, "resident_total": total, "resident_without": total - lazy},
        action="Nothing to do. To see RSS fall at once, run the program with GODEBUG=madvdontneed=1 "
        "(the default since Go 1.16).",
    )


def scavenged_but_resident(report: Report) -> Finding | None:
    """Pages that the runtime counts as released are resident, and MADV_FREE does not explain it."""
    if report.heap is None:
        return None
    scavenged = report.heap.resident.scavenged
    excess = scavenged - lazy_free(report)
    if excess < NOTEWORTHY:
        return None
    huge = report.resident.huge_pages if report.resident else None
    by_huge_pages = huge is None or huge >= excess // 2
    return Finding(
        id="scavenged-but-resident",
        severity="warning",
        title=f"{mib(excess)} that Go has released is still in RAM",
        explanation="The runtime counts these heap pages as returned (HeapReleased), the kernel still holds RAM for "
        + (
            "them. Usual cause: transparent huge pages; khugepaged fills the hole again with a 2 MiB page."
            if by_huge_pages
            else "them. Huge pages do not explain it; locked memory (mlockall) cannot be returned."
        ),
        evidence={
            "scavenged_resident": scavenged,
            "lazy_free": report.resident.lazy_free if report.resident else None,
            "huge_pages": huge,
            "heap_released": report.heap.pages.scavenged,
        },
        action="Set /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none to 0, or enabled to madvise."
        if by_huge_pages
        else "See VmLck in /proc/PID/status; if it is 0, take the report again: pages may have been on their way.",
    )


def retained_idle_heap(report: Report) -> Finding | None:
    """Free heap pages that the runtime keeps are a large part of RSS."""
    if report.heap is None or report.resident is None:
        return None
    retained, resident = report.heap.pages.free, report.heap.resident.free
    firm = report.resident.total - lazy_free(report)
    if resident < LARGE or resident < RETAINED_SHARE * firm:
        return None
    return Finding(
        id="retained-idle-heap",
        severity="info",
        title=f"{mib(resident)} of RSS is free heap that Go keeps for the next peak",
        explanation="No object is in these pages. The background scavenger returns them slowly (it may use 1 % of "
        "one CPU) and keeps about 10 % more than the last collection's heap goal.",
        evidence={
            "retained": retained,
            "retained_resident": resident,
            "heap_goal": report.heap.goal,
            "resident_total": report.resident.total,
        },
        action="Wait, or set GOMEMLIMIT to cap it; debug.FreeOSMemory() returns all of it at once.",
    )


def fragmentation(report: Report) -> Finding | None:
    """In-use spans are mostly empty slots."""
    if not report.spans:
        return None
    free = sum(row.free_slots * row.object_size for row in report.spans)
    tail = sum(row.tail_waste for row in report.spans)
    pages = sum(row.pages for row in report.spans) * RUNTIME_PAGE
    if free + tail < NOTEWORTHY or free + tail < WASTE_SHARE * pages:
        return None
    worst = max(report.spans, key=lambda row: row.free_slots * row.object_size + row.tail_waste)
    return Finding(
        id="fragmentation",
        severity="warning",
        title=f"{mib(free + tail)} of {mib(pages)} heap in use is holes between objects",
        explanation="A span goes back only when its last object dies: few long-lived objects among many dead ones "
        f"hold whole spans. The worst are objects of {worst.object_size} bytes.",
        evidence={
            "free_slot_bytes": free,
            "tail_waste": tail,
            "in_use": pages,
            "worst_span_class": worst.span_class,
            "worst_object_size": worst.object_size,
        },
        action="Look for long-lived objects of that size allocated between short-lived ones (caches filled at "
        "request time); pool them, or allocate them together.",
    )


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


def goroutine_stacks(report: Report) -> Finding | None:
    """Stacks are a large part of RSS."""
    if report.heap is None or report.resident is None:
        return None
    stacks = report.heap.resident.stacks
    if stacks < LARGE or stacks < STACK_SHARE * report.resident.total:
        return None
    return Finding(
        id="goroutine-stacks",
        severity="warning",
        title=f"{mib(stacks)} of RSS is goroutine stacks",
        explanation="Stacks start at 2-8 KiB: this much is very many goroutines, or some with deep stacks.",
        evidence={"stacks_resident": stacks, "stack_inuse": report.heap.pages.stacks},
        action="Count the goroutines (runtime.NumGoroutine, /debug/pprof/goroutine): "
        "a leak shows as one stack many times.",
    )


def runtime_metadata(report: Report) -> Finding | None:
    """Say that the runtime's own records are an unusual part of RSS."""
    metadata = resident_of(report, "heap_metadata", "page_summary", "runtime_other")
    if metadata is None or report.resident is None:
        return None
    if metadata < LARGE or metadata < METADATA_SHARE * report.resident.total:
        return None
    return Finding(
        id="runtime-metadata",
        severity="warning",
        title=f"{mib(metadata)} of RSS is the runtime's own records",
        explanation="Spans, heap bitmaps, profile buckets and GC buffers. They grow with the largest heap that ever "
        "was and are never returned.",
        evidence={
            "metadata_resident": metadata,
            "gc_sys": stat(report, "GCSys"),
            "mspan_sys": stat(report, "MSpanSys"),
            "buck_hash_sys": stat(report, "BuckHashSys"),
            "other_sys": stat(report, "OtherSys"),
        },
        action="Lower the peak heap (GOMEMLIMIT, GOGC); a restart returns it.",
    )


def file_pages(report: Report) -> Finding | None:
    """File-backed pages, which the kernel can drop, are much of RSS."""
    resident = report.resident
    if resident is None or resident.file is None or resident.total < SMALL_PROCESS:
        return None
    if resident.file < LARGE or resident.file < FILE_SHARE * resident.total:
        return None
    return Finding(
        id="file-pages",
        severity="info",
        title=f"{mib(resident.file)} of RSS is pages of files",
        explanation="Program text, libraries and mapped files. Clean ones cost nothing: the kernel drops "
        "them when memory is short and reads them again.",
        evidence={"file": resident.file, "resident_total": resident.total},
        action="Nothing to do. To judge the program, look at anonymous memory instead of RSS.",
    )


def huge_pages(report: Report) -> Finding | None:
    """Transparent huge pages hold a large part of RSS, and Go did not have use for all of it."""
    resident, heap = report.resident, report.heap
    if resident is None or heap is None or not resident.huge_pages:
        return None
    # In RAM without an object in it: what a huge page brings along when one byte of it is touched.
    idle = heap.resident.free + heap.resident.outside
    if resident.huge_pages < HUGE_PAGE_SHARE * resident.total or min(idle, resident.huge_pages) < LARGE:
        return None
    return Finding(
        id="huge-pages",
        severity="info",
        title=f"{mib(resident.huge_pages)} of RSS is in transparent huge pages",
        explanation="The kernel backs the heap with 2 MiB pages, also where Go uses only a part of one: "
        f"up to {mib(idle)} of free heap pages may be in RAM for this reason alone.",
        evidence={"huge_pages": resident.huge_pages, "free_resident": heap.resident.free},
        action="Only if RSS matters more than speed: set transparent_hugepage/enabled to madvise.",
    )


def ready_not_resident(report: Report) -> Finding | None:
    """Memory that the runtime counts as Ready was never touched, or was swapped out."""
    virtual = report.virtual
    if virtual is None or virtual.ready is None or report.kinds is None:
        return None
    managed = [row for row in report.kinds if row.ready]
    # Resident bytes of a kind may lie in its Prepared parts: this is a lower bound of what is absent.
    absent = sum(max(0, row.ready - row.resident - row.swap) for row in managed)
    if absent < LARGE or absent < UNTOUCHED_SHARE * virtual.ready:
        return None
    return Finding(
        id="ready-not-resident",
        severity="info",
        title=f"Go counts {mib(absent)} as in use that holds no RAM yet",
        explanation="Mapped and ready, but never touched: the kernel gives RAM at the first access only. "
        "So MemStats.Sys is above what the process really costs (32 MiB of it is the runtime's heap index).",
        evidence={"ready": virtual.ready, "ready_not_resident": absent, "sys": stat(report, "Sys")},
        action="Nothing to do.",
    )
