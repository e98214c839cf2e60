"""Spans that mcaches took, and large allocations, counted in the kernel by call stack: plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# bpf/programs/refills.c: struct refill_sum.
REFILL_SUM = np.dtype([("samples", "<u8"), ("fresh", "<u8"), ("slots", "<u8"), ("squares", "<u8")])
ROWS = 256
# Rows 0 to 251 are span classes (size class << 1 | noscan), of which large allocations have the first; 255 is a hit of
# our own trial.
ROW_LARGE, ROW_TRIAL = 0, 255


@dataclass(frozen=True, slots=True)
class RefillSum:
    """What was seen of one call stack in one span class; `stack` is () for all whose stacks found no room.

    `stack` has return addresses, the innermost first. `samples`: how many refills, or large allocations. `slots`: the
    sum of what each stands for: the objects that the mcache had allocated from the span before, or of a large object
    its pages. `squares`: the sum of the squares of that. `fresh`: the refills of which that is not known, because a
    collection had taken the span before away; they are in `samples`, and not in the other two.
    """

    stack: tuple[int, ...]
    span_class: int
    samples: int
    fresh: int
    slots: int
    squares: int

    def plus(self, other: RefillSum) -> RefillSum:
        """Return what was seen of this stack and another, as of this one."""
        return RefillSum(
            self.stack,
            self.span_class,
            self.samples + other.samples,
            self.fresh + other.fresh,
            self.slots + other.slots,
            self.squares + other.squares,
        )
