"""Rules on finalizers and cleanups that free memory of C, and wait for a collection to come."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Course, Finding, Report
from gomem.tracer.report.findings.base import LARGE, NOTEWORTHY, mib
from gomem.tracer.report.findings.growth import goes_on

OBJECTS: Final = 100  # with finalizers or cleanups; fewer are files and connections
RARE: Final = 10.0  # seconds from one collection to the next; the runtime forces one after 120
LITTLE: Final = 0.10  # of what rises before a collection: what others free in between


def finalizers_wait_for_gc(report: Report) -> Finding | None:
    """Say that memory outside of Go waits, with objects that have finalizers, for collections that seldom come."""
    told = report.courses or {}
    outside, objects, collections = (told.get(name) for name in ("outside", "finalizers", "collections"))
    if outside is None or objects is None or collections is None:
        return None
    ran = max(collections.last - collections.first, 0)
    if ran and outside.seconds < RARE * ran:
        return None
    freed = ran > 0 and _fell_with_collections(outside) and _fell_with_collections(objects)
    grows = ran == 0 and goes_on(outside.thirds) and goes_on(objects.thirds)
    held, more = (_risen(outside), _risen(objects)) if freed else (_grown(outside), _grown(objects))
    if not (freed or grows) or held < NOTEWORTHY or more < OBJECTS:
        return None
    return Finding(
        id="finalizers-wait-for-gc",
        severity="warning" if freed and held >= LARGE else "info",
        title=f"{mib(held)} outside of Go came with {more:,} objects that have finalizers or cleanups, and "
        + (f"went with them: {ran} collection{'s' if ran > 1 else ''} in {outside.seconds:.0f} s" if freed
           else f"no collection ran in {outside.seconds:.0f} s"),
        explanation="Only a collection finds such an object dead, and only then what it holds is freed. The collector "
        f"goes by the Go heap alone: {_heap(report)} To what C has allocated it is blind."
        + ("" if freed else " Whether the objects are dead or in use only the next collection can tell."),
        evidence={
            "outside": outside.last,
            "grown": held,
            "objects": objects.last,
            "more_objects": more,
            "bytes_per_object": held // more,
            "collections": ran,
            "seconds": outside.seconds,
            "since_last_cycle": _since(report),
        },
        action="Free what C holds by hand as soon as it has served (Close, Free, defer), with the finalizer as a net "
        "only. Until then: call runtime.GC() after so many bytes of C, or lower GOGC.",
    )  # fmt: skip


def _fell_with_collections(course: Course) -> bool:
    """Tell whether it only rises until a collection runs, and falls then."""
    around = course.around_collections
    if around is None or not around.risen_without:
        return False
    return around.fallen_without <= LITTLE * around.risen_without <= around.fallen_with


def _risen(course: Course) -> int:
    return course.around_collections.risen_without if course.around_collections is not None else 0


def _grown(course: Course) -> int:
    return course.thirds[2].median - course.thirds[0].median


def _since(report: Report) -> float | None:
    work = report.heap.collector if report.heap is not None else None
    return work.since_last_cycle if work is not None else None


def _heap(report: Report) -> str:
    goal = report.heap.goal if report.heap is not None else None
    by_time = "after two minutes without one it forces a collection."
    return f"the next comes when that has {mib(goal)}; {by_time}" if goal else by_time
