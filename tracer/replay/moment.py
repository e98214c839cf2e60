"""The moment of a recording that is reported; times are CLOCK_MONOTONIC ns."""

from __future__ import annotations

import math
from datetime import datetime

from gomem.tracer.recording.watching import Beginning
from gomem.tracer.watch.moments import rfc3339

ALWAYS = (1 << 63) - 1
_AT_LOOK = 1_000_000  # ns; a moment so soon after a look is the look's: people give moments in ms


class Moment:
    """A moment that was asked for, seen from the beginning of a recording."""

    def __init__(self, beginning: Beginning, wanted: float | datetime | None, look_times: list[int]) -> None:
        """`wanted`: seconds since the beginning, or a time of day; None: the end. `look_times`: all, if it is not."""
        self.wanted = wanted
        self.look_times = look_times
        self.start = beginning.started  # None until an event tells it
        self.asked = ALWAYS  # the moment asked for
        self._beginning = beginning
        self.until = self._until()

    def start_at(self, start: int) -> None:
        """Take notice of when the recording begins."""
        self.start = start
        self.until = self._until()

    def seconds(self, time: int) -> float:
        """Return a moment as --at takes it: seconds since the beginning, rounded up to a ms."""
        return math.ceil((time - (self.start or 0)) / 1e6) / 1e3

    def clock(self, time: int) -> str:
        """Return a moment as RFC 3339."""
        return rfc3339(self._beginning.clock + time - self._beginning.monotonic)

    def _until(self) -> int:
        """Return the moment to report; for ever while the beginning is not known yet.

        That is the moment asked for, but the first look's before that was done, and a look's right behind it.
        """
        begun = self._beginning
        if isinstance(self.wanted, datetime):
            self.asked = max(begun.monotonic + int((self.wanted.timestamp() - begun.clock / 1e9) * 1e9), 0)
        elif self.wanted is not None and self.start is not None:
            self.asked = min(self.start + int(min(self.wanted, ALWAYS / 1e9) * 1e9), ALWAYS)
        else:
            return ALWAYS
        done = [time for time in self.look_times if time <= self.asked]
        if self.look_times and not done:
            return self.look_times[0]
        return done[-1] if done and self.asked - done[-1] <= _AT_LOOK else self.asked
