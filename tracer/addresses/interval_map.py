"""A step function over addresses: for every byte a small integer, kept as the places where it changes.

The mappings of a process and the states of its regions are such functions: there is nothing to merge or split by
hand, because a place where nothing changes is not kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.work import Work

END = 1 << 64
MOST_PIECES = 1 << 22
# A block of changes is one list: cutting and inserting in it is a memmove of some kilobytes. Measured: from 128 to
# 2048 the cost of an assignment differs by less than a tenth.
_LOAD = 512
# What stands behind a block's last piece, and so (at index -1) also before its first one: never merged with.
_BORDER = -1 << 64

Piece = tuple[int, int, int]  # start, end, value


class IntervalMap:
    """Maps every address in [0, 2^64) to an int; an assignment costs O(log n) and the pieces it replaces.

    Neighbours of one value are one piece, except where two blocks meet. `full` is set once there were more than
    `limit` pieces: what came after is not in it, so that a target that lies cannot exhaust us.

    A look at the target takes milliseconds in which the target goes on: what it saw may be the value before or after
    a change that fell into them. While `recording` is a list, it gets both, as pieces.

    `work` counts the pieces that are gone through one by one, where that is more than a block.
    """

    def __init__(self, value: int = 0, limit: int = MOST_PIECES) -> None:
        self.recording: list[Piece] | None = None
        self.work = Work()
        self._heads = [0]
        # Where the pieces of each block start, and their values; behind them, where the next block starts, and _BORDER.
        self._blocks = [([0, END], [value, _BORDER])]
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
        self._rebuild(0, len(self._heads), starts, values, END)

    def __len__(self) -> int:
        """Return the number of pieces."""
        return sum(len(starts) - 1 for starts, _ in self._blocks)

    def at(self, address: int) -> int:
        """Return the value at one address."""
        starts, values = self._blocks[bisect_right(self._heads, address) - 1]
        return values[bisect_right(starts, address) - 1]

    def assign(self, low: int, high: int, value: int) -> list[int]:
        """Set [low, high) to `value`; return the values that were there, in order of address."""
        return self.exchange(low, high, value)[1]

    def exchange(self, low: int, high: int, value: int) -> tuple[list[int], list[int]]:
        """Set [low, high) to `value`; return where the pieces met that were there, and their values: see `cut`."""
        if low >= high or self.full:
            return [], []
        block = bisect_right(self._heads, low) - 1
        starts, values = self._blocks[block]
        if high > starts[-1]:
            old = self._replace_across(block, low, min(high, END), value)
        else:
            old = _replace(starts, values, low, high, value)
            if len(starts) > 2 * _LOAD:
                self._rebuild(block, block + 1, starts[:-1], values[:-1], starts[-1])
        if self.recording is not None:
            self.recording += cut(low, high, *old)
            self.recording.append((low, high, value))
        return old

    def pieces(self, low: int = 0, high: int = END) -> list[Piece]:
        """Return what covers [low, high), cut at its borders."""
        if low >= high:
            return []
        block = bisect_right(self._heads, low) - 1
        starts, values = self._blocks[block]
        at = bisect_right(starts, low) - 1
        if high <= starts[at + 1]:
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
        starts, values = self._blocks[block]
        at = bisect_right(starts, address) - 1
        value, start = values[at], starts[at]
        end = next((begin for begin, now in self._from(block, at + 1) if now != value), END)
        while at == 0 and block > 0 and self._blocks[block - 1][1][-2] == value:
            block -= 1
            starts = self._blocks[block][0]
            at = len(starts) - 2
            start = starts[at]
        return start, end, value

    def columns(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return where the pieces start, and their values; each ends where the next one starts, the last at 2^64."""
        starts = np.array([start for starts, _ in self._blocks for start in starts[:-1]], np.uint64)
        values = np.array([value for _, values in self._blocks for value in values[:-1]], np.int64)
        self.work.add(len(starts))
        keep = np.append(True, values[1:] != values[:-1])
        return starts[keep], values[keep]

    def _from(self, block: int, at: int) -> Iterator[tuple[int, int]]:
        starts, values = self._blocks[block]
        yield from zip(starts[at:-1], values[at:-1], strict=True)
        for number in range(block + 1, len(self._blocks)):
            starts, values = self._blocks[number]
            self.work.add(len(starts))
            yield from zip(starts[:-1], values[:-1], strict=True)

    def _replace_across(self, block: int, low: int, high: int, value: int) -> tuple[list[int], list[int]]:
        until = bisect_left(self._heads, high)
        taken = self._blocks[block:until]
        self.work.add(_LOAD * len(taken))
        end = taken[-1][0][-1]
        starts = [*(start for starts, _ in taken for start in starts[:-1]), end]
        values = [*(now for _, values in taken for now in values[:-1]), _BORDER]
        old = _replace(starts, values, low, high, value)
        self._rebuild(block, until, starts[:-1], values[:-1], end)
        return old

    def _rebuild(self, block: int, until: int, starts: list[int], values: list[int], end: int) -> None:
        """Put pieces, of which the last one ends at `end`, in the place of some blocks, in blocks of a good size."""
        cuts = range(0, len(starts), _LOAD)
        heads = [starts[cut] for cut in cuts]
        self._heads[block:until] = heads
        self._blocks[block:until] = [
            ([*starts[cut : cut + _LOAD], border], [*values[cut : cut + _LOAD], _BORDER])
            for cut, border in zip(cuts, [*heads[1:], end], strict=True)
        ]
        self.full = len(self._heads) > self._most_blocks


def cut(low: int, high: int, borders: list[int], values: list[int]) -> list[Piece]:
    """Return [low, high) as pieces that meet at `borders` and have these values."""
    return list(zip([low, *borders], [*borders, high], values, strict=True)) if values else []


def _replace(starts: list[int], values: list[int], low: int, high: int, value: int) -> tuple[list[int], list[int]]:
    """Do what IntervalMap.exchange does in one block, whose first start and end stay."""
    first = bisect_right(starts, low) - 1
    last = first + 1
    if starts[last] < high:
        last = bisect_left(starts, high, last + 1)
    borders, old = starts[first + 1 : last], values[first:last]
    if starts[first] < low:
        before = old[0]
        first += 1
    else:
        before = values[first - 1]
    if starts[last] == high:
        after = values[last]
        last += 1
    else:
        after = old[-1]
    # Now [first:last] are the changes in [low, high], and at the most two are to be left.
    if before == value:
        if after == value:
            starts[first:last] = values[first:last] = ()
        else:
            starts[first:last], values[first:last] = (high,), (after,)
    elif after == value:
        starts[first:last], values[first:last] = (low,), (value,)
    else:
        starts[first:last], values[first:last] = (low, high), (value, after)
    return borders, old
