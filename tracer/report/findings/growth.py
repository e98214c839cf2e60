"""The rule on a live heap that grows: what a collection finds alive, and the next finds more of."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Finding, Report
from gomem.tracer.report.findings.base import NOTEWORTHY, mib, profile_command

GROWN_SHARE: Final = 0.10  # of what was alive at first: less is what any load that changes does
GOES_ON: Final = 0.5  # of what came between the first two thirds must come again: a cache that fills slows down
LASTING: Final = 600.0  # seconds; in less, a program may still be warming up


def live_heap_grows(report: Report) -> Finding | None:
    """Say that each third of the time had more alive in all its collections than the one before."""
    course = report.heap.live_course if report.heap else None
    if course is None:
        return None
    first, middle, last = course.thirds
    if first.highest >= middle.lowest or middle.highest >= last.lowest:
        return None  # it breathes, or stands still
    grown = last.median - first.median
    if grown < max(NOTEWORTHY, GROWN_SHARE * first.median):
        return None
    if last.median - middle.median < GOES_ON * (middle.median - first.median):
        return None
    cycles = sum(third.cycles for third in course.thirds)
    return Finding(
        id="live-heap-grows",
        severity="warning" if course.seconds >= LASTING else "info",
        title=f"The live heap grows: from {mib(first.median)} to {mib(last.median)} within {_time(course.seconds)}",
        explanation=f"These are medians of {cycles} collections, in the first third of that time and in the last. What "
        "a collection finds alive is no garbage, whatever GOGC is. All of each third found more than all of the third "
        "before, and the growth has not slowed down: a leak, a cache without a bound"
        + (", or a program that warms up." if course.seconds < LASTING else "."),
        evidence={
            "grown": grown,
            "seconds": course.seconds,
            "cycles": cycles,
            "live_in_first_third": first.median,
            "live_in_second_third": middle.median,
            "live_in_last_third": last.median,
        },
        action=_action(report),
    )


def _action(report: Report) -> str:
    command = profile_command(report)
    if command is None:
        return "Compare two heap profiles, one taken later than the other: gomem diff shows by call stack what grew."
    return (
        f"`{command}`, where this report was taken, shows who holds the heap, or why the program keeps no heap "
        f"profile. For what grows: `{command} -o before.pb.gz`, later the same with after.pb.gz, and "
        "`gomem diff before.pb.gz after.pb.gz`."
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
