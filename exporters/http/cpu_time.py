"""The CPU time of the server's threads, which is not that of looks at processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CpuTime:
    """Adds up what threads use: one for as long as it lives, others for the calls that they are given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = 0.0
        self._clock: int | None = None

    def begin(self) -> None:
        """Count all that the calling thread uses, until it calls `end`."""
        self._clock = time.pthread_getcpuclockid(threading.get_ident())

    def end(self) -> None:
        """Count that thread for the last time."""
        self._clock = None
        self._add(time.thread_time())

    def of(self, call: Callable[P, T], *args: P.args, **kw: P.kwargs) -> T:
        """Call, and count what that uses."""
        began = time.thread_time()
        try:
            return call(*args, **kw)
        finally:
            self._add(time.thread_time() - began)

    def seconds(self) -> float:
        """Return what was used so far. Safe from any thread."""
        clock = self._clock
        try:
            running = time.clock_gettime(clock) if clock is not None else 0.0
        except OSError:  # it has ended
            running = 0.0
        with self._lock:
            return self._spent + running

    def _add(self, seconds: float) -> None:
        with self._lock:
            self._spent += seconds
