"""A step function over addresses: for every byte a small integer, kept as the places where it changes.

The mappings of a process and the states of its regions are such functions: there is nothing to merge or split by
hand, because a place where nothing changes is not kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

END = 1 << 64
MOST_PIECES = 1 << 22
# A block of changes is one list: cutting and inserting in it is a memmove of some kilobytes. Measured: from 128 to
# 2048 the cost of an assignment differs by less than a tenth.
_LOAD = 512

Piece = tuple[int, int, int]  # start, end, value


class Steps:
    """Maps every address in [0, 2^64) to an int; an assignment costs O(log n) and the pieces it replaces.

    Neighbours of one value are one piece, except where two blocks meet. `full` is set once there were more than
    `limit` pieces: what came after is not in it, so that a target that lies cannot exhaust us.

    A look at the target takes milliseconds in which the target goes on: what it saw may be the value before or after
    a change that fell into them. While `recording` is a list, it gets both, as pieces.
    """

    def __init__(self, value: int = 0, limit: int = MOST_PIECES) -> None:
        self.recording: list[Piece] | None = None
        self._heads = [0]
        self._starts: list[list[int]] = [[0]]
        self._values: list[list[int]] = [[value]]
        self._most_blocks = max(limit // _LOAD, 1)
        self.full = False

    def reset(self, pieces: Sequence[Piece], elsewhere: int = 0) -> None:
        """Forget everything; take these pieces (sorted, disjoint), and one value everywhere else."""
        starts, values = [0], [elsewhere]
        for start, end, value in pieces:
            for at, now in ((start, value), (end, elsewhere)):
                if at >= END:
                    continue
                if starts[-1] == at:
                    starts.pop()
                    values.pop()
                if not values or values[-1] != now:
                    starts.append(at)
                    values.append(now)
        self.load(starts, values)

    def load(self, starts: list[int], values: list[int]) -> None:
        """Take another function whole, as its columns; the first piece starts at 0."""
        self._rebuild(0, len(self._heads), starts, values)

    def __len__(self) -> int:
        """Return the number of pieces."""
        return sum(map(len, self._starts))

    def at(self, address: int) -> int:
        """Return the value at one address."""
        block = bisect_right(self._heads, address) - 1
        return self._values[block][bisect_right(self._starts[block], address) - 1]

    def assign(self, low: int, high: int, value: int) -> list[int]:
        """Set [low, high) to `value`; return the values that were there, in order of address."""
        if low >= high or self.full:
            return []
        if self.recording is not None:
            self.recording += self.pieces(low, high)
            self.recording.append((low, high, value))
        heads = self._heads
        block = bisect_right(heads, low) - 1
        if block + 1 < len(heads) and high >= heads[block + 1]:
            return self._assign_across(block, low, high, value)
        starts = self._starts[block]
        old = _replace(starts, self._values[block], low, high, value)
        if len(starts) > 2 * _LOAD:
            self._rebuild(block, block + 1, starts, self._values[block])
        return old

    def pieces(self, low: int = 0, high: int = END) -> list[Piece]:
        """Return what covers [low, high), cut at its borders."""
        if low >= high:
            return []
        block = bisect_right(self._heads, low) - 1
        starts, values = self._starts[block], self._values[block]
        at = bisect_right(starts, low) - 1
        if at + 1 < len(starts) and high <= starts[at + 1]:
            return [(low, high, values[at])]
        found: list[Piece] = []
        begin, value = low, values[at]
        for start, now in self._from(block, at + 1):
            if start >= high:
                break
            if now != value:
                found.append((begin, start, value))
                begin, value = start, now
        found.append((begin, high, value))
        return found

    def piece_at(self, address: int) -> Piece:
        """Return the whole piece that an address lies in."""
        block = bisect_right(self._heads, address) - 1
        at = bisect_right(self._starts[block], address) - 1
        value, start = self._values[block][at], self._starts[block][at]
        while at == 0 and block > 0 and self._values[block - 1][-1] == value:
            block -= 1
            at = len(self._starts[block]) - 1
            start = self._starts[block][at]
        end = next((begin for begin, now in self._from(block, at) if begin > address and now != value), END)
        return start, end, value

    def columns(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return where the pieces start, and their values; each ends where the next one starts, the last at 2^64."""
        starts = np.array([start for block in self._starts for start in block], np.uint64)
        values = np.array([value for block in self._values for value in block], np.int64)
        keep = np.append(True, values[1:] != values[:-1])
        return starts[keep], values[keep]

    def _from(self, block: int, at: int) -> Iterator[tuple[int, int]]:
        yield from zip(self._starts[block][at:], self._values[block][at:], strict=True)
        for starts, values in zip(self._starts[block + 1 :], self._values[block + 1 :], strict=True):
            yield from zip(starts, values, strict=True)

    def _assign_across(self, block: int, low: int, high: int, value: int) -> list[int]:
        until = bisect_right(self._heads, high)
        starts = [start for one in self._starts[block:until] for start in one]
        values = [now for one in self._values[block:until] for now in one]
        old = _replace(starts, values, low, high, value)
        self._rebuild(block, until, starts, values)
        return old

    def _rebuild(self, block: int, until: int, starts: list[int], values: list[int]) -> None:
        """Put `starts` and `values` in the place of some blocks, in blocks of a good size."""
        cuts = range(0, len(starts), _LOAD)
        self._heads[block:until] = [starts[cut] for cut in cuts]
        self._starts[block:until] = [starts[cut : cut + _LOAD] for cut in cuts]
        self._values[block:until] = [values[cut : cut + _LOAD] for cut in cuts]
        self.full = len(self._heads) > self._most_blocks


def _replace(starts: list[int], values: list[int], low: int, high: int, value: int) -> list[int]:
    """Set [low, high) to `value` in the columns of a function; return what was there.

    The first start stays, so that a block keeps its head.
    """
    count = len(starts)
    first = bisect_right(starts, low) - 1
    last = first + 1
    if last < count and starts[last] < high:
        last = bisect_left(starts, high, last + 1)
    old = values[first:last]
    if starts[first] < low:
        if last == first + 1 and old[0] == value:
            return old
        merges = old[0] == value
        first += 1
    else:
        merges = first > 0 and values[first - 1] == value
    ends_here = last < count and starts[last] == high
    if ends_here:
        if values[last] == value:
            last += 1
        elif not merges and last == first + 1 and starts[first] == low:
            # One whole piece, the case of every region that changes back and forth.
            values[first] = value
            return old
    if merges:
        new_starts, new_values = [], []
    else:
        new_starts, new_values = [low], [value]
    if not ends_here and old[-1] != value and high < END:
        new_starts.append(high)
        new_values.append(old[-1])
    starts[first:last] = new_starts
    values[first:last] = new_values
    return old
