"""The rare events one by one: what the runtime and the program took from and gave to the kernel."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import table
from gomem.tracer.model.callers import Callers
from gomem.tracer.model.explained import Explained
from gomem.tracer.model.last_failures import error_name
from gomem.tracer.report import LoggedEvent

DEFAULT_LOG = 1000

_ROLES = (
    EventKind.RESERVE,
    EventKind.MAP,
    EventKind.FAULT,
    EventKind.FREE,
    EventKind.ALLOC,
    EventKind.GROW,
    EventKind.ARENA,
)
_CALLS = (EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.BRK, EventKind.EXEC, EventKind.EXIT)
_ADDRESS_IS_RESULT = (EventKind.MMAP, EventKind.MREMAP, EventKind.BRK)
_ADDRESS_IS_ARGUMENT = (EventKind.MAP, EventKind.FAULT, EventKind.FREE, EventKind.MUNMAP)
_NO_SIZE = (EventKind.EXEC, EventKind.EXIT)
_RARE = table(*_ROLES, *_CALLS)
_BRK = int(EventKind.BRK)


class _Entry(Struct):
    time: int
    event: str
    address: int | None
    size: int | None
    chain: int


class EventLog:
    """Keeps the first `limit` rare events, or the `latest`; counts the others in `dropped`.

    Rare are the roles that move address space (reserve, map, fault, free, alloc, grow, arena), and the mmap,
    munmap, mremap and brk calls that no role explains, which are the program's own, C's or the loader's.
    A failed one carries its errno in the name. `start` is in CLOCK_MONOTONIC ns.
    """

    def __init__(self, callers: Callers, limit: int, *, latest: bool = False) -> None:
        self.start = 0
        self._latest = latest
        self.dropped = 0
        self._callers = callers
        self._limit = limit
        self._entries: list[_Entry] = []
        self._by_ticket: dict[int, _Entry] = {}

    def feed(
        self, batch: EventBatch, sizes: NDArray[np.uint64], failed: NDArray[np.bool_], explained: Explained
    ) -> None:
        """Log the rare events of a batch; `sizes` and `failed` are per event."""
        rare = _RARE[batch["kind"]]
        rare[explained.rows] = False
        rare[(batch["kind"] == _BRK) & (sizes == 0) & ~failed] = False  # only asked where the break is
        rows = rare.nonzero()[0]
        room = max(self._limit - len(self._entries), 0)
        self.dropped += max(len(rows) - room, 0)
        rows = rows[max(len(rows) - self._limit, 0) :] if self._latest else rows[:room]
        if self._latest:
            del self._entries[: max(len(self._entries) + len(rows) - self._limit, 0)]
        chains = self._callers.label(batch, rows)
        for row, chain in zip(rows.tolist(), chains.tolist(), strict=True):
            entry = _entry(batch, row, int(sizes[row]), bool(failed[row]), chain)
            self._entries.append(entry)
            if explained.assigned[row] >= 0:
                self._by_ticket[int(explained.assigned[row])] = entry
        for ticket, row in zip(explained.tickets.tolist(), explained.rows.tolist(), strict=True):
            logged = self._by_ticket.pop(ticket, None)
            if logged is not None:
                _complete(logged, batch, row, bool(failed[row]))

    def entries(self) -> list[LoggedEvent]:
        """Return the logged events in the order of time."""
        rows = []
        for entry in sorted(self._entries, key=lambda entry: entry.time):
            chain = self._callers.chains[entry.chain]
            # A call may have begun just before the watching did.
            seconds = max(entry.time - self.start, 0) / 1e9
            rows.append(
                LoggedEvent(seconds, entry.event, entry.address, entry.size, chain.function, list(chain.callers))
            )
        return rows


def _entry(batch: EventBatch, row: int, size: int, failed: bool, chain: int) -> _Entry:
    event = batch[row]
    kind = EventKind(int(event["kind"]))
    name = kind.name.lower()
    address: int | None = None
    if failed:
        name = f"{name} {error_name(event['result'])}"
    elif kind in _ADDRESS_IS_RESULT:
        address = int(event["result"])
    elif kind in _ADDRESS_IS_ARGUMENT:
        address = int(event["args"][0])
    time = int(event["entered"]) or int(event["time"])
    return _Entry(time, name, address, None if kind in _NO_SIZE else size, chain)


def _complete(entry: _Entry, batch: EventBatch, row: int, failed: bool) -> None:
    result = batch["result"][row]
    if failed:
        entry.address = None
        entry.event = f"{entry.event} {error_name(result)}"
    elif batch["kind"][row] == EventKind.MMAP:
        entry.address = int(result)
