"""Rules on what of RSS is Go's: what is harmless, and what is waste."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Finding, Report, stat
from gomem.tracer.report.findings.base import LARGE, NOTEWORTHY, goroutines_command, lazy_free, mib, resident_of
from gomem.tracer.report.findings.holders import fragmented_free_heap
from gomem.tracer.report.findings.huge_pages import fewer_huge_pages, no_refilling
from gomem.tracer.report.findings.scavenger import fate_of_free_heap

RUNTIME_PAGE: Final = 8192
LAZY_SHARE: Final = 0.10  # of RSS: visible as a step in a graph
# Of RSS that is not lazily freed. The scavenger aims at 10 % over the heap goal: less is its normal slack.
RETAINED_SHARE: Final = 0.25
WASTE_SHARE: Final = 0.40  # of in-use spans; half-empty spans just after a collection are normal up to here
STACK_SHARE: Final = 0.20  # of RSS; 2-8 KiB a goroutine, so 64 MiB are thousands of goroutines
ENDED_SHARE: Final = 0.10  # of HeapInuse
METADATA_SHARE: Final = 0.15  # of RSS; normally 2-5 %
HUGE_PAGE_SHARE: Final = 0.50  # of RSS


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
        actionable=False,
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
    locked = report.address_limits.locked if report.address_limits else None
    cause, action = _why_kept(report, excess, huge, locked)
    return Finding(
        id="scavenged-but-resident",
        severity="warning",
        title=f"{mib(excess)} that Go has released is still in RAM",
        explanation="The runtime counts these heap pages as returned (HeapReleased), the kernel still holds RAM for "
        f"them. {cause}",
        evidence={
            "scavenged_resident": scavenged,
            "lazy_free": report.resident.lazy_free if report.resident else None,
            "huge_pages": huge,
            "locked": locked,
            "heap_released": report.heap.pages.scavenged,
        },
        action=action,
    )


def _why_kept(report: Report, excess: int, huge: int | None, locked: int | None) -> tuple[str, str]:
    """Return why the kernel keeps released pages, as far as its figures tell, and what to do."""
    if locked is not None and locked >= excess:
        return (
            f"The process has locked {mib(locked)} of its address space (VmLck): madvise gives no locked page back.",
            "Lock only what must never wait for the disk (mlock of it, instead of mlockall), or nothing.",
        )
    if huge is None or huge >= excess // 2:
        return (
            "Usual cause: transparent huge pages; khugepaged fills the hole again with a 2 MiB page.",
            no_refilling(report),
        )
    return (
        (
            "Neither huge pages nor locked memory (VmLck) explain it.",
            "Take the report again: pages may have been on their way.",
        )
        if locked is not None
        else (
            "Huge pages do not explain it; locked memory (mlockall) cannot be returned.",
            "See VmLck in /proc/PID/status; if it is 0, take the report again: pages may have been on their way.",
        )
    )


def retained_idle_heap(report: Report) -> Finding | None:
    """Free heap pages that the runtime keeps are a large part of RSS."""
    if report.heap is None or report.resident is None:
        return None
    retained, resident = report.heap.pages.free, report.heap.resident.free
    firm = report.resident.total - lazy_free(report)
    if resident < LARGE or resident < RETAINED_SHARE * firm:
        return None
    scavenger = report.heap.scavenger
    explanation, action = fate_of_free_heap(report.heap)
    purpose = " for the next peak" if fragmented_free_heap(report) is None else ", in pieces"
    return Finding(
        id="retained-idle-heap",
        severity="info",
        title=f"{mib(resident)} of RSS is free heap that Go keeps{purpose}",
        explanation=f"No object is in these pages. {explanation}",
        evidence={
            "retained": retained,
            "retained_resident": resident,
            "heap_goal": report.heap.goal,
            "resident_total": report.resident.total,
            "scavenger_goal": scavenger.goal_bytes if scavenger else None,
            "scavenger_retained": scavenger.retained if scavenger else None,
            "will_return": scavenger.will_return if scavenger else None,
            "will_return_seconds": scavenger.will_return_seconds if scavenger else None,
            "after_next_collection": scavenger.after_next_collection if scavenger else None,
        },
        action=action,
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
        action=f"{_goroutines(report)}: a leak shows as one place many times.",
    )


def _goroutines(report: Report) -> str:
    command = goroutines_command(report)
    if command is None:
        return "Count the goroutines (runtime.NumGoroutine, /debug/pprof/goroutine)"
    return (
        f"`{command}`, where this report was taken, shows who created them and what they wait for (where they are with "
        "`--by stack`, which only grow with `-d 30s`)"
    )


def ended_goroutines(report: Report) -> Finding | None:
    """Say that g structs of goroutines that have ended are a part of the heap that can be seen."""
    scheduler = report.structure.scheduler if report.structure else None
    in_use = stat(report, "HeapInuse")
    if scheduler is None or scheduler.ended_bytes is None or scheduler.ended_goroutines is None or in_use is None:
        return None
    kept = scheduler.ended_bytes
    if kept < NOTEWORTHY or kept < ENDED_SHARE * in_use:
        return None
    return Finding(
        id="ended-goroutines",
        severity="warning" if kept >= LARGE else "info",
        title=f"{mib(kept)} of the heap is kept for goroutines that have ended",
        explanation=f"There were at one time {scheduler.ended_goroutines:,} goroutines more than the "
        f"{scheduler.goroutines:,} of now. The runtime keeps the g struct of each for a new one, and frees none: no "
        "collection, no debug.FreeOSMemory. The heap profile shows them as runtime.malg.",
        evidence={
            "ended_goroutines": scheduler.ended_goroutines,
            "ended_bytes": kept,
            "goroutines": scheduler.goroutines,
            "heap_in_use": in_use,
        },
        action="Limit how many goroutines there are at one time (a semaphore, a pool of workers): the next crowd takes "
        "no more than these. Only a restart gives the memory back.",
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
        action=f"Only if RSS matters more than speed: {fewer_huge_pages(report)}",
    )
