"""Rules on what grows: what collections find alive, goroutines, and memory outside of Go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gomem.tracer.report import CourseThird, Finding, GrownCreator, LiveThird, Report
from gomem.tracer.report.findings.base import NOTEWORTHY, goroutines_command, holders_command, mib, profile_command

GROWN_SHARE: Final = 0.10  # of what was alive at first: less is what any load that changes does
# What of the growth must come between the first two thirds and between the last two: less is a step, or slows down. And
# what between the highest of the second third and the median of the last: as there is in a line, a plateau has nothing.
FIRST_PART, SECOND_PART, GOES_ON = 0.2, 1 / 3, 0.1
GOROUTINES: Final = 100  # more than there were: fewer is what any load that changes does
MOST_OF: Final = 0.5  # of all goroutines that there are more, for one go statement to be named
LASTING: Final = 600.0  # seconds; in less, a program may still be warming up


def live_heap_grows(report: Report) -> Finding | None:
    """Say that the last third of the time had more alive than the first in all collections, and that it goes on."""
    course = report.heap.live_course if report.heap else None
    if course is None:
        return None
    first, middle, last = course.thirds
    grown = last.median - first.median
    if grown < max(NOTEWORTHY, GROWN_SHARE * first.median) or not goes_on(course.thirds):
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


def goroutines_grow(report: Report) -> Finding | None:
    """Say that there are more goroutines all the time."""
    course = (report.courses or {}).get("goroutines")
    if course is None:
        return None
    first, _, last = course.thirds
    grown = last.median - first.median
    if grown < max(GOROUTINES, GROWN_SHARE * first.median) or not goes_on(course.thirds):
        return None
    creator = _creator(report)
    return Finding(
        id="goroutines-grow",
        severity="warning" if course.seconds >= LASTING else "info",
        title=f"Goroutines grow: from {first.median:,} to {last.median:,} within {_time(course.seconds)}"
        + ("" if creator is None else f", most of them created by {creator.function}"),
        explanation=f"These are medians of the first third of that time and of the last ({course.looks} looks). All of "
        "the last third saw more than all of the first, and it goes on: goroutines that wait for what never comes, "
        "each with its stack and what that refers to, which no collection frees"
        + ("." if course.seconds >= LASTING else "; or a load that rises.")
        + ("" if creator is None else f" {_growth(report, creator)}"),
        evidence={
            "grown": grown,
            "seconds": course.seconds,
            "per_second": course.per_second,
            "goroutines": course.last,
            "creator": None if creator is None else _line(creator),
            "creator_grown": None if creator is None else creator.sums.grown,
        },
        action=_where_goroutines_wait(report, creator),
    )


def _creator(report: Report) -> GrownCreator | None:
    """Return the go statement that most of the growth is of, unless its goroutines come and go."""
    found = report.goroutine_growth
    if found is None or not found.creators or found.whole.grown <= 0:
        return None
    first = found.creators[0]
    return first if first.function and first.some_stay and first.sums.grown >= MOST_OF * found.whole.grown else None


def _growth(report: Report, creator: GrownCreator) -> str:
    """Return a sentence on how the goroutines of one go statement have grown."""
    found = report.goroutine_growth
    assert found is not None
    sums = creator.sums
    return (
        f"Most of the new ones are of the go statement in {_line(creator)}: {sums.goroutines_first:,} at the first "
        f"look at goroutines, {sums.goroutines_last:,} at the last, {_time(found.seconds)} later"
        + (", more at each look." if creator.only_grows else ", and some of each look's stay.")
    )


def _line(creator: GrownCreator) -> str:
    base = creator.file.rpartition("/")[2]
    return f"{creator.function} ({base}:{creator.line})" if base else creator.function


def _where_goroutines_wait(report: Report, creator: GrownCreator | None) -> str:
    command = goroutines_command(report)
    if command is None:
        return (
            "Compare two goroutine profiles, one taken later than the other."
            if creator is None
            else f"See what would end the goroutines that {_line(creator)} starts, and whether it always comes."
        )
    if creator is None:
        return (
            f"`{command} -d 30s`, where this report was taken, names the go statements whose goroutines only grow, "
            "and what they wait for."
        )
    return (
        f"See what would end the goroutines that {_line(creator)} starts, and whether it always comes. "
        f"`{command} --by stack`, where this report was taken, shows where they wait."
    )


def outside_grows(report: Report) -> Finding | None:
    """Say that memory that is not the Go runtime's grows all the time."""
    course = (report.courses or {}).get("outside")
    if course is None:
        return None
    first, _, last = course.thirds
    grown = last.median - first.median
    if grown < max(NOTEWORTHY, GROWN_SHARE * first.median) or not goes_on(course.thirds):
        return None
    command = holders_command(report)
    return Finding(
        id="outside-grows",
        severity="warning" if course.seconds >= LASTING else "info",
        title=f"Memory outside of Go grows: from {mib(first.median)} to {mib(last.median)} within "
        f"{_time(course.seconds)}",
        explanation="C's heap and mappings that are not the runtime's, in RAM: medians of the first third of that time "
        f"and of the last ({course.looks} looks). Go's heap profile, MemStats and GOMEMLIMIT do not see it.",
        evidence={
            "grown": grown,
            "seconds": course.seconds,
            "per_second": course.per_second,
            "resident_outside": course.last,
        },
        action="Look at what C libraries allocate and never free, and at code that calls mmap."
        + ("" if command is None else f" `{command}`, where this report was taken, shows which mappings it is."),
    )


def goes_on(thirds: Sequence[LiveThird] | Sequence[CourseThird]) -> bool:
    """Tell whether it grows all the time, by more than looks differ: it neither breathes nor has come to rest."""
    first, middle, last = thirds
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
