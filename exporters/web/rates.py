"""How often, and for how much CPU time, things may happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]


class TokenBucket:
    """`burst` at once, `rate` a second in the long run. Not safe from several threads."""

    def __init__(self, burst: float, rate: float, clock: Clock = time.monotonic) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    def ready(self) -> bool:
        """Whether there is one to take."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens >= 1

    def take(self) -> bool:
        """Take one if there is one."""
        if not self.ready():
            return False
        self._tokens -= 1
        return True

    def seconds_to_next(self) -> float:
        """Return how long to wait for the next one."""
        return 0.0 if self.ready() else (1 - self._tokens) / self._rate


class CpuBudget:
    """`burst` seconds of CPU time at once, a share of `rate` of one CPU in the long run. Safe from several threads."""

    def __init__(self, burst: float, rate: float, clock: Clock = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._left = burst
        self._at = clock()

    def is_open(self) -> bool:
        """Whether anything is left. What is begun then may overdraw it, and delays what comes after."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            return self._left > 0

    def spend(self, seconds: float) -> None:
        """Take what something did cost."""
        with self._lock:
            self._left -= seconds
