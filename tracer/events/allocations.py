"""Allocations counted in the kernel: plain data, as bpf/allocations.py reads it and the model sums it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

# bpf/programs/allocations.c: struct sum. Objects, bytes asked for, and bytes of the pages of large ones.
SUM = np.dtype([("count", "<u8"), ("asked", "<u8"), ("pages", "<u8")])
ROWS = 256
# Rows 0 to 251 are span classes (size class << 1 | noscan). The others: a hit of our own trial; what has no size, and
# so no memory; what the tiny allocator may put beside others.
ROW_TRIAL, ROW_ZERO, ROW_TINY = 253, 254, 255
_ROW = 0xFF

NO_SITE = -1
_NOTHING = (0, 0, 0)

Sums = NDArray[np.void]
Counted = Mapping[tuple[int, int], tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class AllocationCounts:
    """What was counted until one moment. `rows` has dtype SUM, shape (ROWS,).

    `types` has a Sums scalar, as a tuple of its three figures, for each pair (address of the type or 0, row), and
    `sites` for each pair (call stack, row): as the kernel numbers stacks, or what `at_sites` made of them. `untold` are
    the same figures of the allocations whose types found no room in the kernel's table. Those whose stacks found none
    are at the site NO_SITE.
    """

    rows: Sums
    types: Counted
    untold: tuple[int, int, int] = (0, 0, 0)
    sites: Counted = field(default_factory=dict)

    def since(self, before: AllocationCounts) -> AllocationCounts:
        """Return what was counted between two moments."""
        rows = np.zeros(ROWS, SUM)
        for name in SUM.names or ():
            rows[name] = self.rows[name] - before.rows[name]
        return AllocationCounts(
            rows,
            _between(self.types, before.types),
            _less(self.untold, before.untold),
            _between(self.sites, before.sites),
        )

    def at_sites(self, site_of: Callable[[int], int]) -> AllocationCounts:
        """Return the same with what was counted for a call stack at the site that it is of."""
        found: dict[tuple[int, int], tuple[int, int, int]] = {}
        for (stack, row), sums in self.sites.items():
            key = site_of(stack) if stack != NO_SITE else NO_SITE, row
            found[key] = _plus(found.get(key, _NOTHING), sums)
        return replace(self, sites=found)


def no_allocations() -> AllocationCounts:
    """Return counts of nothing."""
    return AllocationCounts(np.zeros(ROWS, SUM), {})


def counts_of(
    rows: Sums,
    stacked: tuple[NDArray[np.uint64], NDArray[np.uint64], Sums],
    others: tuple[NDArray[np.uint64], Sums],
    untold: Sums,
) -> AllocationCounts:
    """Return counts from what the kernel has.

    `rows` has shape (ROWS,); `stacked` has stacks, keys and sums of shape (n,), where a key is a type's address << 8 |
    row; `others` has keys and sums of those whose stacks found no room, and `untold` (shape ()) of those whose types
    found none either.
    """
    total = rows.copy()
    total[ROW_TRIAL] = np.zeros((), SUM)
    types: dict[tuple[int, int], tuple[int, int, int]] = {}
    sites: dict[tuple[int, int], tuple[int, int, int]] = {}
    stacks, keys, sums = stacked
    for stack, key, figures in zip(stacks.tolist(), keys.tolist(), sums.tolist(), strict=True):
        if key & _ROW != ROW_TRIAL:
            for into, pair in ((types, (key >> 8, key & _ROW)), (sites, (stack, key & _ROW))):
                into[pair] = _plus(into.get(pair, _NOTHING), figures)
    for key, figures in zip(others[0].tolist(), others[1].tolist(), strict=True):
        pair = key >> 8, key & _ROW
        types[pair] = _plus(types.get(pair, _NOTHING), figures)
    rest = tuple(int(untold[name]) for name in SUM.names or ())
    return AllocationCounts(total, types, (rest[0], rest[1], rest[2]), sites | _without_site(total, sites))


def _without_site(rows: Sums, sites: Counted) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Return what is of no stack: what is in the rows beyond that."""
    rest: dict[tuple[int, int], tuple[int, int, int]] = {}
    known: dict[int, tuple[int, int, int]] = {}
    for (_, row), sums in sites.items():
        known[row] = _plus(known.get(row, _NOTHING), sums)
    for row in np.flatnonzero(rows["count"]).tolist():
        count, asked, pages = _less(rows[row].item(), known.get(row, _NOTHING))
        if count > 0:  # what was counted while it was read may make it less
            rest[NO_SITE, row] = count, max(asked, 0), max(pages, 0)
    return rest


def _between(now: Counted, before: Counted) -> Counted:
    found = {key: _less(sums, before.get(key, _NOTHING)) for key, sums in now.items()}
    return {key: sums for key, sums in found.items() if sums[0]}


def _less(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]


def _plus(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
