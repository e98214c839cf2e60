"""What the Go runtime makes of its address space, rebuilt from its own functions: None, Reserved, Prepared, Ready."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracer.events import EventBatch, Kind
from tracer.model.steps import Piece, Steps

NONE, RESERVED, PREPARED, READY, UNKNOWN = range(5)
STATE_NAMES = ("None", "Reserved", "Prepared", "Ready", "unknown")
# A value is a state and, above it, who brought the byte into that state.
STATE_BITS = 3
STATE_MASK = (1 << STATE_BITS) - 1
# Unknown still, after a look: mapped, and the runtime's or not. The runtime notes what it has allocated a moment later,
# and a thread that was put aside in between, before anything was watched, is told of by no event.
NOT_YET_OWNED = 1 << STATE_BITS | UNKNOWN

_BECOMES = {
    Kind.RESERVE: RESERVED,
    Kind.MAP: PREPARED,
    Kind.USED: READY,
    Kind.UNUSED: PREPARED,
    Kind.FAULT: RESERVED,
    Kind.ALLOC: READY,
    Kind.FREE: NONE,
}
# runtime/mem.go: which states a region may come from. sysUsed is called for ranges that are partly Ready: allocSpan
# names the whole span if any page of it is scavenged. munmap of package runtime also takes back what was never its own.
_FROM = {
    Kind.RESERVE: (NONE,),
    Kind.MAP: (RESERVED,),
    Kind.USED: (PREPARED, READY),
    Kind.UNUSED: (READY,),
    Kind.FAULT: (READY, PREPARED),
    Kind.ALLOC: (NONE,),
    Kind.FREE: (NONE, RESERVED, PREPARED, READY),
}
# By kind: the state that it leads to, and for each state a bit whether it may come from there.
_RULES = {
    int(kind): (_BECOMES[kind], sum(1 << state for state in (*states, UNKNOWN))) for kind, states in _FROM.items()
}
# The same as columns, by kind.
_STATES, _LEGAL = np.array([_RULES.get(kind, (NONE, 0)) for kind in range(max(_RULES) + 1)]).T
_LEGAL_UNSEEN = _LEGAL | (_LEGAL >> READY & 1) << PREPARED
# Where a region is again when the system call of its transition failed.
_BACK = {Kind.MAP: RESERVED, Kind.USED: PREPARED, Kind.UNUSED: READY, Kind.FAULT: READY}

MOST_ANOMALIES = 100
_ADDRESS_SPACE = 1 << 57


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A transition that runtime/mem.go does not allow, with the event it came from.

    `time`: CLOCK_MONOTONIC ns. `found`: the states that the range was in, in order of address, without repetitions.
    `owner`: who did it, as in the values of the map.
    """

    time: int
    kind: Kind
    low: int
    high: int
    found: tuple[str, ...]
    owner: int


class StateModel:
    """Applies transitions in order of time; keeps the first anomalies, and counts all of them by kind."""

    def __init__(self, os_page: int = 4096) -> None:
        self.map = Steps(UNKNOWN)
        self.anomalies: deque[Anomaly] = deque()
        self.anomaly_counts: Counter[Kind] = Counter()
        self.used_unseen = False  # USED may have happened without an event: what is Prepared here may be Ready
        self._page = os_page

    def reset(self, pieces: list[Piece], elsewhere: int = NONE) -> None:
        """Start from the pieces of a look: (start, end, state)."""
        self.map.reset(pieces, elsewhere)

    def forget(self) -> None:
        """Know nothing any more."""
        self.reset([], UNKNOWN)

    def apply(self, kind: Kind, time: int, address: int, size: int, owner: int) -> None:
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
        """Set a region; note an anomaly if it was in a state of which `legal` does not have the bit."""
        old = self.map.exchange(low, high, value)[1]
        for was in old:
            if not legal >> (was & STATE_MASK) & 1:
                self._note(Kind(kind), time, low, high, old, owner)
                break

    def take_back(self, kind: Kind, address: int, size: int) -> None:
        """Undo a transition whose system call then failed; the runtime is about to give up, if it was not a hint."""
        if kind in _BACK:
            page = self._page
            low, high = address & -page, address + size + page - 1 & -page
            if 0 < low < high <= _ADDRESS_SPACE:
                self.map.exchange(low, high, _BACK[kind])

    def _note(self, kind: Kind, time: int, low: int, high: int, old: list[int], owner: int) -> None:
        self.anomaly_counts[kind] += 1
        if len(self.anomalies) < MOST_ANOMALIES:
            found: list[str] = []
            for value in old[:64]:
                name = STATE_NAMES[value & STATE_MASK]
                if not found or found[-1] != name:
                    found.append(name)
            self.anomalies.append(Anomaly(time, kind, low, high, tuple(found), owner))
