"""From when until when something was watched for that is watched for within a budget only (bpf/governor.py)."""

from __future__ import annotations

from collections import deque

_MOST_WINDOWS = 10_000


class Windows:
    """The windows; times in CLOCK_MONOTONIC ns."""

    def __init__(self) -> None:
        self.count = 0
        self.stops = 0  # of them, how many were ended because the budget was spent
        self.budget = 0.0  # share of the target's time
        self.since: int | None = None  # the one that is open
        self._ended = 0
        self._last: deque[tuple[int, int]] = deque(maxlen=_MOST_WINDOWS)

    def begin(self, time: int, budget_ppm: int) -> None:
        """Open a window."""
        self.end(time, stopped=False)
        self.count += 1
        self.since, self.budget = time, budget_ppm / 1e6

    def end(self, time: int, *, stopped: bool) -> None:
        """Close it."""
        if self.since is not None:
            self.stops += stopped
            self._ended += max(time - self.since, 0)
            self._last.append((self.since, time))
            self.since = None

    def watched(self, until: int) -> int:
        """Return the ns in all windows until then."""
        return self._ended + (max(until - self.since, 0) if self.since is not None else 0)

    def share(self, start: int, end: int) -> float:
        """Return which part of a stretch of time the last windows cover."""
        windows = [*self._last, *([(self.since, end)] if self.since is not None else [])]
        covered = sum(max(min(high, end) - max(low, start), 0) for low, high in windows)
        return min(covered / (end - start), 1.0) if end > start else 0.0
