"""Rules on who and what holds the heap: large objects, how free pages lie, timers, finalizers, profile buckets."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Finding, FreeRuns, LargeObject, ProfileBuckets, Report, stat
from gomem.tracer.report.findings.base import LARGE, NOTEWORTHY, goroutines_command, lazy_free, mib, profile_command
from gomem.tracer.report.findings.huge_pages import fewer_huge_pages

LARGE_OBJECTS_SHARE: Final = 0.50  # of HeapInuse
FREE_SHARE: Final = 0.20  # of HeapSys; 10 % is the scavenger's normal slack
FRAGMENTED: Final = 0.25  # of the free pages: what the longest run has of them at the most
EMPTY_SHARE: Final = 0.25  # of RSS
TIMERS_SHARE: Final = 0.10  # of HeapInuse
QUEUED: Final = 1000  # calls; a program that frees much has hundreds for moments
BUCKETS_SHARE: Final = 0.10  # of Sys
_NAMED: Final = 3


def large_objects(report: Report) -> Finding | None:
    """Say that few large objects are most of the heap in use."""
    found = report.heap.large_objects if report.heap else None
    in_use = stat(report, "HeapInuse")
    if found is None or not in_use:
        return None
    few = [one for one in found.largest if one.size >= NOTEWORTHY]
    held = sum(one.size for one in few)
    if held < LARGE or held < LARGE_OBJECTS_SHARE * in_use:
        return None
    command = profile_command(report)
    action = f"{command} shows the whole stacks of what allocated them. " if command else ""
    return Finding(
        id="large-objects",
        severity="info",
        title=f"{len(few)} {'objects hold' if len(few) > 1 else 'object holds'} {mib(held)} of the {mib(in_use)} heap "
        "in use",
        explanation=f"The largest: {'; '.join(said(one) for one in few[:_NAMED])}. Each has pages of its own, which "
        "are free as soon as a collection finds the object dead. While append lets a slice grow, its old array is one "
        "of them until then.",
        evidence={
            "objects": len(few),
            "bytes": held,
            "resident": sum(one.resident for one in few),
            "heap_in_use": in_use,
            "largest": few[0].size,
            "type": few[0].type,
            "function": few[0].function,
        },
        action=f"{action}If they should be smaller: keep less in one slice or map, make it in its final size, or let "
        "go of it (nil) when it has served.",
    )


def said(one: LargeObject) -> str:
    """Return what a large object is, as a person says it."""
    made = f" of {one.type}" if one.type is not None else " without pointers" if one.noscan else ""
    by = f", allocated by {one.function}" if one.function else ""
    return f"{mib(one.size)}{made}{by}"


def fragmented_free_heap(report: Report) -> Finding | None:
    """Free pages lie in runs that are too short for what the program allocates: the heap grows beside them."""
    runs = report.heap.free_runs if report.heap else None
    sys = stat(report, "HeapSys")
    if report.heap is None or runs is None or runs.smallest_too_large is None or not sys:
        return None
    needed = runs.smallest_too_large
    many = runs.size >= LARGE and runs.size >= FREE_SHARE * sys and runs.too_large_size >= NOTEWORTHY
    # In one run, or too little even if it were, it is no question of how it lies.
    if not many or needed > runs.size or runs.longest > FRAGMENTED * runs.size:
        return None
    grown = (report.events or {}).get("grow")
    in_ram = report.heap.resident.free + report.heap.resident.scavenged - lazy_free(report)
    return Finding(
        id="fragmented-free-heap",
        severity="warning" if in_ram >= LARGE else "info",
        title=_grows(grown.bytes if grown is not None else 0, runs),
        explanation=f"The free pages lie in {runs.runs:,} runs between objects in use. {runs.too_large:,} of the "
        f"objects in use, {mib(runs.too_large_size)} in all, are longer than each of them, the smallest of these "
        f"{mib(needed)}: the next of that size finds no room and the heap grows for it. Go never moves objects, so "
        f"the gaps close only when what lies between them dies. {mib(max(in_ram, 0))} of the free pages are in RAM.",
        evidence={
            "free": runs.size,
            "free_resident": max(in_ram, 0),
            "longest_run": runs.longest,
            "runs": runs.runs,
            "too_large": runs.too_large,
            "smallest_too_large": needed,
            "heap_sys": sys,
            "heap_grown": grown.bytes if grown is not None else None,
        },
        action="Give large buffers few sizes, such as powers of two, and use them again (a free list, sync.Pool), so "
        "that a gap fits the next one. debug.FreeOSMemory() returns the RAM of the gaps, not their address space.",
    )


def _grows(grown: int, runs: FreeRuns) -> str:
    if grown >= NOTEWORTHY:
        return (
            f"HeapSys grew by {mib(grown)} although {mib(runs.size)} of the heap are free: the longest free run is "
            f"{mib(runs.longest)}"
        )
    return (
        f"{mib(runs.size)} of the heap are free in runs of at most {mib(runs.longest)}: an object of "
        f"{mib(runs.smallest_too_large or 0)} makes it grow"
    )


def barely_used_huge_pages(report: Report) -> Finding | None:
    """Objects in use are in RAM as whole huge pages, and most of that has nothing in it."""
    heap, resident = report.heap, report.resident
    if heap is None or heap.in_use is None or not heap.in_use.huge_zeros or resident is None:
        return None
    empty = heap.in_use.huge_zeros
    objects = [one for one in heap.large_objects.largest if one.zero_share] if heap.large_objects else []
    if empty < LARGE or not objects:
        return None
    worst = max(objects, key=lambda one: (one.huge or 0) * (one.zero_share or 0))
    return Finding(
        id="barely-used-huge-pages",
        severity="warning" if empty >= EMPTY_SHARE * resident.total else "info",
        title=f"About {mib(empty)} of RSS are zeros that huge pages bring along",
        explanation="The first byte that is written in a huge page takes 2 MiB of RAM. Of samples of the OS pages in "
        f"{said(worst)}, {worst.zero_share:.0%} hold nothing but zeros: never written, or cleared "
        "since, as the buckets of a map are whose keys were deleted.",
        evidence={
            "huge_zeros": empty,
            "in_use_huge": heap.in_use.huge,
            "object_size": worst.size,
            "object_resident": worst.resident,
            "object_zero_share": worst.zero_share,
            "type": worst.type,
            "function": worst.function,
        },
        action=f"Where objects are large and few of their pages used: {fewer_huge_pages(report)} Or make a map or "
        "smaller pieces of such an object.",
    )


def many_timers(report: Report) -> Finding | None:
    """Say that timers that have not fired are a part of the heap that can be seen."""
    timers = report.structure.timers if report.structure else None
    in_use = stat(report, "HeapInuse")
    if timers is None or not in_use or not timers.count:
        return None
    waiting = timers.count - timers.stopped
    held = timers.size * waiting // timers.count
    if held < NOTEWORTHY or held < TIMERS_SHARE * in_use:
        return None
    first = timers.functions[0] if timers.functions else None
    called = ""
    if first is not None:
        called = f" Of {timers.looked_at:,} that were looked at, {first.timers:,} will call {first.function}."
    return Finding(
        id="many-timers",
        severity="warning" if held >= LARGE else "info",
        title=f"{waiting:,} timers wait to fire and hold {mib(held)} or more",
        explanation="A timer keeps its function and all that this refers to alive until it fires or is stopped."
        f"{called}",
        evidence={
            "timers": waiting,
            "timer_bytes": held,
            "function": first.function if first else None,
            "heap_in_use": in_use,
        },
        action="Stop each timer when what it waits for has come (defer t.Stop(), the cancel function of "
        "context.WithTimeout), and use one ticker for many deadlines.",
    )


def waiting_finalizers(report: Report) -> Finding | None:
    """Say that finalizers or cleanups of dead objects are not run as fast as they come."""
    queued = report.structure.queued if report.structure else None
    if queued is None:
        return None
    waiting = queued.finalizers + (queued.cleanups or 0)
    if waiting < QUEUED:
        return None
    command = goroutines_command(report)
    look = f"{command} --by stack shows where it is: " if command else "See where it is: "
    return Finding(
        id="waiting-finalizers",
        severity="warning",
        title=f"{waiting:,} finalizers and cleanups of dead objects wait to be run",
        explanation="One goroutine runs all finalizers, one after the other, few run cleanups. What waits keeps its "
        "objects (finalizers), and whatever memory or descriptors it is to free. Either one of them blocks, or they "
        "come faster than they run.",
        evidence={
            "queued_finalizers": queued.finalizers,
            "queued_cleanups": queued.cleanups,
            "finalizers": (report.structure.specials or {}).get("finalizers") if report.structure else None,
        },
        action=f"{look}runtime.runfinq, runtime.runFinalizers or runtime.runCleanups, and what it calls. A finalizer "
        "must not wait for a lock, a channel or the network; start a goroutine for that, or close things by hand.",
    )


def profile_buckets(report: Report) -> Finding | None:
    """Say that the records of the heap profile, and those of blocking and mutexes, are large."""
    size, sys = stat(report, "BuckHashSys"), stat(report, "Sys")
    if size is None or not sys or size < NOTEWORTHY or size < BUCKETS_SHARE * sys:
        return None
    counts = report.structure.profile_buckets if report.structure else None
    return Finding(
        id="profile-buckets",
        severity="warning" if size >= LARGE else "info",
        title=f"The runtime's own profiles take {mib(size)} (BuckHashSys)",
        explanation="There is a record for each call stack that has allocated (MemProfileRate), blocked or waited for "
        f"a mutex.{_told(counts)} None is ever given back: recursion and generated code make ever new stacks.",
        evidence={
            "buck_hash_sys": size,
            "sys": sys,
            "memory_buckets": counts.memory if counts else None,
            "block_buckets": counts.block if counts else None,
            "mutex_buckets": counts.mutex if counts else None,
        },
        action=f"{_sample_less(counts)}, or cap the stacks' depth with GODEBUG=profstackdepth=32 (Go 1.23 and later).",
    )


def _told(counts: ProfileBuckets | None) -> str:
    named = (("memory", counts.memory), ("blocking", counts.block), ("mutexes", counts.mutex)) if counts else ()
    told = [f"{count:,} of {what}" for what, count in named if count]
    return f" There are {', '.join(told)}." if told else ""


def _sample_less(counts: ProfileBuckets | None) -> str:
    memory = "raise runtime.MemProfileRate (the default is 524288)"
    waits = "lower SetBlockProfileRate and SetMutexProfileFraction"
    order = [memory, waits]
    if counts is not None and counts.memory is not None and (counts.block or 0) + (counts.mutex or 0) > counts.memory:
        order.reverse()
    return f"{order[0][0].upper()}{order[0][1:]}, {order[1]}"
