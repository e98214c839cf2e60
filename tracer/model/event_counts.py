"""How many events of each kind there were, and of how many bytes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.madvise import advice_name
from gomem.tracer.events.record import RESIDENCY_KINDS, SPAN_MARKS, USED_MARKS, EventBatch, EventKind
from gomem.tracer.model.batches import rows_among, table
from gomem.tracer.model.sizes import grouped_sums
from gomem.tracer.report import EventCount

_MARKS = (*SPAN_MARKS, *USED_MARKS, EventKind.STATES_UNSEEN)
_NOT_COUNTED = (EventKind.EXEC, EventKind.EXIT, *RESIDENCY_KINDS, *_MARKS)
_COUNTED = tuple(kind for kind in EventKind if kind not in _NOT_COUNTED)
_MOST_KINDS = max(EventKind) + 2  # the last for kinds that a later gomem may know
_MADVISE, _EXEC = int(EventKind.MADVISE), int(EventKind.EXEC)
_BREAKS = table(EventKind.BRK, EventKind.EXEC)


class EventCounts:
    """Counts system calls and roles; for what bytes are see Activity."""

    def __init__(self, os_page: int) -> None:
        """Have no event yet. `os_page`: bytes."""
        self._os_page = os_page
        self._counts = [0] * _MOST_KINDS
        self._bytes = [0] * _MOST_KINDS
        self._failed = [0] * _MOST_KINDS
        self._madvise: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._break: int | None = None

    def events(self) -> dict[str, EventCount]:
        """Return counts by the names of syscalls and roles; those that did not happen are absent."""
        return {
            kind.name.lower(): EventCount(self._counts[kind], self._bytes[kind], self._failed[kind])
            for kind in _COUNTED
            if self._counts[kind] or self._failed[kind]
        }

    def madvise(self) -> dict[str, EventCount]:
        """Return the madvise calls by advice, in the order of the advice's number."""
        return {advice_name(advice): EventCount(*self._madvise[advice]) for advice in sorted(self._madvise)}

    def feed(
        self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_], present: frozenset[int]
    ) -> None:
        """Count events. `sizes`: their bytes; `present`: their kinds. Of brk calls both arrays get what is the case."""
        self._count_breaks(batch, sizes, failed)
        self._count(batch, sizes, failed, present)
        if _MADVISE in present:
            self._count_madvise(batch, sizes, failed)

    def take_back(self, kind: EventKind, size: int) -> None:
        """Count an event as failed that was counted with so many bytes."""
        self._counts[kind] -= 1
        self._failed[kind] += 1
        self._bytes[kind] -= size

    def _count(
        self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_], present: frozenset[int]
    ) -> None:
        kinds = np.minimum(batch["kind"], _MOST_KINDS - 1)
        known = sorted({min(kind, _MOST_KINDS - 1) for kind in present})
        counts = np.bincount(kinds, minlength=_MOST_KINDS)
        failures = np.bincount(kinds[failed], minlength=_MOST_KINDS)
        for kind, size in zip(known, grouped_sums(kinds, sizes, _MOST_KINDS, known), strict=True):
            self._counts[kind] += int(counts[kind] - failures[kind])
            self._failed[kind] += int(failures[kind])
            self._bytes[kind] += size

    def _count_breaks(self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_]) -> None:
        """Size the brk calls. They return the break, moved or not: one failed if that is not what was asked."""
        for row in rows_among(batch, _BREAKS).tolist():
            if batch["kind"][row] == _EXEC:
                self._break = None
                continue
            wanted, now = int(batch["args"][row, 0]), int(batch["result"][row])
            failed[row] = wanted not in (0, now)
            page = -self._os_page
            if self._break is not None:
                sizes[row] = abs((-(-now & page)) - (-(-self._break & page)))
            self._break = now

    def _count_madvise(self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_]) -> None:
        rows = (batch["kind"] == _MADVISE).nonzero()[0]
        advices, group = np.unique(batch["args"][rows, 2] & np.uint64(0xFFFFFFFF), return_inverse=True)
        totals = grouped_sums(group.reshape(-1), sizes[rows], len(advices))
        failures = np.bincount(group.reshape(-1), failed[rows], len(advices))
        for advice, count, size, lost in zip(advices, np.bincount(group.reshape(-1)), totals, failures, strict=True):
            entry = self._madvise[int(advice) if len(self._madvise) < 256 else 0xFFFFFFFF]
            entry[0] += int(count - lost)
            entry[1] += size
            entry[2] += int(lost)
