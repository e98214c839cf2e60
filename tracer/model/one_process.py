"""Whether the calls of a log can all be of one address space."""

from __future__ import annotations

import numpy as np

from gomem.tracer.addresses.interval_map import IntervalMap
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.sizes import failed_calls

_FIXED = 0x10
_SPACE = 1 << 57
_MOST = 1000


class OneProcess:
    """Looks for mappings that the kernel chose where another one was: it does so only in another address space.

    `contradictions` are their times and ranges. An munmap that was under way when the mapping came explains it.
    """

    def __init__(self, os_page: int) -> None:
        self.contradictions: list[tuple[int, int, int]] = []
        self._page = os_page
        self._mapped = IntervalMap(0)

    def feed(self, batch: EventBatch) -> None:
        """Take the next events, in order of time."""
        some = np.isin(
            batch["kind"], (EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.EXEC)
        ) & ~failed_calls(batch)
        columns = [batch[name][some].tolist() for name in ("kind", "entered", "time", "args", "result")]
        for kind, entered, time, args, result in zip(*columns, strict=True):
            if kind == EventKind.EXEC:
                self._mapped = IntervalMap(0)
            elif kind == EventKind.MMAP:
                self._map(time, result, args[1], chosen=not args[3] & _FIXED)
            else:
                self._unmap(entered, args[0], args[1])
                if kind == EventKind.MREMAP:
                    self._map(time, result, args[2], chosen=False)

    def _map(self, time: int, low: int, size: int, *, chosen: bool) -> None:
        high = low + (size + self._page - 1 & -self._page)
        if not 0 <= low < high <= _SPACE:
            return
        if any(self._mapped.assign(low, high, 1)) and chosen and len(self.contradictions) < _MOST:
            self.contradictions.append((time, low, high))

    def _unmap(self, entered: int, low: int, size: int) -> None:
        high = low + (size + self._page - 1 & -self._page)
        if not 0 <= low < high <= _SPACE:
            return
        self._mapped.assign(low, high, 0)
        self.contradictions = [
            (time, start, end)
            for time, start, end in self.contradictions
            if not (entered < time and start < high and low < end)
        ]
