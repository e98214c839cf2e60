"""When to look at which process, and when to scan all of them. Times are of time.monotonic()."""

from __future__ import annotations

import time

MOST_PENDING = 16384  # processes; beyond that a scan does for all


class Timetable:
    """The processes that are to be looked at later, and the next scan."""

    def __init__(self, scan_every: float) -> None:
        """`scan_every`: seconds between two scans at the least."""
        self.scan_every = scan_every
        self._pending: dict[int, float] = {}
        self._next_scan = 0.0
        self._last_scan = 0.0

    def __contains__(self, pid: int) -> bool:
        """Tell whether a process is to be looked at later."""
        return pid in self._pending

    def __len__(self) -> int:
        """Return how many are."""
        return len(self._pending)

    @property
    def next(self) -> float:
        """When there is something to do."""
        return min([self._next_scan, *self._pending.values()])

    def later(self, pid: int, seconds: float) -> None:
        """Look at a process in so many seconds; with a scan, if too many wait."""
        if len(self._pending) < MOST_PENDING:
            self._pending[pid] = time.monotonic() + seconds
        else:
            self.scan_soon()

    def at_once(self, pid: int, now: float) -> None:
        """Look at a process now. Only for those that are known, who are not too many."""
        self._pending[pid] = now

    def due(self, now: float) -> list[int]:
        """Return the processes to look at now; it is noted that this is done."""
        due = [pid for pid, when in self._pending.items() if when <= now]
        for pid in due:
            del self._pending[pid]
        return due

    def scan_at_once(self, now: float) -> None:
        """Have the next scan come now."""
        self._next_scan = now

    def scan_soon(self) -> None:
        """Have the next scan come as soon as their distance permits."""
        self._next_scan = min(self._next_scan, max(self._last_scan + self.scan_every, time.monotonic()))

    def scan_is_due(self, now: float, gap: float) -> bool:
        """Tell whether to scan now; if so, the next one comes in `gap` seconds."""
        if now < self._next_scan:
            return False
        self._last_scan, self._next_scan = now, now + gap
        return True
