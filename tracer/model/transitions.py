"""Changes of region states by role and runtime function, and who asked the scavenger for what it gave back."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import rows_among, table
from gomem.tracer.model.callers import Callers
from gomem.tracer.model.sizes import grouped_sums
from gomem.tracer.model.sources_of_scavenging import scavenge_source
from gomem.tracer.report import EventCount, Transition

# runtime/mem.go: the legal transitions between region states.
TRANSITIONS: dict[EventKind, tuple[str, str]] = {
    EventKind.RESERVE: ("None", "Reserved"),
    EventKind.MAP: ("Reserved", "Prepared"),
    EventKind.USED: ("Prepared", "Ready"),
    EventKind.UNUSED: ("Ready", "Prepared"),
    EventKind.FAULT: ("Ready", "Reserved"),
    EventKind.ALLOC: ("None", "Ready"),
    EventKind.FREE: ("any", "None"),
}
_TRANSITIONS = table(*TRANSITIONS)
_MOST_KINDS = max(EventKind) + 1


class Transitions:
    """Counts what roles did; `callers` names who called them."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._transitions: dict[tuple[EventKind, str | None], list[int]] = defaultdict(lambda: [0, 0])
        self._scavenged: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def rows(self) -> list[Transition]:
        """Return the changes of region state by role and runtime function, the largest first."""
        rows = [
            Transition(*TRANSITIONS[kind], kind.name.lower(), function, count, size)
            for (kind, function), (count, size) in self._transitions.items()
            if count
        ]
        order = list(TRANSITIONS)
        rows.sort(key=lambda row: (order.index(EventKind[row.event.upper()]), -row.bytes, row.function or ""))
        return rows

    def scavenged_by_source(self) -> dict[str, EventCount]:
        """Return what sysUnused gave back, by who asked: background, allocation, FreeOSMemory, other."""
        return {source: EventCount(*counts) for source, counts in sorted(self._scavenged.items())}

    def scavenged(self) -> EventCount | None:
        """Return all that sysUnused gave back; None if it gave back nothing."""
        if not self._scavenged:
            return None
        count, size = map(sum, zip(*self._scavenged.values(), strict=True))
        return EventCount(count, size)

    def feed(self, batch: EventBatch, sizes: NDArray[np.uint64]) -> None:
        """Count the roles among these events, of so many bytes."""
        rows = rows_among(batch, _TRANSITIONS)
        if not len(rows):
            return
        chains = self._callers.label(batch, rows)
        group = chains * _MOST_KINDS + batch["kind"][rows]
        keys, inverse = np.unique(group, return_inverse=True)
        totals = grouped_sums(inverse.reshape(-1), sizes[rows], len(keys))
        for key, count, size in zip(keys, np.bincount(inverse.reshape(-1)), totals, strict=True):
            chain = self._callers.chains[int(key) // _MOST_KINDS]
            kind = EventKind(int(key) % _MOST_KINDS)
            self.add(kind, chain.function, int(count), size)
            if kind is EventKind.UNUSED:
                scavenged = self._scavenged[scavenge_source(chain.callers)]
                scavenged[0] += int(count)
                scavenged[1] += size

    def add(self, kind: EventKind, function: str | None, count: int, size: int) -> None:
        """Count so many more, or less, of a role and function."""
        entry = self._transitions[(kind, function)]
        entry[0] += count
        entry[1] += size
