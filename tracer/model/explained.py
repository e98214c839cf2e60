"""Which system call a runtime role made: the join of role events with the syscalls that follow them.

The runtime asks for memory by a function (the role is hit with what it asks for) and the same thread
then makes the system call, whose result is what it got. So: a syscall explains the last role of its
thread if it was entered after the hit, before the thread's next role, with the same address and length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracer.events import EventBatch, Kind, no_events

_BY_MMAP = (Kind.RESERVE, Kind.MAP, Kind.ALLOC, Kind.FAULT, Kind.USED, Kind.UNUSED)
_SYSCALLS = (Kind.MMAP, Kind.MUNMAP)


@dataclass(frozen=True, slots=True)
class Explained:
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

    def feed(self, batch: EventBatch) -> Explained:
        """Return the roles that this batch's syscalls explain."""
        kinds = batch["kind"]
        is_role = (kinds >= Kind.RESERVE) & (kinds != Kind.MALLOCGC)
        assigned = np.full(len(batch), -1, dtype=np.int64)
        roles = int(np.count_nonzero(is_role))
        assigned[is_role] = np.arange(self._next_ticket, self._next_ticket + roles)
        self._next_ticket += roles
        if not roles and not len(self._waiting):
            return Explained(no_events(), np.zeros(0, np.int64), np.zeros(0, np.intp), assigned)

        picked = np.flatnonzero(is_role | np.isin(kinds, _SYSCALLS))
        waiting = len(self._waiting)
        events = np.concatenate([self._waiting, batch[picked]])
        tickets = np.concatenate([self._waiting_tickets, assigned[picked]])
        rows = np.concatenate([np.full(waiting, -1, dtype=np.intp), picked])
        order = np.lexsort((events["time"], events["tid"]))
        events, tickets, rows = events[order], tickets[order], rows[order]

        matched = _matches(events[:-1], events[1:], tickets[:-1], tickets[1:])
        first = np.flatnonzero(matched)
        self._keep_waiting(events, tickets)
        return Explained(events[first], tickets[first], rows[first + 1], assigned)

    def _keep_waiting(self, events: EventBatch, tickets: NDArray[np.int64]) -> None:
        last_of_thread = np.ones(len(events), dtype=bool)
        last_of_thread[:-1] = events["tid"][:-1] != events["tid"][1:]
        keep = last_of_thread & (tickets >= 0)
        self._waiting, self._waiting_tickets = events[keep], tickets[keep]


def _matches(
    role: EventBatch, call: EventBatch, role_ticket: NDArray[np.int64], call_ticket: NDArray[np.int64]
) -> NDArray[np.bool_]:
    by_mmap = np.isin(role["kind"], _BY_MMAP) & (call["kind"] == Kind.MMAP)
    by_munmap = (role["kind"] == Kind.FREE) & (call["kind"] == Kind.MUNMAP)
    matched: NDArray[np.bool_] = (
        (role_ticket >= 0)
        & (call_ticket < 0)
        & (role["tid"] == call["tid"])
        & (by_mmap | by_munmap)
        & (call["entered"] >= role["time"])
        & (role["args"][:, 0] == call["args"][:, 0])
        & (role["args"][:, 1] == call["args"][:, 1])
    )
    return matched
