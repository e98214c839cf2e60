"""How much CPU time work may take that nobody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class CpuBudget:
    """`burst` seconds of CPU time at once, a share of `rate` of one CPU in the long run. Safe from several threads."""

    def __init__(self, burst: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._left = burst
        self._at = clock()

    def is_open(self, reserve: float = 0.0) -> bool:
        """Whether more than `reserve` is left: seconds that are for what is more urgent.

        What is begun then may overdraw it, and delays what comes after.
        """
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            return self._left > reserve

    def spend(self, seconds: float) -> None:
        """Take what something did cost."""
        with self._lock:
            self._left -= seconds
