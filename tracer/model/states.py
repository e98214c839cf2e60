"""What the Go runtime makes of its address space, rebuilt from its own functions: None, Reserved, Prepared, Ready."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.interval_map import IntervalMap, Piece
from gomem.tracer.addresses.region_states import NONE, PREPARED, READY, RESERVED, STATE_NAMES, UNKNOWN
from gomem.tracer.events.record import EventBatch, EventKind

# A value is a state and, above it, who brought the byte into that state.
STATE_BITS = 3
STATE_MASK = (1 << STATE_BITS) - 1
# Still unknown after a look: private memory without an owner in the runtime's records. The runtime records an
# allocation a moment after it made it. A thread may have been preempted in between, before we watched: no event tells.
NOT_YET_OWNED = 1 << STATE_BITS | UNKNOWN

_BECOMES = {
    EventKind.RESERVE: RESERVED,
    EventKind.MAP: PREPARED,
    EventKind.USED: READY,
    EventKind.UNUSED: PREPARED,
    EventKind.FAULT: RESERVED,
    EventKind.ALLOC: READY,
    EventKind.FREE: NONE,
}
# runtime/mem.go: which states a region may come from. sysUsed is called for ranges that are partly Ready: allocSpan
# names the whole span if any page of it is scavenged. munmap of package runtime also takes back what was never its own.
_FROM = {
    EventKind.RESERVE: (NONE,),
    EventKind.MAP: (RESERVED,),
    EventKind.USED: (PREPARED, READY),
    EventKind.UNUSED: (READY,),
    EventKind.FAULT: (READY, PREPARED),
    EventKind.ALLOC: (NONE,),
    EventKind.FREE: (NONE, RESERVED, PREPARED, READY),
}
# By kind: the state that it leads to, and for each state a bit whether it may come from there.
_RULES = {
    int(kind): (_BECOMES[kind], sum(1 << state for state in (*states, UNKNOWN))) for kind, states in _FROM.items()
}
# The same as columns, by kind.
_STATES, _LEGAL = np.array([_RULES.get(kind, (NONE, 0)) for kind in range(max(_RULES) + 1)]).T
_LEGAL_UNSEEN = _LEGAL | (_LEGAL >> READY & 1) << PREPARED
# Where a region is again when the system call of its transition failed.
_BACK = {EventKind.MAP: RESERVED, EventKind.USED: PREPARED, EventKind.UNUSED: READY, EventKind.FAULT: READY}

MOST_ANOMALIES = 100
_ADDRESS_SPACE = 1 << 57


class Anomaly(Struct, frozen=True):
    """A transition that runtime/mem.go does not allow, with the event it came from.

    `time`: CLOCK_MONOTONIC ns. `found`: the states that the range was in, in order of address, without repetitions.
    `owner`: who did it, as in the values of the map.
    """

    time: int
    kind: EventKind
    low: int
    high: int
    found: tuple[str, ...]
    owner: int


class StateModel:
    """Applies transitions in order of time; keeps the first anomalies, and counts all of them by kind."""

    def __init__(self, os_page: int = 4096) -> None:
        self.map = IntervalMap(UNKNOWN)
        self.anomalies: deque[Anomaly] = deque()
        self.anomaly_counts: Counter[EventKind] = Counter()
        self.used_unseen = False  # USED may have happened without an event: what is Prepared here may be Ready
        self._page = os_page

    def reset(self, pieces: list[Piece], elsewhere: int = NONE) -> None:
        """Start from the pieces of a look: (start, end, state)."""
        self.map.reset(pieces, elsewhere)

    def forget(self) -> None:
        """Know nothing any more."""
        self.reset([], UNKNOWN)

    def apply(self, kind: EventKind, time: int, address: int, size: int, owner: int) -> None:
        """Apply one transition of `size` bytes at `address`; regions are whole OS pages."""
        page = self._page
        low, high = address & -page, address + size + page - 1 & -page
        if not 0 < low < high <= _ADDRESS_SPACE:
            return
        state, legal = _RULES[kind]
        self._change(low, high, owner << STATE_BITS | state if state else NONE, legal, kind, time, owner)

    def apply_all(self, roles: EventBatch, owners: NDArray[np.intp]) -> None:
        """Apply transitions in the order of these events."""
        kinds, address, size = roles["kind"], roles["args"][:, 0], roles["args"][:, 1]
        mask = np.uint64(self._page - 1)
        low, high = address & ~mask, (address + size + mask) & ~mask
        # None of the sums that were below has wrapped.
        below = (address < _ADDRESS_SPACE) & (size <= _ADDRESS_SPACE) & (high <= _ADDRESS_SPACE)
        some = (below & (low > 0) & (low < high)).nonzero()[0]
        state = _STATES[kinds]
        values = np.where(state == NONE, NONE, owners << STATE_BITS | state)
        legal = (_LEGAL_UNSEEN if self.used_unseen else _LEGAL)[kinds]
        columns = (column[some].tolist() for column in (low, high, values, legal, kinds, roles["time"], owners))
        change = self._change
        for one in zip(*columns, strict=True):
            change(*one)

    def _change(self, low: int, high: int, value: int, legal: int, kind: int, time: int, owner: int) -> None:
        """Set a region; note an anomaly if it was in a state whose bit is not in `legal`."""
        old = self.map.exchange(low, high, value)[1]
        for was in old:
            if not legal >> (was & STATE_MASK) & 1:
                self._note(EventKind(kind), time, low, high, old, owner)
                break

    def take_back(self, kind: EventKind, address: int, size: int) -> None:
        """Undo a transition whose system call then failed; the runtime is about to give up, if it was not a hint."""
        if kind in _BACK:
            page = self._page
            low, high = address & -page, address + size + page - 1 & -page
            if 0 < low < high <= _ADDRESS_SPACE:
                self.map.exchange(low, high, _BACK[kind])

    def _note(self, kind: EventKind, time: int, low: int, high: int, old: list[int], owner: int) -> None:
        self.anomaly_counts[kind] += 1
        if len(self.anomalies) < MOST_ANOMALIES:
            found: list[str] = []
            for value in old[:64]:
                name = STATE_NAMES[value & STATE_MASK]
                if not found or found[-1] != name:
                    found.append(name)
            self.anomalies.append(Anomaly(time, kind, low, high, tuple(found), owner))
