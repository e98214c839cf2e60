"""What a launched child does before it is the program: no event of the program's."""

from __future__ import annotations

import numpy as np

from gomem.tracer.events.record import EventBatch, EventKind


class AfterExec:
    """Drops what a launched child did before it became the program; the first EXEC event passes."""

    def __init__(self) -> None:
        self.seen = False

    def filter(self, batch: EventBatch) -> EventBatch:
        """Return the events from the first EXEC on."""
        if self.seen:
            return batch
        execs = np.flatnonzero(batch["kind"] == EventKind.EXEC)
        if not len(execs):
            return batch[:0]
        self.seen = True
        return batch[execs[0] :]
