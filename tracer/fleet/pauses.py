"""Events that came too fast were switched off: when to have them again."""

from __future__ import annotations

import time

from gomem.bpf.shared_target import SharedTarget

PAUSE = 10.0  # seconds
LONGEST_PAUSE = 600.0


class Pauses:
    """Ends the pauses of one process's events, each after twice the time of the one before."""

    def __init__(self, events: SharedTarget | None) -> None:
        self.count = 0
        self._events = events
        self._until: float | None = None  # time.monotonic()

    def mind(self) -> None:
        """Switch the events on again if it is time to. Right before a look, which shows the model what it missed."""
        target, now = self._events, time.monotonic()
        if target is None or not target.paused:
            return
        if self._until is None:
            self._until = now + min(PAUSE * 2.0**self.count, LONGEST_PAUSE)
            self.count += 1
        elif now >= self._until:
            self._until = None
            target.resume()
