"""The memory system calls that failed: all of them in sums, and the last that asked for memory, one by one.

What a process asked for in vain often comes just before its end.
"""

from __future__ import annotations

import errno
from collections import deque

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import table
from gomem.tracer.model.callers import NO_CHAIN, Callers, Chain
from gomem.tracer.model.mapping_callers import asker
from gomem.tracer.report import FailedCall, FailedCalls

MOST = 8
MOST_GROUPS = 64
# madvise asks for no memory, and runtimes try advice that older kernels refuse.
_ASKING = table(EventKind.MMAP, EventKind.MREMAP, EventKind.MPROTECT, EventKind.BRK)
_CALLS = table(
    EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.MPROTECT, EventKind.MADVISE, EventKind.BRK
)  # fmt: skip
_SIZE_AT = {  # the argument that says how much
    EventKind.MMAP: 1, EventKind.MUNMAP: 1, EventKind.MREMAP: 2, EventKind.MPROTECT: 1, EventKind.MADVISE: 1,
}  # fmt: skip
_SIZE_COLUMN = np.zeros(256, np.intp)
for _kind, _column in _SIZE_AT.items():
    _SIZE_COLUMN[_kind] = _column


class _Failure(Struct, frozen=True):
    time: int
    call: str
    error: str
    size: int | None
    chain: int


class _Group(Struct):
    count: int = 0
    bytes: int = 0
    largest: int = 0
    last: int = 0


class LastFailures:
    """Keeps the last MOST failed calls that asked for memory, and sums of MOST_GROUPS groups of all that failed."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._kept: deque[_Failure] = deque(maxlen=MOST)
        self._groups: dict[tuple[EventKind, str, Chain], _Group] = {}

    def feed(self, batch: EventBatch, failed: NDArray[np.bool_]) -> None:
        """Take the next events; `failed` is per event."""
        self._sum(batch, (failed & _CALLS[batch["kind"]]).nonzero()[0])
        rows = (failed & _ASKING[batch["kind"]]).nonzero()[0][-MOST:]
        if not len(rows):
            return
        for row, chain in zip(rows.tolist(), self._callers.label(batch, rows).tolist(), strict=True):
            event = batch[row]
            kind = EventKind(int(event["kind"]))
            size = int(event["args"][_SIZE_AT[kind]]) if kind in _SIZE_AT else None
            self._kept.append(_Failure(int(event["time"]), kind.name.lower(), error_name(event["result"]), size, chain))

    def _sum(self, batch: EventBatch, rows: NDArray[np.intp]) -> None:
        if not len(rows):
            return
        events = batch[rows]
        kinds, results = events["kind"].astype(np.int64), events["result"].astype(np.int64)
        sizes = events["args"][np.arange(len(rows)), _SIZE_COLUMN[events["kind"]]]
        keys = np.stack([kinds, results, self._callers.label(batch, rows)], axis=1)
        alike, which = np.unique(keys, axis=0, return_inverse=True)
        for at, (kind, result, chain) in enumerate(alike.tolist()):
            mine = which.reshape(-1) == at
            key = EventKind(kind), error_name(np.int64(result)), self._callers.chains[chain]
            if key not in self._groups and len(self._groups) >= MOST_GROUPS:
                key = (*key[:2], NO_CHAIN)
            group = self._groups.setdefault(key, _Group())
            group.count += int(mine.sum())
            group.bytes += sum(sizes[mine].tolist())
            group.largest = max(group.largest, int(sizes[mine].max()))
            group.last = max(group.last, int(events["time"][mine].max()))

    def groups(self, end: int) -> list[FailedCalls]:
        """Return all that failed, by call, errno and callers, most first; the last as seconds before `end`."""
        found = sorted(self._groups.items(), key=lambda item: -item[1].count)
        return [
            FailedCalls(
                kind.name.lower(), error, group.count, group.bytes if kind in _SIZE_AT else None,
                group.largest if kind in _SIZE_AT else None, asker(chain),
                list(chain.callers), max(end - group.last, 0) / 1e9,
            )
            for (kind, error, chain), group in found
        ]  # fmt: skip

    def before(self, end: int) -> list[FailedCall]:
        """Return the calls in the order of time, as seconds before `end` (CLOCK_MONOTONIC ns)."""
        rows = []
        for failure in sorted(self._kept, key=lambda failure: failure.time):
            chain = self._callers.chains[failure.chain]
            seconds = max(end - failure.time, 0) / 1e9
            rows.append(
                FailedCall(seconds, failure.call, failure.error, failure.size, asker(chain), list(chain.callers))
            )
        return rows


def error_name(result: np.int64) -> str:
    """Return the errno of a failed call by its name; brk does not return one, and can only mean ENOMEM."""
    number = int(result)
    return errno.errorcode.get(-number, "ENOMEM" if number >= 0 else f"errno {-number}")
