"""Figures from look to look: what a process had of each, as far back as is worth telling. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from itertools import pairwise
from statistics import median_low

from msgspec.structs import replace

from gomem.tracer.model.live_heap import LONGEST
from gomem.tracer.report import AroundCollections, Course, CourseThird

MOST = 64  # looks that are kept; with more, every second one goes, and the next must be as far apart
_LEAST = 2  # looks in each third
_LARGEST = (1 << 63) - 1
_UNKNOWN = -1
_COLLECTIONS = "collections"
_FREED_BY_COLLECTIONS = ("outside", "finalizers")


class Courses:
    """Remembers figures of looks: at the most 8 bytes for each of 64 looks."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._times = array("q")
        self._figures: dict[str, array[int]] = {}
        self._apart = 0  # ns, at the least

    def note(self, time: int, figures: Mapping[str, int | None]) -> None:
        """Take the figures of a look that ended at `time`, CLOCK_MONOTONIC ns; None: it did not tell."""
        times = self._times
        if times and time - times[-1] < max(self._apart, 1):
            return
        for name in figures:
            self._figures.setdefault(name, array("q", [_UNKNOWN] * len(times)))
        times.append(time)
        for name, known in self._figures.items():
            value = figures.get(name)
            known.append(_UNKNOWN if value is None or not 0 <= value <= _LARGEST else value)
        if times[0] < time - LONGEST:
            self._drop(slice(0, 1))
        if len(times) > MOST:
            self._drop(slice(1, None, 2))
            self._apart = (time - times[0]) // len(times)

    def _drop(self, places: slice) -> None:
        for column in (self._times, *self._figures.values()):
            del column[places]

    def courses(self) -> dict[str, Course] | None:
        """Return the courses by name; without those that too few looks told, and None where there are no others."""
        found = {name: self._course(values) for name, values in self._figures.items()}
        counts = self._figures.get(_COLLECTIONS)
        for name in _FREED_BY_COLLECTIONS:
            course = found.get(name)
            if course is not None and counts is not None:
                found[name] = replace(course, around_collections=_around(self._figures[name], counts))
        return {name: one for name, one in found.items() if one is not None} or None

    def _course(self, values: array[int]) -> Course | None:
        told = [(time, value) for time, value in zip(self._times, values, strict=True) if value != _UNKNOWN]
        if len(told) < 3 * _LEAST:
            return None
        begin, end = told[0][0], told[-1][0]
        length = end - begin
        thirds: list[list[int]] = [[], [], []]
        for time, value in told:
            thirds[min(3 * (time - begin) // length, 2)].append(value)
        if any(len(some) < _LEAST for some in thirds):
            return None
        first, _, last = medians = [median_low(some) for some in thirds]
        return Course(
            seconds=length / 1e9,
            looks=len(told),
            first=told[0][1],
            last=told[-1][1],
            per_second=(last - first) / (length / 1e9 * 2 / 3),
            thirds=[
                CourseThird(len(some), min(some), median, max(some))
                for some, median in zip(thirds, medians, strict=True)
            ],
        )


def _around(values: array[int], counts: array[int]) -> AroundCollections:
    told = [(value, count) for value, count in zip(values, counts, strict=True) if _UNKNOWN not in (value, count)]
    risen = fallen = fallen_with = 0
    for (before, count), (after, count_after) in pairwise(told):
        change = after - before
        if count != count_after:
            fallen_with += max(-change, 0)
        else:
            risen += max(change, 0)
            fallen += max(-change, 0)
    return AroundCollections(risen, fallen, fallen_with)
