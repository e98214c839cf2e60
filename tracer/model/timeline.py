"""What happened between one GC cycle and the next: bytes scavenged, spans handed out and taken back.

A cycle's period lasts from its start to the start of the next one: it marks, then the spans that it found empty are
swept while the program runs on.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from msgspec import Struct, field

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import rows_among, table
from gomem.tracer.model.gc_cycles import MOST_CYCLES
from gomem.tracer.model.sizes import grouped_sums
from gomem.tracer.model.span_events import PAGE_SHIFT

_COUNTED = tuple(table(kind) for kind in (EventKind.UNUSED, EventKind.SPAN_ALLOC, EventKind.SPAN_FREE))
_BORDERS = table(EventKind.GC_START, EventKind.GC_DONE)


class Period(Struct):
    """One cycle and the time until the next. Times in CLOCK_MONOTONIC ns.

    `begun`: its start, or where that was not seen, its end; `until`: the next one's start, None for the last.
    """

    begun: int
    until: int | None = None
    scavenged: list[int] = field(default_factory=lambda: [0, 0])  # bytes, during the cycle and after it
    spans: list[int] = field(default_factory=lambda: [0, 0])  # allocated, freed
    pages: list[int] = field(default_factory=lambda: [0, 0])


class Timeline:
    """Divides what happens among the cycles; feed it batches in order of time."""

    def __init__(self, most: int = MOST_CYCLES) -> None:
        self._periods: deque[Period] = deque(maxlen=most + 1)
        self._marking = False

    def periods(self) -> dict[int, Period]:
        """Return the last periods by the moment they began."""
        return {period.begun: period for period in self._periods}

    def feed(self, batch: EventBatch) -> None:
        """Take the next events."""
        kinds = batch["kind"]
        borders = rows_among(batch, _BORDERS)
        counted = [rows_among(batch, one) for one in _COUNTED]
        segments = [np.searchsorted(borders, rows).astype(np.intp) for rows in counted]
        amounts = [batch["args"][rows, 1] for rows in counted]
        amounts[1:] = [size >> PAGE_SHIFT for size in amounts[1:]]
        sizes = [
            grouped_sums(segment, amount, len(borders) + 1) for segment, amount in zip(segments, amounts, strict=True)
        ]
        counts = [np.bincount(segment, minlength=len(borders) + 1).tolist() for segment in segments]
        for at in range(len(borders) + 1):
            if at:
                border = borders[at - 1]
                self._turn(int(kinds[border]), int(batch["time"][border]))
            if self._periods:
                self._add(self._periods[-1], [size[at] for size in sizes], [count[at] for count in counts])

    def _turn(self, kind: int, time: int) -> None:
        if kind == EventKind.GC_START:
            self._begin(time)
            self._marking = True
            return
        if not self._marking:
            self._begin(time)
        self._marking = False

    def _begin(self, time: int) -> None:
        if self._periods:
            self._periods[-1].until = time
        self._periods.append(Period(time))

    def _add(self, period: Period, sizes: list[int], counts: list[int]) -> None:
        """Add bytes that were scavenged and pages of spans, and the numbers of events of each kind."""
        period.scavenged[0 if self._marking else 1] += sizes[0]
        for at in (0, 1):
            period.spans[at] += counts[at + 1]
            period.pages[at] += sizes[at + 1]
