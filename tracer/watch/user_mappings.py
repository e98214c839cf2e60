"""What the program has mapped for itself, out of a look and of who was seen to map it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import distinct
from gomem.tracer.addresses.region_states import NONE
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.model.callers import Chain
from gomem.tracer.model.mapping_callers import asker
from gomem.tracer.report import KINDS, CallerMappings, MappingSums, UserMapping, UserMappings
from gomem.tracer.snapshot.join import Addresses, AddressSpace

MOST_CALLERS = 20
MOST_RANGES = 10
_OWN = [KINDS.index(kind) for kind in ("other", "file")]
_LONGEST_NAME = 256

Index = NDArray[np.int64]
Seen = Sequence[tuple[int, int, Chain]]  # start, end, callers; by address


def user_mappings(space: AddressSpace, mappings: Mappings, residency: Residency, seen: Seen | None) -> UserMappings:
    """Return the mappings of the program's own; `seen`: whose callers are known, None where nothing was watched."""
    own = (space.state == NONE) & np.isin(space.kind, _OWN) & (space.mapping < len(mappings))
    start, end, mapping = space.start[own], space.end[own], space.mapping[own]
    start, end, mapping, who = _cut(start, end, mapping, seen or ())
    parts = _Parts(
        start,
        end - start,
        mapping,
        ~(mappings.readable | mappings.writable | mappings.executable)[mapping],
        residency.rss_in(start, end),
        residency.swap_in(start, end),
    )
    chains = [chain for _, _, chain in seen or ()]
    return UserMappings(
        parts.sums(np.ones(len(start), np.bool_)),
        None if seen is None else _by_caller(parts, who, chains),
        None if seen is None else parts.sums(who < 0),
        _largest(parts, who, chains, mappings),
    )


class _Parts:
    """Pieces of mappings, each of one mapping and of one caller; shape (n,) each."""

    def __init__(
        self, start: Addresses, size: Addresses, mapping: Index, closed: NDArray[np.bool_], resident: Addresses,
        swap: Addresses,
    ) -> None:  # fmt: skip
        self.start, self.size, self.mapping = start, size, mapping
        self.closed, self.resident, self.swap = closed, resident, swap

    def sums(self, some: NDArray[np.bool_] | slice) -> MappingSums:
        size = self.size[some]
        return MappingSums(
            len(distinct(self.mapping[some])),
            int(size.sum()),
            int(size[self.closed[some]].sum()),
            int(self.resident[some].sum()),
            int(self.swap[some].sum()),
        )


def _cut(start: Addresses, end: Addresses, mapping: Index, seen: Seen) -> tuple[Addresses, Addresses, Index, Index]:
    """Cut pieces where callers change; return them, and which of `seen` each is in, or -1."""
    low = np.array([one[0] for one in seen], np.uint64)
    high = np.array([one[1] for one in seen], np.uint64)
    points = distinct(np.concatenate((start, end, low, high)))
    begin, until = points[:-1], points[1:]
    piece, who = _containing(start, end, begin), _containing(low, high, begin)
    kept = piece >= 0
    return begin[kept], until[kept], mapping[piece[kept]], who[kept]


def _containing(starts: Addresses, ends: Addresses, points: Addresses) -> Index:
    """Return which of the sorted, disjoint ranges holds each point, or -1."""
    if not len(starts):
        return np.full(len(points), -1, np.int64)
    index = np.searchsorted(starts, points, side="right").astype(np.int64) - 1
    return np.where((index >= 0) & (points < ends[np.maximum(index, 0)]), index, -1)


def _by_caller(parts: _Parts, who: Index, chains: Sequence[Chain]) -> list[CallerMappings]:
    numbers: dict[tuple[str | None, tuple[str, ...]], int] = {}
    # Code without names has a stack of its own for each place, which tells a reader nothing.
    names = [asker(chain) for chain in chains]
    keys = [(name, chain.callers if name else ()) for name, chain in zip(names, chains, strict=True)]
    group = np.array([numbers.setdefault(key, len(numbers)) for key in keys] + [-1], np.int64)[who]
    rows = [
        CallerMappings(function, list(callers), parts.sums(group == number))
        for (function, callers), number in numbers.items()
        if (group == number).any()
    ]
    return sorted(rows, key=lambda row: (-row.sums.resident, -row.sums.virtual))[:MOST_CALLERS]


def _largest(parts: _Parts, who: Index, chains: Sequence[Chain], mappings: Mappings) -> list[UserMapping]:
    """Return the largest ranges: an anonymous reservation of which a part was opened is one."""
    if not len(parts.start):
        return []
    names = [mappings.name[at] for at in parts.mapping.tolist()]
    same_name = np.array([before == now for before, now in pairwise(names)], np.bool_)
    function = [asker(chains[at]) if at >= 0 else None for at in who.tolist()]
    same_caller = np.array([before == now for before, now in pairwise(function)], np.bool_)
    joined = (parts.start[1:] == parts.start[:-1] + parts.size[:-1]) & same_name & same_caller
    first = np.concatenate(([0], np.flatnonzero(~joined) + 1))
    last = np.append(first[1:], len(parts.start))
    sizes = np.add.reduceat(parts.size, first)
    rows = []
    for at in np.argsort(-sizes.astype(np.int64), kind="stable")[:MOST_RANGES].tolist():
        sums = parts.sums(slice(int(first[at]), int(last[at])))
        here = int(first[at])
        rows.append(
            UserMapping(
                int(parts.start[here]), sums.virtual, sums.no_access, sums.resident, sums.swap,
                names[here][:_LONGEST_NAME], function[here],
            )
        )  # fmt: skip
    return rows
