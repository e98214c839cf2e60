"""Which system call a runtime role made: the join of role events with the syscalls that follow them.

The runtime asks for memory by a function (the role is hit with what it asks for) and the same thread
then makes the system call, whose result is what it got. So: a syscall explains the last role of its
thread if it was entered after the hit, before the thread's next role, with the same address and length.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events
from gomem.tracer.model.batches import table

_BY_MMAP = table(EventKind.RESERVE, EventKind.MAP, EventKind.ALLOC, EventKind.FAULT, EventKind.USED, EventKind.UNUSED)
_CALLS = table(EventKind.MMAP, EventKind.MUNMAP)
_MMAP, _MUNMAP, _FREE = int(EventKind.MMAP), int(EventKind.MUNMAP), int(EventKind.FREE)
_FIRST_ROLE, _FIRST_FREQUENT_ROLE = int(EventKind.RESERVE), int(EventKind.MALLOCGC)
_COMPARED = ("tid", "kind", "time", "entered")

MAX_WAITING = 1 << 14  # threads; those hit longest ago are dropped first


class Explained(Struct, frozen=True):
    """Roles and the syscalls that they made: parallel, in no particular order.

    `tickets` number the role events over all batches (-1 in `assigned` for events that are no roles);
    `rows` are the positions of the syscalls in the batch that was fed.
    """

    roles: EventBatch
    tickets: NDArray[np.int64]
    rows: NDArray[np.intp]
    assigned: NDArray[np.int64]  # one per event of the batch


class RoleJoin:
    """Joins batch after batch; the last role of each thread waits for its syscall in the next batch."""

    def __init__(self) -> None:
        self._waiting = no_events()
        self._waiting_tickets = np.zeros(0, dtype=np.int64)
        self._next_ticket = 0

    @property
    def waiting(self) -> int:
        """How many threads' roles wait; each batch goes through them."""
        return len(self._waiting)

    def feed(self, batch: EventBatch) -> Explained:
        """Return the roles that this batch's syscalls explain."""
        kinds = batch["kind"]
        is_role = (kinds >= _FIRST_ROLE) & (kinds < _FIRST_FREQUENT_ROLE)
        assigned = np.full(len(batch), -1, dtype=np.int64)
        hits = int(np.count_nonzero(is_role))
        assigned[is_role] = np.arange(self._next_ticket, self._next_ticket + hits)
        self._next_ticket += hits
        if not hits and not len(self._waiting):
            return Explained(no_events(), np.zeros(0, np.int64), np.zeros(0, np.intp), assigned)

        picked = (is_role | _CALLS[kinds]).nonzero()[0]
        waiting = len(self._waiting)
        # Columns, not records: a record is 220 bytes, and most of it is stack.
        columns = {name: np.concatenate([self._waiting[name], batch[name][picked]]) for name in _COMPARED}
        columns["args"] = np.concatenate([self._waiting["args"][:, :2], batch["args"][picked, :2]])
        columns["ticket"] = np.concatenate([self._waiting_tickets, assigned[picked]])
        order = np.lexsort((columns["time"], columns["tid"]))
        sorted_columns = {name: column[order] for name, column in columns.items()}
        sources = np.concatenate([np.arange(-waiting, 0), picked])[order]  # negative: waited since earlier

        first = np.flatnonzero(_matches(sorted_columns))
        tickets = sorted_columns["ticket"]
        roles = self._records(sources[first], batch)
        last_of_thread = np.append(sorted_columns["tid"][:-1] != sorted_columns["tid"][1:], True)
        keep = np.flatnonzero(last_of_thread & (tickets >= 0))
        keep = keep[np.argsort(tickets[keep])][-MAX_WAITING:]
        self._waiting, self._waiting_tickets = self._records(sources[keep], batch), tickets[keep]
        return Explained(roles, tickets[first], sources[first + 1], assigned)

    def _records(self, sources: NDArray[np.intp], batch: EventBatch) -> EventBatch:
        records = np.zeros(len(sources), dtype=EVENT)
        earlier = sources < 0
        records[earlier] = self._waiting[sources[earlier]]
        records[~earlier] = batch[sources[~earlier]]
        return records


def _matches(columns: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Tell for each event but the last whether it is a role that the event after it explains."""
    role = {name: column[:-1] for name, column in columns.items()}
    call = {name: column[1:] for name, column in columns.items()}
    by_mmap = _BY_MMAP[role["kind"]] & (call["kind"] == _MMAP)
    by_munmap = (role["kind"] == _FREE) & (call["kind"] == _MUNMAP)
    matched: NDArray[np.bool_] = (
        (role["ticket"] >= 0)
        & (call["ticket"] < 0)
        & (role["tid"] == call["tid"])
        & (by_mmap | by_munmap)
        & (call["entered"] >= role["time"])
        & (role["args"] == call["args"]).all(axis=1)
    )
    return matched
