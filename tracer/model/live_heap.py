"""The live heap over time: what each collection found alive, as looks and collections tell it. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import groupby
from statistics import median_low

from gomem.tracer.model.gc_cycles import LARGEST, GcCycle
from gomem.tracer.report import LiveCourse, LiveThird

LONGEST = 6 * 3600 * 10**9  # ns: a growth of that time is told even if the process has run for months
MOST = 512  # points; with more, every second one goes, and the next must be as far apart
_LEAST = 2  # collections in each third: one alone may have come at a peak


class LiveHeap:
    """Remembers what looks have seen of the bytes that the last collection marked."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._times, self._live = array("q"), array("q")  # of thousands of processes: 8 KB each, at the most
        self._apart = 1  # ns, at the least
        self._until = 0

    def note(self, time: int, live: int | None) -> None:
        """Take what a look saw that ended at `time`, CLOCK_MONOTONIC ns; None or 0: nothing was marked yet."""
        self.reach(time)
        times, lives = self._times, self._live
        if not live or live >= LARGEST or (times and (lives[-1] == live or time - times[-1] < self._apart)):
            return
        times.append(time)
        lives.append(live)
        if times[0] < time - LONGEST:
            del times[0], lives[0]
        if len(times) > MOST:
            del times[1::2], lives[1::2]
            self._apart = (time - times[0]) // len(times)

    def reach(self, time: int) -> None:
        """Say that all is known until `time`."""
        self._until = max(self._until, time)

    def course(self, cycles: Iterable[GcCycle] = ()) -> LiveCourse | None:
        """Return the course until now, with what `cycles` tell of themselves; None where too few ended in any third."""
        ended = {(one.ended, one.heap_after) for one in cycles if one.ended is not None and one.heap_after}
        seen = {*zip(self._times, self._live, strict=True), *ended}
        points = sorted(one for one in seen if one[0] >= self._until - LONGEST)
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
