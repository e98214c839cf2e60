"""Spans that came and went, by class; and for how much of the time anybody looked.

Span events are watched for within a budget, so there are windows between which nothing is known: what came and went
is counted in the windows alone, and nothing is made up for the time between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.events.record import SPAN_MARKS, SPAN_ROLES, EventBatch, EventKind
from gomem.tracer.model.batches import rows_among, table
from gomem.tracer.model.sizes import grouped_sums
from gomem.tracer.model.windows import Windows
from gomem.tracer.report import SpanChurnRow, SpanEvents

PAGE_SHIFT = np.uint64(13)
STACKS, WORK_BUFS = 256, 257  # rows behind those of the 256 values that a span class can have
_ROWS = 258
_USES: dict[int, Literal["stacks", "work_bufs"]] = {STACKS: "stacks", WORK_BUFS: "work_bufs"}
_STACK = 1  # spanAllocType in runtime/mheap.go: below it the heap, above it what differs by release
_SPAN_ALLOC, _SPAN_FREE, _PROBES_ON = int(EventKind.SPAN_ALLOC), int(EventKind.SPAN_FREE), int(EventKind.SPAN_PROBES_ON)
_OF_SPANS = table(*SPAN_ROLES)
_MARKS = table(*SPAN_MARKS)
_MOST_LIVING = 1 << 20


class _Lives(Struct):
    count: int = 0
    total: int = 0  # ns


class SpanChurn:
    """Sums up span events; feed it batches in order of time."""

    def __init__(self) -> None:
        self.windows = Windows()
        self._start = 0
        self._spans = np.zeros((2, _ROWS), object)  # allocated, freed
        self._pages = np.zeros((2, _ROWS), object)
        self._born: dict[int, int] = {}  # address: when
        self._lives = [_Lives() for _ in range(_ROWS)]

    def mark_start(self, time: int) -> None:
        """Set the moment (CLOCK_MONOTONIC ns) before which no watching counts."""
        self._start = time

    def feed(self, batch: EventBatch) -> None:
        """Take the next events."""
        kinds = batch["kind"]
        marks, rows = rows_among(batch, _MARKS), rows_among(batch, _OF_SPANS)
        begin = 0
        for mark in marks.tolist():
            end = int(np.searchsorted(rows, mark))
            self._count(batch, rows[begin:end])
            begin = end
            self._mark(int(kinds[mark]), int(batch["time"][mark]), int(batch["args"][mark, 0]))
        self._count(batch, rows[begin:])

    def section(self, until: int, seconds: float) -> SpanEvents | None:
        """Return the report's section, None if nobody watched for spans.

        `until`: the moment of the report, CLOCK_MONOTONIC ns; `seconds`: the whole time of watching.
        """
        if not self.windows.count:
            return None
        # The probes are still on for a moment after the watching has ended.
        watched = min(self.windows.watched(until) / 1e9, seconds)
        present = np.flatnonzero((self._spans != 0).any(axis=0)).tolist()
        allocated, freed = (int(row.sum()) for row in self._spans)
        allocated_pages, freed_pages = (int(row.sum()) for row in self._pages)
        return SpanEvents(
            watched_seconds=watched,
            watched_share=watched / seconds if seconds > 0 else 0.0,
            windows=self.windows.count,
            stops=self.windows.stops,
            budget=self.windows.budget,
            allocated=allocated,
            freed=freed,
            allocated_pages=allocated_pages,
            freed_pages=freed_pages,
            classes=[self._row(row) for row in present],
        )

    def _mark(self, kind: int, time: int, argument: int) -> None:
        if kind == _PROBES_ON:
            self.windows.begin(max(time, self._start), argument)
        else:
            self.windows.end(time, stopped=bool(argument))
            self._born.clear()

    def _count(self, batch: EventBatch, rows: NDArray[np.intp]) -> None:
        if not len(rows):
            return
        args = batch["args"][rows]
        group = rows_of(args)
        freed = batch["kind"][rows] == _SPAN_FREE
        for at, some in ((0, ~freed), (1, freed)):
            self._spans[at] += np.bincount(group[some], minlength=_ROWS).astype(object)
            pages = grouped_sums(group[some], args[some, 1] >> PAGE_SHIFT, _ROWS)
            self._pages[at] += np.array(pages, dtype=object)
        self._follow_lives(batch[rows], group)

    def _follow_lives(self, events: EventBatch, group: NDArray[np.intp]) -> None:
        born, lives = self._born, self._lives
        columns = (events["time"], events["args"][:, 0], group, events["kind"])
        for time, address, row, kind in zip(*(column.tolist() for column in columns), strict=True):
            if kind == _SPAN_ALLOC:
                if address and len(born) < _MOST_LIVING:
                    born[address] = time
            elif (since := born.pop(address, None)) is not None:
                lives[row].count += 1
                lives[row].total += max(time - since, 0)

    def _row(self, row: int) -> SpanChurnRow:
        lives = self._lives[row]
        of_heap = row not in _USES
        return SpanChurnRow(
            use=_USES.get(row, "heap"),
            span_class=row if of_heap else None,
            size_class=row >> 1 if of_heap else None,
            object_size=None,
            noscan=bool(row & 1) if of_heap else None,
            allocated=int(self._spans[0, row]),
            freed=int(self._spans[1, row]),
            allocated_pages=int(self._pages[0, row]),
            freed_pages=int(self._pages[1, row]),
            lives=lives.count,
            mean_life_seconds=lives.total / lives.count / 1e9 if lives.count else None,
        )


def with_object_sizes(section: SpanEvents, class_to_size: Sequence[int]) -> SpanEvents:
    """Return a section with the object size (bytes) of each size class that the runtime has."""
    sizes = dict(enumerate(class_to_size))
    classes = [
        row if row.size_class is None else replace(row, object_size=sizes.get(row.size_class))
        for row in section.classes
    ]
    return replace(section, classes=classes)


def rows_of(args: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return of the arguments of span events, shape (n, 6), to which row they belong: a span class, or a use."""
    kind = args[:, 3]
    rows = np.minimum(args[:, 2], np.uint64(255)).astype(np.intp)
    rows[kind == _STACK] = STACKS
    rows[kind > _STACK] = WORK_BUFS
    return rows
