from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.addresses.ranges import Ranges, bytes_in, intersect, normalise, split, subtract, union

LIMIT = 40
# Also high in the address space, where a slip into int64 or float64 would lose addresses.
BASES = st.sampled_from([0, 2**47, 2**63 - 20, 2**64 - 100])
RAW = st.lists(st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT)), max_size=12)


def build(raw: list[tuple[int, int]], base: int) -> tuple[Ranges, set[int]]:
    ranges = normalise([base + low for low, _ in raw], [base + high for _, high in raw])
    return ranges, {base + one for low, high in raw for one in range(low, high)}


def members(ranges: Ranges) -> list[int]:
    return [
        one for low, high in zip(ranges.start.tolist(), ranges.end.tolist(), strict=True) for one in range(low, high)
    ]


def assert_is(ranges: Ranges, expected: set[int]) -> None:
    assert members(ranges) == sorted(expected)
    assert ranges.bytes == len(expected)
    assert ranges.start.dtype == ranges.end.dtype == np.uint64
    assert (ranges.start < ranges.end).all()
    assert (ranges.end[:-1] <= ranges.start[1:]).all()


@given(RAW, BASES)
def test_normalise_keeps_the_set_and_joins_what_touches(raw: list[tuple[int, int]], base: int) -> None:
    ranges, expected = build(raw, base)
    assert_is(ranges, expected)
    assert (ranges.end[:-1] < ranges.start[1:]).all()


@given(RAW, RAW, BASES)
def test_set_operations_agree_with_sets_of_addresses(
    left_raw: list[tuple[int, int]], right_raw: list[tuple[int, int]], base: int
) -> None:
    (left, left_set), (right, right_set) = build(left_raw, base), build(right_raw, base)
    assert_is(intersect(left, right), left_set & right_set)
    assert_is(subtract(left, right), left_set - right_set)
    assert_is(union(left, right), left_set | right_set)


@given(RAW, st.integers(0, LIMIT), st.integers(0, LIMIT), BASES)
def test_what_one_range_has_of_others_lies_in_it(raw: list[tuple[int, int]], low: int, high: int, base: int) -> None:
    ranges, expected = build(raw, base)
    one = normalise([base + low], [base + high])
    assert_is(intersect(ranges, one), {at for at in expected if base + low <= at < base + high})


@given(RAW, RAW, BASES)
def test_bytes_in_counts_each_query_on_its_own(
    raw: list[tuple[int, int]], queries: list[tuple[int, int]], base: int
) -> None:
    ranges, expected = build(raw, base)
    counted = bytes_in(ranges, [base + low for low, _ in queries], [base + high for _, high in queries])
    assert counted.tolist() == [len(expected & set(range(base + low, base + high))) for low, high in queries]


@given(RAW, st.lists(st.integers(0, LIMIT), max_size=8), BASES)
def test_split_cuts_without_changing_the_set(raw: list[tuple[int, int]], points: list[int], base: int) -> None:
    ranges, expected = build(raw, base)
    pieces, origin = split(ranges, np.array([base + point for point in points], dtype=np.uint64))
    assert_is(pieces, expected)
    for low, high, owner in zip(pieces.start.tolist(), pieces.end.tolist(), origin.tolist(), strict=True):
        assert not any(low < base + point < high for point in points)
        assert ranges.start[owner] <= low < high <= ranges.end[owner]


def test_pieces_of_adjacent_ranges_stay_apart_in_an_intersection() -> None:
    adjacent = Ranges(np.array([0, 10], dtype=np.uint64), np.array([10, 20], dtype=np.uint64))
    both = intersect(adjacent, normalise([5], [15]))
    assert both.start.tolist() == [5, 10]
    assert both.end.tolist() == [10, 15]
