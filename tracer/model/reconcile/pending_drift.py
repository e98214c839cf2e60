"""Differences between a look and the model that are not drift yet: they may be calls that have not ended.

A probe fires before the runtime function does its work, and a system call is told at its end. In between the kernel may
preempt the thread: for milliseconds on a busy machine, for longer in a cgroup that has used up its CPU quota. So a
difference is pending at first. It is drift when several looks show it, and none when a late call explains it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from gomem.tracer.addresses.interval_map import IntervalMap, Piece
from gomem.tracer.addresses.ranges import Ranges, normalise
from gomem.tracer.addresses.work import Work
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import table
from gomem.tracer.model.mappings import ADDRESS_SPACE
from gomem.tracer.model.reconcile.drift import Row, bytes_of, common, divide

PROVEN_BY = 3  # looks in a row that show the same difference in bytes that no event touched
_MOST_RECORDED = 1 << 18  # changes between two looks; behind more of them nothing is suspected any longer
_MOST_CHARGES = 1000
_FOR_EACH_CHARGE = 200  # steps of work for a call that is late
_PAGE = 4096
_CALLS = table(EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.MPROTECT)

Values = NDArray[np.int64]


class ComparedMap(Struct):
    """One of the two maps that are compared with looks: mappings or states, with its differences so far."""

    map: Callable[[], IntervalMap]
    shown: Callable[[Values], Values]
    unknown: int
    # What the last look showed first, what the last two showed, and so on.
    suspects: list[list[Row]] = field(default_factory=lambda: [[] for _ in range(PROVEN_BY - 1)])
    since: list[Piece] = field(default_factory=list)  # what changed between the last two looks, with suspects
    lossy: int = 0  # comparisons that still are to mend what a loss did

    @property
    def suspicious(self) -> bool:
        """Whether there is something that another look would clear up."""
        return any(self.suspects) or self.lossy == 1

    def begin_recording(self) -> None:
        """Record changes from now on, for a comparison."""
        steps = self.map()
        self.since = steps.recording or []
        steps.recording = []

    def end_recording(self) -> None:
        """End that; go on recording what happens to suspects."""
        self.since = []
        self.map().recording = [] if any(self.suspects) else None

    def bound_recording(self) -> None:
        """Give up suspects if too much happens until the next look."""
        steps = self.map()
        if steps.recording is not None and len(steps.recording) > _MOST_RECORDED:
            self.suspect_nothing()
            steps.recording = None

    def recorded(self) -> list[Piece]:
        """Return the recorded changes, of their values what is shown."""
        changed = self.map().recording or []
        values = self.shown(np.array([value for _, _, value in changed], np.int64)).tolist()
        return [(start, end, value) for (start, end, _), value in zip(changed, values, strict=True)]

    def touched(self) -> Ranges:
        """Return where there were changes since recording began."""
        return _ranges([piece[:2] for piece in self.map().recording or []])

    def proven(self, drift: list[Row]) -> list[Row]:
        """Return what of the next look's differences is proven to be wrong; suspect the rest."""
        if self.lossy:
            self.suspect_nothing()
            return drift
        touched = _ranges([piece[:2] for piece in (*self.since, *(self.map().recording or []))])
        lasting: list[list[Row]] = []
        for rows in reversed(self.suspects):
            again = common(divide(rows, touched)[1], drift)
            drift = divide(drift, _ranges([row[:2] for row in again]))[1]
            lasting.append(again)
        self.suspects = [drift, *reversed(lasting[1:])]
        return lasting[0]

    def suspect_nothing(self) -> None:
        """Forget the suspects."""
        self.suspects = [[] for _ in self.suspects]


class PendingDrift(Struct):
    """The differences between mappings that were proven, until a late call explains them.

    A munmap of much memory takes the mapping away at its beginning and then works on, for seconds: looks show what no
    event has told yet.
    """

    charged: list[tuple[int, Row]] = field(default_factory=list)  # (when the look that first had it ended, row)
    work: Work = field(default_factory=Work)

    def add(self, time: int, rows: list[Row]) -> None:
        """Charge the model with `rows`, which were first seen at `time`."""
        self.charged += [(time, row) for row in rows[: _MOST_CHARGES - len(self.charged)]]

    def explained(self, batch: EventBatch) -> int:
        """Return how many bytes the calls of a batch explain that had begun when those were seen."""
        if not self.charged:
            return 0
        last = np.uint64(max(time for time, _ in self.charged))
        late = _CALLS[batch["kind"]] & (batch["entered"] <= last) & (batch["result"] >= 0)
        before = bytes_of(row for _, row in self.charged)
        for call in batch[late]:
            self.work.add(_FOR_EACH_CHARGE * len(self.charged))
            ranges = _ranges(_places(call))
            left: list[tuple[int, Row]] = []
            for time, row in self.charged:
                rows = divide([row], ranges)[1] if int(call["entered"]) <= time else [row]
                left += [(time, rest) for rest in rows]
            self.charged = left
        return before - bytes_of(row for _, row in self.charged)


def _places(call: np.void) -> list[tuple[int, int]]:
    """Return where a call changes mappings, (start, end)."""
    first, size, new_size = (int(word) for word in call["args"][:3])
    if call["kind"] == EventKind.MMAP:
        return [_place(int(call["result"]), size)]
    if call["kind"] == EventKind.MREMAP:
        return [_place(first, size), _place(int(call["result"]), new_size)]
    return [_place(first, size)]


def _place(start: int, size: int) -> tuple[int, int]:
    return min(start, ADDRESS_SPACE), min(start + size + _PAGE - 1 & -_PAGE, ADDRESS_SPACE)


def _ranges(ranges: list[tuple[int, int]]) -> Ranges:
    return normalise([start for start, _ in ranges], [end for _, end in ranges])
