"""Where the model and a look differ, byte by byte: pure comparison of two step functions over addresses."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.interval_map import Piece
from gomem.tracer.addresses.ranges import Ranges, distinct, intersect, normalise, subtract

Columns = tuple[NDArray[np.uint64], NDArray[np.int64]]  # starts, values; each piece ends where the next one starts
Row = tuple[int, int, int, int]  # start, end, the model's value, the look's value

_TOP = np.uint64((1 << 64) - 1)


class Differences(Struct, frozen=True):
    """What a comparison found, as (start, end, model, look) rows in order of address.

    `drift`: the look contradicts the model. `unknown`: the model knew nothing there, and no event fell into the look.
    """

    drift: list[Row]
    unknown: list[Row]


def compare(model: Columns, look: Columns, recorded: Iterable[Piece], unknown: int) -> Differences:
    """Compare the model with a look. The model is as of the look's end: it has every event that began before.

    `recorded`: the values of bytes before and after each event that happened during the look. The look may have read
    such a byte at any of these moments, so the byte is drift only if the look shows none of its values. `unknown`: the
    value that means "not known"; it differs from nothing.
    """
    rows = _rows(model, look)
    changed: dict[int, tuple[list[int], list[int]]] = {}
    for start, end, value in recorded:
        starts, ends = changed.setdefault(value, ([], []))
        starts.append(start)
        ends.append(end)
    seen = {value: normalise(starts, ends) for value, (starts, ends) in changed.items()}
    every = normalise(
        [start for starts, _ in changed.values() for start in starts],
        [end for _, ends in changed.values() for end in ends],
    )
    drift: list[Row] = []
    new: list[Row] = []
    for (model_value, look_value), ranges in rows.items():
        if model_value == unknown:
            new += _as_rows(subtract(ranges, every), model_value, look_value)
        else:
            for possible in (look_value, unknown):
                if possible in seen:
                    ranges = subtract(ranges, seen[possible])
            drift += _as_rows(ranges, model_value, look_value)
    return Differences(sorted(drift), sorted(new))


def common(left: list[Row], right: list[Row]) -> list[Row]:
    """Return the bytes that are in both, with the same two values."""
    found: list[Row] = []
    ours, theirs = _by_values(left), _by_values(right)
    for values in ours.keys() & theirs.keys():
        found += _as_rows(intersect(ours[values], theirs[values]), *values)
    return sorted(found)


def divide(rows: list[Row], ranges: Ranges) -> tuple[list[Row], list[Row]]:
    """Return the parts of `rows` inside and outside of `ranges`."""
    inside: list[Row] = []
    outside: list[Row] = []
    for values, part in _by_values(rows).items():
        inside += _as_rows(intersect(part, ranges), *values)
        outside += _as_rows(subtract(part, ranges), *values)
    return sorted(inside), sorted(outside)


def bytes_of(rows: Iterable[Row]) -> int:
    """Return how many bytes the rows cover."""
    return sum(end - start for start, end, _, _ in rows)


def _by_values(rows: list[Row]) -> dict[tuple[int, int], Ranges]:
    lists: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for start, end, *values in rows:
        starts, ends = lists.setdefault((values[0], values[1]), ([], []))
        starts.append(start)
        ends.append(end)
    return {values: normalise(starts, ends) for values, (starts, ends) in lists.items()}


def _rows(model: Columns, look: Columns) -> dict[tuple[int, int], Ranges]:
    """Return where the functions differ, by their two values."""
    points = distinct(np.concatenate((model[0], look[0])))
    ours = model[1][np.searchsorted(model[0], points, side="right") - 1]
    theirs = look[1][np.searchsorted(look[0], points, side="right") - 1]
    ends = np.append(points[1:], _TOP)
    differ = ours != theirs
    points, ends, ours, theirs = points[differ], ends[differ], ours[differ], theirs[differ]
    pairs = np.unique(np.stack((ours, theirs)), axis=1)
    return {
        (int(a), int(b)): normalise(points[(ours == a) & (theirs == b)], ends[(ours == a) & (theirs == b)])
        for a, b in pairs.T
    }


def _as_rows(ranges: Ranges, model_value: int, look_value: int) -> list[Row]:
    return [
        (start, end, model_value, look_value)
        for start, end in zip(ranges.start.tolist(), ranges.end.tolist(), strict=True)
    ]
