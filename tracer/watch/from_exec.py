"""What a launched command did before it became the program is not the program's."""

from __future__ import annotations

import numpy as np

from gomem.tracer.events.after_exec import AfterExec
from gomem.tracer.events.record import SPAN_MARKS, USED_MARKS, EventBatch, no_events

_ON = (SPAN_MARKS[0], USED_MARKS[0])


class FromExec:
    """Lets pass what a launched program did after it became the program, without that exec itself."""

    def __init__(self) -> None:
        self._after = AfterExec()
        self._marks = no_events()

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Return the events behind the first EXEC; what was being watched for by then is watched for from it on."""
        if self._after.seen:
            return batch
        after = self._after.filter(batch)
        before = batch[: len(batch) - len(after)]
        self._marks = np.concatenate((self._marks, before[np.isin(before["kind"], _ON)]))
        if not self._after.seen:
            return after
        last = self._marks[::-1][np.unique(self._marks["kind"][::-1], return_index=True)[1]]
        last["time"] = after["time"][0]
        return np.concatenate((last, after[1:]))
