"""The rule on a live heap that grows: what a collection finds alive, and the next finds more of."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Finding, LiveCourse, Report
from gomem.tracer.report.findings.base import NOTEWORTHY, mib, profile_command

GROWN_SHARE: Final = 0.10  # of what was alive at first: less is what any load that changes does
# What of the growth must come between the first two thirds and between the last two: less is a step, or slows down. And
# what between the highest of the second third and the median of the last: as there is in a line, a plateau has nothing.
FIRST_PART, SECOND_PART, GOES_ON = 0.2, 1 / 3, 0.1
LASTING: Final = 600.0  # seconds; in less, a program may still be warming up


def live_heap_grows(report: Report) -> Finding | None:
    """Say that the last third of the time had more alive than the first in all collections, and that it goes on."""
    course = report.heap.live_course if report.heap else None
    if course is None:
        return None
    first, middle, last = course.thirds
    grown = last.median - first.median
    if grown < max(NOTEWORTHY, GROWN_SHARE * first.median) or not _lasts(course):
        return None
    cycles = sum(third.cycles for third in course.thirds)
    return Finding(
        id="live-heap-grows",
        severity="warning" if course.seconds >= LASTING else "info",
        title=f"The live heap grows: from {mib(first.median)} to {mib(last.median)} within {_time(course.seconds)}",
        explanation=f"These are medians of {cycles} collections, in the first third of that time and in the last. What "
        "a collection finds alive does not hang on GOGC. All of the last third found more than all of the first, and "
        "the growth goes on: a leak, a cache without a bound"
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


def _lasts(course: LiveCourse) -> bool:
    """Tell whether it grows all the time, by more than collections differ: it neither breathes nor has come to rest."""
    first, middle, last = course.thirds
    grown = last.median - first.median
    return (
        first.highest < last.lowest
        and middle.median - first.median >= FIRST_PART * grown
        and last.median - middle.median >= SECOND_PART * grown
        and last.median - middle.highest >= GOES_ON * grown
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
