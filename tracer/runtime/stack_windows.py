"""The parts of many stacks that are in use, read in few large blocks."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.errors import SnapshotError
from gomem.tracer.process.memory import Memory, Words
from gomem.tracer.runtime.spans import READ_OVER

WORD = 8
# Of one stack; most are smaller, and lie side by side.
_WINDOW = np.uint64(8192)

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class StackWindows:
    """Memory of stacks from `start` on, up to `high` or as far as one window goes; shape (n,), by ascending start.

    `readable`: whether it could be read. No more than some thousand stacks at once.
    """

    def __init__(self, memory: Memory, start: Words, high: Words) -> None:
        """Read them."""
        self._memory = memory
        self._start = start
        self._end = np.minimum(start + _WINDOW, high)
        self._first = np.zeros(len(start), np.int64)  # index of each window's first word
        self.readable = np.ones(len(start), np.bool_)
        self._words = self._read()

    def has(self, at: Integers, address: Words) -> Flags:
        """Tell whether the windows at indices have the words at addresses, which are not below their starts."""
        return np.asarray(address + np.uint64(WORD) <= self._end[at])

    def words(self, at: Integers, address: Words) -> Words:
        """Return the words at addresses that the windows at indices have."""
        return self._words[self._first[at] + ((address - self._start[at]) // np.uint64(WORD)).astype(np.int64)]

    def _read(self) -> Words:
        edges = self._edges()
        sizes = [(int(self._end[low:high].max()) - int(self._start[low])) // WORD for low, high in edges]
        words = np.zeros(sum(sizes), np.uint64)
        done = 0
        for (low, high), size in zip(edges, sizes, strict=True):
            base = int(self._start[low])
            self._first[low:high] = done + ((self._start[low:high] - np.uint64(base)) // np.uint64(WORD)).astype(
                np.int64
            )
            self._fill(words[done : done + size], base, low, high)
            done += size
        return words

    def _edges(self) -> list[tuple[int, int]]:
        """Return which windows are read together: those with little between them."""
        if not len(self._start):
            return []
        reached = np.maximum.accumulate(self._end)
        breaks = np.flatnonzero(self._start[1:] > reached[:-1] + np.uint64(READ_OVER)) + 1
        edges = [0, *breaks.tolist(), len(self._start)]
        return list(itertools.pairwise(edges))

    def _fill(self, words: Words, base: int, low: int, high: int) -> None:
        try:
            self._memory.read_into(base, words.view(np.uint8))
        except SnapshotError:
            for one in range(low, high):
                self._fill_one(words, base, one)

    def _fill_one(self, words: Words, base: int, one: int) -> None:
        start, end = int(self._start[one]), int(self._end[one])
        first = (start - base) // WORD
        try:
            self._memory.read_into(start, words[first : first + (end - start) // WORD].view(np.uint8))
        except SnapshotError:
            self.readable[one] = False
