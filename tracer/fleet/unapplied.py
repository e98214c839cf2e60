"""Events of one process that its model has not got yet, and whether it should."""

from __future__ import annotations

import numpy as np

from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.watch.plugins import maps_code

MOST_UNAPPLIED = 1024  # events, 200 kB


class Unapplied:
    """Keeps events: a batch costs the model more than the events in it. `ended`: it exited or executed a program."""

    def __init__(self, may_map_plugins: bool) -> None:
        self.ended = False
        self.until = 0  # all that happened before then has been put here, CLOCK_MONOTONIC ns
        self.plugin_mapped = False  # perhaps
        self._may_map_plugins = may_map_plugins
        self._batches: list[EventBatch] = []
        self._events = 0  # in these: asked for at each turn, by each process

    @property
    def are_many(self) -> bool:
        """Whether the model should have them."""
        return self._events >= MOST_UNAPPLIED

    def put(self, batch: EventBatch, until: int) -> None:
        """Take the next events, up to the process's end or its next program; for `until` see the attribute."""
        ends = ((batch["kind"] == EventKind.EXEC) | (batch["kind"] == EventKind.EXIT)).nonzero()[0]
        if len(ends):
            batch, self.ended = batch[: ends[0]], True
        if len(batch):
            self._batches.append(batch)
            self._events += len(batch)
            self.plugin_mapped |= self._may_map_plugins and bool(maps_code(batch).any())
        self.until = until

    def taken(self) -> EventBatch:
        """Return all of them, and keep none."""
        batches, self._batches, self._events = self._batches, [], 0
        return np.concatenate(batches) if len(batches) > 1 else (batches or [no_events()])[0]
