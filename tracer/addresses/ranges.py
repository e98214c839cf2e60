"""Sets of addresses as sorted, disjoint, half-open ranges: vectorised, O((n + m) log(n + m)).

All arrays are uint64 (an address may be above 2**63, and NumPy turns uint64 mixed with int64 into floats).
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

Addresses = NDArray[np.uint64]
_Integer = TypeVar("_Integer", bound=np.integer[Any])


class Ranges(Struct, frozen=True):
    """Sorted, disjoint, non-empty ranges [start, end) of addresses; both arrays have shape (n,)."""

    start: Addresses
    end: Addresses

    def __len__(self) -> int:
        return len(self.start)

    @property
    def bytes(self) -> int:
        """How many bytes the ranges cover."""
        return int(np.sum(self.end - self.start, dtype=np.uint64))

    def sizes(self) -> Addresses:
        """Return the length of each range, shape (n,)."""
        return self.end - self.start


def addresses(values: ArrayLike) -> Addresses:
    """Return `values` as a contiguous uint64 array."""
    return np.ascontiguousarray(values, dtype=np.uint64)


def distinct(values: NDArray[_Integer]) -> NDArray[_Integer]:
    """Return each of `values`, shape (n,), once and in order: np.unique would first import numpy.ma, in 8 ms."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def normalise(start: ArrayLike, end: ArrayLike) -> Ranges:
    """Build Ranges from ranges in any order that may overlap, touch or be empty; touching ones are joined."""
    first, last = addresses(start), addresses(end)
    keep = first < last
    first, last = first[keep], last[keep]
    if len(first) == 0:
        return Ranges(first, last)
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    begins = np.concatenate(([True], first[1:] > last[:-1]))
    ends = np.concatenate((begins[1:], [True]))
    return Ranges(first[begins], last[ends])


def intersect(left: Ranges, right: Ranges) -> Ranges:
    """Return what lies in both."""
    pairs_from = np.searchsorted(right.end, left.start, side="right")
    pairs_to = np.searchsorted(right.start, left.end, side="left")
    counts = np.maximum(pairs_to - pairs_from, 0)
    of_left = np.repeat(np.arange(len(left)), counts)
    within = np.arange(len(of_left)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_right = np.repeat(pairs_from, counts) + within
    return Ranges(
        np.maximum(left.start[of_left], right.start[of_right]),
        np.minimum(left.end[of_left], right.end[of_right]),
    )


def subtract(left: Ranges, right: Ranges) -> Ranges:
    """Return what lies in `left` and not in `right`."""
    zero, top = np.uint64(0), np.uint64(2**64 - 1)
    start = np.concatenate((addresses([zero]), right.end))
    end = np.concatenate((right.start, addresses([top])))
    keep = start < end
    return intersect(left, Ranges(start[keep], end[keep]))


def union(left: Ranges, right: Ranges) -> Ranges:
    """Return what lies in either; touching ranges are joined."""
    return normalise(np.concatenate((left.start, right.start)), np.concatenate((left.end, right.end)))


def covers(ranges: Ranges, start: int, end: int) -> bool:
    """Tell whether all of the non-empty [start, end) lies in one of the ranges."""
    index = int(np.searchsorted(ranges.start, np.uint64(start), side="right")) - 1
    return index >= 0 and end <= int(ranges.end[index])


def bytes_in(ranges: Ranges, starts: ArrayLike, ends: ArrayLike) -> Addresses:
    """Return for each query [starts[i], ends[i]) how many of its bytes lie in `ranges`; shape of `starts`.

    Queries may come in any order and overlap; an empty or inverted one gives 0.
    """
    first, last = addresses(starts), addresses(ends)
    return bytes_below(ranges, np.maximum(first, last)) - bytes_below(ranges, first)


def bytes_below(ranges: Ranges, points: Addresses) -> Addresses:
    """Return for each address how many bytes of `ranges` lie below it."""
    if len(ranges) == 0:
        return np.zeros(len(points), dtype=np.uint64)
    sizes = ranges.sizes()
    before = np.cumsum(sizes, dtype=np.uint64) - sizes
    index = np.maximum(np.searchsorted(ranges.start, points, side="right") - 1, 0)
    start = ranges.start[index]
    inside = np.minimum(np.maximum(points, start), ranges.end[index]) - start
    return before[index] + inside


def split(ranges: Ranges, points: Addresses) -> tuple[Ranges, NDArray[np.intp]]:
    """Cut the ranges at every one of `points` that lies inside one.

    Returns the pieces (which touch each other) and for each the index of the range that it comes from.
    """
    cuts = distinct(addresses(points))
    owner = np.searchsorted(ranges.start, cuts, side="right") - 1
    inside = owner >= 0
    cuts, owner = cuts[inside], owner[inside]
    strictly = (ranges.start[owner] < cuts) & (cuts < ranges.end[owner])
    cuts = cuts[strictly]
    start = np.sort(np.concatenate((ranges.start, cuts)))
    end = np.sort(np.concatenate((ranges.end, cuts)))
    return Ranges(start, end), np.searchsorted(ranges.start, start, side="right") - 1
