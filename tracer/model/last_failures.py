"""The last system calls by which a process asked for memory in vain: what often comes just before its end."""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import table
from gomem.tracer.model.callers import Callers
from gomem.tracer.report import FailedCall

MOST = 8
# madvise asks for no memory, and runtimes try advice that older kernels refuse.
_ASKING = table(EventKind.MMAP, EventKind.MREMAP, EventKind.MPROTECT, EventKind.BRK)
_SIZE_AT = {EventKind.MMAP: 1, EventKind.MREMAP: 2, EventKind.MPROTECT: 1}  # the argument that says how much


@dataclass(frozen=True, slots=True)
class _Failure:
    time: int
    call: str
    error: str
    size: int | None
    chain: int


class LastFailures:
    """Keeps the last MOST failed calls that asked for memory."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._kept: deque[_Failure] = deque(maxlen=MOST)

    def feed(self, batch: EventBatch, failed: NDArray[np.bool_]) -> None:
        """Take the next events; `failed` is per event."""
        rows = (failed & _ASKING[batch["kind"]]).nonzero()[0][-MOST:]
        if not len(rows):
            return
        for row, chain in zip(rows.tolist(), self._callers.label(batch, rows).tolist(), strict=True):
            event = batch[row]
            kind = EventKind(int(event["kind"]))
            size = int(event["args"][_SIZE_AT[kind]]) if kind in _SIZE_AT else None
            self._kept.append(_Failure(int(event["time"]), kind.name.lower(), error_name(event["result"]), size, chain))

    def before(self, end: int) -> list[FailedCall]:
        """Return the calls in the order of time, as seconds before `end` (CLOCK_MONOTONIC ns)."""
        rows = []
        for failure in sorted(self._kept, key=lambda failure: failure.time):
            chain = self._callers.chains[failure.chain]
            seconds = max(end - failure.time, 0) / 1e9
            rows.append(
                FailedCall(seconds, failure.call, failure.error, failure.size, chain.function, list(chain.callers))
            )
        return rows


def error_name(result: np.int64) -> str:
    """Return the errno of a failed call by its name; brk does not return one, and can only mean ENOMEM."""
    number = int(result)
    return errno.errorcode.get(-number, "ENOMEM" if number >= 0 else f"errno {-number}")
