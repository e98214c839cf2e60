"""Stacks of locations, held as arrays: a tuple for each is made when it is looked at."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.runtime.numbered import Numbers

Integers = NDArray[np.int64]

_ROWS_AT_ONCE = 1 << 10


class CallStacks(Sequence[tuple[int, ...]]):
    """Stacks of locations, the innermost first, as indices of them: four bytes a call."""

    def __init__(self, first: Integers, which: Numbers) -> None:
        """Stack i is which[first[i] : first[i + 1]]."""
        self._first = first
        self._which = which

    @classmethod
    def joined(cls, some: Iterable[tuple[Integers, Numbers]]) -> CallStacks:
        """Return stacks one behind the other; of each of `some`, their depths and their calls."""
        depths, which = [np.zeros(1, np.int64)], array("I")  # which grows where it is, and is never there twice
        for depth, calls in some:
            depths.append(depth)
            which.frombytes(calls.tobytes())
        held = np.frombuffer(which, np.uint32) if which else np.zeros(0, np.uint32)
        return cls(np.cumsum(np.concatenate(depths)), held)

    def __len__(self) -> int:
        return len(self._first) - 1

    @overload
    def __getitem__(self, at: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, at: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, at: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        """Return a stack, or a list of some."""
        rows = range(len(self))[at]
        if isinstance(rows, int):
            return tuple(self._which[self._first[rows] : self._first[rows + 1]].tolist())
        return [self[row] for row in rows]

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Yield the stacks in turn."""
        for begin in range(0, len(self), _ROWS_AT_ONCE):
            edges = self._first[begin : begin + _ROWS_AT_ONCE + 1]
            calls = self._which[edges[0] : edges[-1]].tolist()
            for low, high in pairwise((edges - edges[0]).tolist()):
                yield tuple(calls[low:high])
