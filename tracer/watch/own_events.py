"""What of a source's events is one program's: what the process did before it, and after it, is not."""

from __future__ import annotations

import numpy as np

from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.watch.from_exec import FromExec


class OwnEvents:
    """Sorts out the events of one program, from its exec, if it has just been launched, to the next exec."""

    def __init__(self, *, launched: bool) -> None:
        self.behind = no_events()  # what the process did after it executed the next program
        self.executed = False  # the next program
        self.ended_at: int | None = None  # when the process exited or executed the next program, CLOCK_MONOTONIC ns
        self._from_exec = FromExec() if launched else None

    def of(self, batch: EventBatch) -> EventBatch:
        """Return what of the next batch of the source is this program's."""
        if self._from_exec is not None:
            batch = self._from_exec(batch)
        if self.executed:
            own = 0
        else:
            execs = (batch["kind"] == EventKind.EXEC).nonzero()[0]
            self.executed = bool(len(execs))
            own = int(execs[0]) + 1 if len(execs) else len(batch)
            if own and batch["kind"][own - 1] in (EventKind.EXEC, EventKind.EXIT):
                self.ended_at = int(batch["time"][own - 1])
        if own < len(batch):
            self.behind = np.concatenate((self.behind, batch[own:]))
        return batch[:own]
