"""IntervalMap against a list with one value for each address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.addresses import interval_map as steps_module
from gomem.tracer.addresses.interval_map import END, IntervalMap

SIZE = 80
ASSIGNMENTS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, 3)), max_size=60)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let even short functions have many blocks."""
    monkeypatch.setattr(steps_module, "_LOAD", 3)


def of(assignments: list[tuple[int, int, int]]) -> tuple[IntervalMap, list[int]]:
    steps, plain = IntervalMap(0), [0] * SIZE
    for low, high, value in assignments:
        old = steps.assign(low, high, value)
        was = plain[low:high]
        assert set(old) == set(was)
        assert [one for at, one in enumerate(old) if not at or old[at - 1] != one] == changes(was)
        plain[low:high] = [value] * max(high - low, 0)
    return steps, plain


def changes(values: list[int]) -> list[int]:
    return [one for at, one in enumerate(values) if not at or values[at - 1] != one]


@given(ASSIGNMENTS, st.integers(0, SIZE - 1), st.integers(1, SIZE))
def test_it_holds_for_each_address_what_was_assigned_last(
    assignments: list[tuple[int, int, int]], low: int, length: int
) -> None:
    steps, plain = of(assignments)
    assert [steps.at(address) for address in range(SIZE)] == plain
    assert steps.at(SIZE) == steps.at(END - 1) == 0
    high = min(low + length, SIZE)
    pieces = steps.pieces(low, high)
    assert [value for start, end, value in pieces for _ in range(start, end)] == plain[low:high]
    assert [value for _, _, value in pieces] == changes(plain[low:high])


@given(ASSIGNMENTS, st.integers(0, SIZE - 1))
def test_the_piece_at_an_address_goes_as_far_as_its_value(assignments: list[tuple[int, int, int]], at: int) -> None:
    steps, plain = of(assignments)
    start, end, value = steps.piece_at(at)
    assert start <= at < end
    assert {steps.at(address) for address in range(start, min(end, SIZE))} == {value} == {plain[at]}
    assert start == 0 or plain[start - 1] != value
    assert end == END or (plain[end] if end < SIZE else 0) != value


@given(ASSIGNMENTS)
def test_columns_and_reset_lead_to_the_same_function(assignments: list[tuple[int, int, int]]) -> None:
    steps, _ = of(assignments)
    starts, values = steps.columns()
    assert starts[0] == 0
    assert (starts[1:] > starts[:-1]).all()
    assert (values[1:] != values[:-1]).all()
    again = IntervalMap(7)
    again.reset([piece for piece in steps.pieces(0, SIZE) if piece[2]], 0)
    assert again.pieces() == steps.pieces()


def test_a_function_that_would_have_too_many_pieces_stops_changing() -> None:
    steps = IntervalMap(0, limit=30)
    for address in range(0, 200, 2):
        steps.assign(address, address + 1, 1)
    assert steps.full
    assert len(steps) < 60
    assert steps.assign(0, 100, 2) == []


def test_recording_keeps_the_values_before_and_after_a_change() -> None:
    steps = IntervalMap(0)
    steps.assign(10, 20, 1)
    steps.recording = []
    steps.assign(15, 25, 2)
    assert steps.recording == [(15, 20, 1), (20, 25, 0), (15, 25, 2)]
