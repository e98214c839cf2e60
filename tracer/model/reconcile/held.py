"""Events that are held until those of other CPUs that happened before them must have arrived, in order of time."""

from __future__ import annotations

import numpy as np

from gomem.tracer.addresses.work import Work
from gomem.tracer.events.record import EventBatch, no_events
from gomem.tracer.model.batches import joined, picked

_NOTHING_HELD = 1 << 64


class Held:
    """Takes batches as they arrive, and gives events out by time; all times in CLOCK_MONOTONIC ns."""

    def __init__(self, work: Work) -> None:
        """`work` counts the events that are gone through again and again."""
        self._work = work
        self._events = no_events()  # in order of time
        self._arrived: list[EventBatch] = []  # held, too, and not joined with the others yet
        self._earliest = _NOTHING_HELD  # time of the first of all that is held

    def put(self, batch: EventBatch) -> None:
        """Hold a batch that is not empty."""
        self._arrived.append(batch)
        self._earliest = min(self._earliest, int(batch["time"].min()))

    def taken(self, until: int) -> EventBatch:
        """Return what happened until a moment, and hold it no longer."""
        if max(until, 0) < self._earliest:
            return no_events()
        self._gather()
        count = int(np.searchsorted(self._events["time"], np.uint64(max(until, 0)), side="right"))
        batch, self._events = self._events[:count], self._events[count:].copy()
        self._work.add(len(self._events))
        self._earliest = int(self._events["time"][0]) if len(self._events) else _NOTHING_HELD
        return batch

    def last_that_began(self, until: int) -> int:
        """Return when the last call ended that began before `until`; at least `until`."""
        self._gather()
        began = np.where(self._events["entered"] > 0, self._events["entered"], self._events["time"])
        return int(np.max(self._events["time"][began <= np.uint64(until)], initial=until))

    def _gather(self) -> None:
        """Join what is held with what has arrived since, in order of time: once, however many batches that were."""
        if not self._arrived:
            return
        self._work.add(len(self._events))
        self._events = joined([*([self._events] if len(self._events) else []), *self._arrived])
        self._arrived = []
        times = self._events["time"]
        if (times[1:] < times[:-1]).any():
            self._events = picked(self._events, np.argsort(times, kind="stable"))
