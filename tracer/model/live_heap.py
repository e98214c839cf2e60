"""The live heap over time: what each collection found alive, as looks and collections tell it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from statistics import median_low

from gomem.tracer.model.gc_cycles import GcCycle
from gomem.tracer.report import LiveCourse, LiveThird

LONGEST = 6 * 3600 * 10**9  # ns: a growth of that time is told even if the process has run for months
MOST = 512  # points; with more, every second one goes, and the next must be as far apart
_LEAST = 2  # collections in each third: one alone may have come at a peak

_Point = tuple[int, int]  # CLOCK_MONOTONIC ns, bytes


class LiveHeap:
    """Remembers what looks have seen of the bytes that the last collection marked."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._points: list[_Point] = []
        self._apart = 1  # ns, at the least
        self._until = 0

    def note(self, time: int, live: int | None) -> None:
        """Take what a look saw that ended at `time`, CLOCK_MONOTONIC ns; None or 0: nothing was marked yet."""
        self.reach(time)
        points = self._points
        if not live or (points and (points[-1][1] == live or time - points[-1][0] < self._apart)):
            return
        points.append((time, live))
        if points[0][0] < time - LONGEST:
            del points[0]
        if len(points) > MOST:
            del points[1::2]
            self._apart = (time - points[0][0]) // len(points)

    def reach(self, time: int) -> None:
        """Say that all is known until `time`."""
        self._until = max(self._until, time)

    def course(self, cycles: Iterable[GcCycle] = ()) -> LiveCourse | None:
        """Return the course until now, with what `cycles` tell of themselves; None where too few ended in any third."""
        ended = {(one.ended, one.heap_after) for one in cycles if one.ended is not None and one.heap_after}
        points = sorted(one for one in {*self._points, *ended} if one[0] >= self._until - LONGEST)
        points = [next(same) for _, same in groupby(points, key=lambda point: point[1])]
        if len(points) < 3 * _LEAST:
            return None
        begin = points[0][0]
        length = max(self._until - begin, 1)
        thirds: list[list[int]] = [[], [], []]
        for time, live in points:
            thirds[min(3 * (time - begin) // length, 2)].append(live)
        if any(len(some) < _LEAST for some in thirds):
            return None
        return LiveCourse(length / 1e9, [LiveThird(len(one), min(one), median_low(one), max(one)) for one in thirds])
