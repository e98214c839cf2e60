"""Allocations counted in the kernel: plain data, as bpf/allocations.py reads it and the model sums it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# bpf/programs/allocations.c: struct sum. Objects, bytes asked for, and bytes of the pages of large ones.
SUM = np.dtype([("count", "<u8"), ("asked", "<u8"), ("pages", "<u8")])
ROWS = 256
# Rows 0 to 251 are span classes (size class << 1 | noscan). The others: a hit of our own trial; what has no size, and
# so no memory; what the tiny allocator may put beside others.
ROW_TRIAL, ROW_ZERO, ROW_TINY = 253, 254, 255
_ROW = 0xFF

Sums = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class AllocationCounts:
    """What was counted until one moment. `rows` has dtype SUM, shape (ROWS,).

    `types` has a Sums scalar, as a tuple of its three figures, for each pair (address of the type or 0, row). `untold`
    are the same figures of the allocations whose types found no room in the kernel's table.
    """

    rows: Sums
    types: Mapping[tuple[int, int], tuple[int, int, int]]
    untold: tuple[int, int, int] = (0, 0, 0)

    def since(self, before: AllocationCounts) -> AllocationCounts:
        """Return what was counted between two moments."""
        rows = np.zeros(ROWS, SUM)
        for name in SUM.names or ():
            rows[name] = self.rows[name] - before.rows[name]
        nothing = (0, 0, 0)
        types = {key: _less(sums, before.types.get(key, nothing)) for key, sums in self.types.items()}
        return AllocationCounts(
            rows, {key: sums for key, sums in types.items() if sums[0]}, _less(self.untold, before.untold)
        )


def no_allocations() -> AllocationCounts:
    """Return counts of nothing."""
    return AllocationCounts(np.zeros(ROWS, SUM), {})


def counts_of(rows: Sums, keys: NDArray[np.uint64], sums: Sums, untold: Sums) -> AllocationCounts:
    """Return counts from what the CPUs have counted.

    `rows` has shape (CPUs, ROWS), `sums` (keys, CPUs), `untold` (CPUs,); each key is a type's address << 8 | row.
    """
    total = np.zeros(ROWS, SUM)
    for name in SUM.names or ():
        total[name] = rows[name].sum(axis=0)
    by_type = np.stack([sums[name].sum(axis=1) for name in SUM.names or ()], axis=1).tolist()
    types = {
        (key >> 8, key & _ROW): (count, asked, pages)
        for key, (count, asked, pages) in zip(keys.tolist(), by_type, strict=True)
        if key & _ROW != ROW_TRIAL
    }
    total[ROW_TRIAL] = 0
    rest = tuple(int(untold[name].sum()) for name in SUM.names or ())
    return AllocationCounts(total, types, (rest[0], rest[1], rest[2]))


def _less(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]
