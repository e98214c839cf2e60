"""How far CLOCK_MONOTONIC is apart in time namespaces (time_namespaces(7)), and from the clock of BPF programs.

The time of day (CLOCK_REALTIME) is another matter: anybody may set it. Durations, ages and deadlines are never of it.

What the kernel stamps events with (bpf_ktime_get_ns) is the clock of the initial namespace; what a process reads, gomem
as well, is that and the offset of its own namespace.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache

_SMALL = 4096
_STEP = 50_000_000  # ns: the time of day is slewed by less between two looks at it
_REMEMBERED = 60_000_000_000  # ns for which times from before a step may still come in


class TimeOfDay:
    """Tells times of day and moments of CLOCK_MONOTONIC by each other, also when the former is set."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns, wall: Callable[[], int] = time.time_ns) -> None:
        """`clock` and `wall`: the two clocks, ns."""
        self._clock, self._wall = clock, wall
        self._offset = self._newest = self._before = self._ahead()
        self._stepped_at = 0
        self._now = 0

    def look(self) -> None:
        """Notice whether the time of day was set since the last look."""
        ahead, self._now = self._ahead(), self._clock()
        if abs(ahead - self._offset) > _STEP:
            self._before, self._offset, self._stepped_at = self._newest, ahead, self._now
        elif self._now - self._stepped_at > _REMEMBERED:
            self._before = ahead
        self._newest = ahead

    def of(self, moment: int) -> int:
        """Return the time of day of a moment, both in ns: by the clock as it was set at the last look but for slewing.

        So the same moment has the same time as long as nobody sets the clock.
        """
        return moment + self._offset

    def moment(self, wall: int) -> int:
        """Return the moment of a time of day in ns that was taken before the last look, on either side of a step.

        The clock was before or behind by as much as it was set: of the two moments it is the later one that had come.
        """
        moments = [wall - self._newest, wall - self._before]
        return max((moment for moment in moments if moment <= self._now), default=moments[0])

    def _ahead(self) -> int:
        """Return how far the time of day is ahead of the other clock, ns, read as nearly at once as it goes."""
        found = []
        for _ in range(3):
            began, wall, ended = self._clock(), self._wall(), self._clock()
            found.append((ended - began, wall - (began + ended) // 2))
        return min(found)[1]


def parse_offset(text: str) -> int:
    """Return the offset of CLOCK_MONOTONIC in ns that /proc/PID/timens_offsets tells; 0 if it tells none."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "monotonic":
            try:
                return int(words[1]) * 1_000_000_000 + int(words[2])
            except ValueError:
                return 0
    return 0


@cache
def own_offset() -> int:
    """Return how far our CLOCK_MONOTONIC is ahead of the kernel's, ns."""
    return offset_of("self")


def offset_of(pid: int | str) -> int:
    """Return how far a process's CLOCK_MONOTONIC is ahead of the kernel's, ns; 0 where /proc does not tell.

    The file has the offsets of the namespace that children will be in; the process's own is another one between
    unshare(2) and the next exec only.
    """
    try:
        if os.readlink(f"/proc/{pid}/ns/time") != os.readlink(f"/proc/{pid}/ns/time_for_children"):
            return 0
        with open(f"/proc/{pid}/timens_offsets", encoding="ascii", errors="replace") as file:
            return parse_offset(file.read(_SMALL))
    except OSError:
        return 0
