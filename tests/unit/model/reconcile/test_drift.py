"""Comparing two step functions: against plain lists, and with the changes that fell into a look."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.addresses.interval_map import IntervalMap
from gomem.tracer.addresses.ranges import normalise
from gomem.tracer.model.model_input import Cover
from gomem.tracer.model.reconcile.drift import bytes_of, common, compare, divide

SIZE = 40
UNKNOWN = 9
VALUES = st.lists(st.sampled_from([0, 1, 2, UNKNOWN]), min_size=SIZE, max_size=SIZE)
KNOWN = st.lists(st.integers(0, 2), min_size=SIZE, max_size=SIZE)
AT = st.integers(0, SIZE)
CHANGES = st.lists(st.tuples(AT, AT, st.sampled_from([0, 1, 2, UNKNOWN])), max_size=6)


def steps_of(values: list[int]) -> IntervalMap:
    steps = IntervalMap(0)
    for at, value in enumerate(values):
        steps.assign(at, at + 1, value)
    return steps


@given(VALUES, KNOWN, CHANGES)
def test_a_byte_drifts_if_it_never_was_what_was_seen(
    model: list[int], look: list[int], changes: list[tuple[int, int, int]]
) -> None:
    found = compare(steps_of(model).columns(), steps_of(look).columns(), changes, UNKNOWN)
    drift, unknown = set(), set()
    for at, (ours, theirs) in enumerate(zip(model, look, strict=True)):
        had = {value for low, high, value in changes if low <= at < high}
        if ours == UNKNOWN and not had:
            unknown.add((at, ours, theirs))
        elif ours not in (theirs, UNKNOWN) and not had & {theirs, UNKNOWN}:
            drift.add((at, ours, theirs))
    assert {(at, *values) for start, end, *values in found.drift for at in range(start, end)} == drift
    assert {(at, *values) for start, end, *values in found.unknown for at in range(start, end)} == unknown
    assert bytes_of(found.drift) == len(drift)
    assert found.drift == sorted(found.drift)


@given(KNOWN, KNOWN, KNOWN, KNOWN)
def test_what_two_comparisons_have_in_common_has_the_same_values(
    model: list[int], look: list[int], later: list[int], later_look: list[int]
) -> None:
    first = compare(steps_of(model).columns(), steps_of(look).columns(), [], UNKNOWN).drift
    second = compare(steps_of(later).columns(), steps_of(later_look).columns(), [], UNKNOWN).drift
    both = zip(model, look, later, later_look, strict=True)
    expected = [at for at, (a, b, c, d) in enumerate(both) if a != b and (a, b) == (c, d)]
    assert [at for start, end, _, _ in common(first, second) for at in range(start, end)] == expected


def test_rows_are_divided_at_the_borders_of_ranges() -> None:
    rows = [(0, 10, 1, 2), (20, 30, 3, 4)]
    inside, outside = divide(rows, normalise([5, 25], [22, 40]))
    assert inside == [(5, 10, 1, 2), (20, 22, 3, 4), (25, 30, 3, 4)]
    assert outside == [(0, 5, 1, 2), (22, 25, 3, 4)]


@given(st.lists(st.integers(0, 2), max_size=30))
def test_the_ranges_of_a_look_become_a_function_of_all_addresses(values: list[int]) -> None:
    pieces = [(at + 1, at + 2, value) for at, value in enumerate(values) if value]
    start, end, value = (np.array(column) for column in zip(*pieces, strict=True)) if pieces else ([], [], [])
    cover = Cover(np.array(start, np.uint64), np.array(end, np.uint64), np.array(value, np.int64))
    starts, found = cover.steps()
    assert (starts[1:] > starts[:-1]).all()
    at = np.searchsorted(starts, np.arange(33, dtype=np.uint64), side="right") - 1
    assert found[at].tolist() == [0, *values] + [0] * (32 - len(values))
