"""The stacks of OS threads in one look: all together, and those that hold most one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.native.stack_owners import StackOwner
from gomem.tracer.report import KINDS, ThreadStackRow, ThreadStacks
from gomem.tracer.snapshot.join import AddressSpace

MOST_ROWS = 20
_KIND = KINDS.index("thread_stack")


class _Stacks(Struct, frozen=True):
    """Every stack without its guard, in order of address; shape (n,) each, in bytes."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    guard: NDArray[np.uint64]
    resident: NDArray[np.uint64]

    def most(self) -> list[int]:
        """Return the indices of those that hold most."""
        order: list[int] = np.argsort(self.resident.astype(np.int64), kind="stable")[::-1][:MOST_ROWS].tolist()
        return order


def largest_stacks(space: AddressSpace, mappings: Mappings) -> list[tuple[int, int]]:
    """Return where the stacks that hold most are, guards included."""
    stacks = _stacks(space, mappings)
    return [(int(stacks.start[at] - stacks.guard[at]), int(stacks.end[at])) for at in stacks.most()]


def thread_stacks(
    space: AddressSpace, mappings: Mappings, residency: Residency, threads: int | None, owners: Sequence[StackOwner]
) -> ThreadStacks:
    """Return the stacks of kind thread_stack; `threads` is how many there are now."""
    stacks = _stacks(space, mappings)
    each = np.sort(stacks.resident.astype(np.int64))
    return ThreadStacks(
        stacks=len(each),
        threads=threads,
        virtual=int(space.size[space.kind == _KIND].sum()),
        resident=int(each.sum()),
        median=int(np.median(each)) if len(each) else 0,
        largest=int(each.max(initial=0)),
        rows=_rows(stacks, residency, {owner.end: owner for owner in owners}),
    )


def _stacks(space: AddressSpace, mappings: Mappings) -> _Stacks:
    """Return the stacks, of which each has one accessible piece: they are cut out of what mappings they share."""
    of_kind = space.kind == _KIND
    readable = mappings.readable[np.minimum(space.mapping, len(mappings) - 1)]
    accessible = np.flatnonzero(of_kind & readable)
    guards = np.flatnonzero(of_kind & ~readable)
    start, end = space.start[accessible], space.end[accessible]
    size_at = dict(zip(space.end[guards].tolist(), space.size[guards].tolist(), strict=True))
    guard = np.array([size_at.get(one, 0) for one in start.tolist()], np.uint64)
    return _Stacks(start, end, guard, space.resident[accessible])


def _rows(stacks: _Stacks, residency: Residency, owners: dict[int, StackOwner]) -> list[ThreadStackRow]:
    rows = []
    for at in stacks.most():
        start, end = int(stacks.start[at]), int(stacks.end[at])
        owner = owners.get(end)
        rows.append(
            ThreadStackRow(
                tid=owner.tid if owner else None,
                name=owner.name if owner else None,
                start=start,
                size=end - start,
                guard=int(stacks.guard[at]),
                resident=int(stacks.resident[at]),
                deepest=_deepest(residency, start, end),
            )
        )
    return rows


def _deepest(residency: Residency, start: int, end: int) -> int | None:
    """Return how far from its end on the stack has pages, in RAM or in swap."""
    if residency.method == "smaps":
        return None
    at = int(np.searchsorted(residency.ranges.end, np.uint64(start), side="right"))
    if at == len(residency.ranges) or int(residency.ranges.start[at]) >= end:
        return 0
    return end - max(int(residency.ranges.start[at]), start)
