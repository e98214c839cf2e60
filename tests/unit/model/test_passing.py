"""Calls that leave no trace: a model that passes them over has what one has that applies each of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.model.events import ANONYMOUS, FIXED, PAGE, PRIVATE, READ, WRITE, batch, event, mmap, munmap
from tracer.events import EventBatch, Kind
from tracer.model import space as space_module
from tracer.model.mappings import UNKNOWN
from tracer.model.passing import passing
from tracer.model.space import AddressSpaceModel
from tracer.model.steps import Piece

BASE = 0x7000_0000_0000
HUGE_PAGES = 0x40000
DOWN = 0x0100_0000


def call(kind: Kind, at: int, entered: int, first: int, count: int, other: int, result: int) -> np.void:
    """Return a call on pages; `other`: a variant of it."""
    address, size = BASE + first * PAGE, count * PAGE
    flags = PRIVATE | ANONYMOUS
    if kind == Kind.MMAP:
        flags |= (0, 0, 0, 0, 0, FIXED)[other]
        prot = (0, READ, READ | WRITE, READ, READ, READ)[other]
        return event(kind, at, address, size, prot, flags, -1, result=result or address, entered=entered)
    if kind == Kind.MREMAP:
        to = BASE + (first + other * 2) * PAGE
        return event(kind, at, address, size, size + other % 2 * PAGE, 1, result=result or to, entered=entered)
    if kind == Kind.MPROTECT:
        return event(kind, at, address, size, other % 4, result=result, entered=entered)
    if kind == Kind.BRK:
        return event(kind, at, address, result=address, entered=entered)
    return event(kind, at, address, size, result=result, entered=entered)


# Kind, pages, variant, for how many calls it is under way, result if not the usual one.
Row = tuple[Kind, tuple[int, int], int, int, int]

KINDS = st.sampled_from([Kind.MMAP, Kind.MUNMAP, Kind.MPROTECT, Kind.MREMAP])
PLACES = [(0, 4), (4, 4), (8, 4), (20, 1)]
RANGES = st.one_of(st.sampled_from(PLACES), st.tuples(st.integers(0, 24), st.integers(1, 5)))
AGES = st.sampled_from([1, 1, 2, 3, 9])
ANY_CALL = st.tuples(KINDS, RANGES, st.integers(0, 5), AGES, st.sampled_from([0, 0, 0, -12])).map(lambda row: [row])


def run(place: tuple[int, int], ages: list[int], variants: list[int], begins: int) -> list[Row]:
    """Return calls that map and unmap a place in turn."""
    kinds = (Kind.MMAP, Kind.MUNMAP)
    calls = enumerate(zip(ages, variants, strict=True), start=begins)
    return [(kinds[at % 2], place, variant, age, 0) for at, (age, variant) in calls]


MOVES = st.builds(
    lambda place, other: [(Kind.MREMAP, place, other, 1, 0)], st.sampled_from(PLACES), st.sampled_from([0, 2, 4])
)
LENGTH = 7
RUNS = st.builds(
    run, st.sampled_from(PLACES), st.lists(st.sampled_from([1] * 12 + [2]), min_size=LENGTH, max_size=LENGTH),
    st.lists(st.integers(0, 4), min_size=LENGTH, max_size=LENGTH), st.integers(0, 1),
)  # fmt: skip
PARTS = st.lists(st.one_of(RUNS, RUNS, MOVES, ANY_CALL), max_size=12)
ROWS = PARTS.map(lambda parts: [row for part in parts for row in part])


def of(rows: list[Row]) -> EventBatch:
    # One ends every 10 ns; some begin while those before are still under way.
    made = [
        call(kind, 1000 + at * 10, 1000 + at * 10 - age * 10 + 5, first, count, other, result)
        for at, (kind, (first, count), other, age, result) in enumerate(rows)
    ]
    return batch(*made)


Known = tuple[list[Piece], list[tuple[int, int, int, int]], set[int], int]


def known(model: AddressSpaceModel) -> Known:
    """Return all that calls leave behind in a model: of doubts, on which pages they are."""
    mappings = model.mappings
    pages = {page for low, high in mappings.unsure for page in range(low // PAGE, -(-high // PAGE))}
    return mappings.map.pieces(), list(mappings._overtaken), pages, mappings._latest


def applied(monkeypatch: pytest.MonkeyPatch, worth_it: int, batches: list[EventBatch], elsewhere: int) -> Known:
    monkeypatch.setattr(space_module, "_WORTH_IT", worth_it)
    model = AddressSpaceModel.empty()
    model.mappings.reset([], None, elsewhere)
    for one in batches:
        model.apply(one)
    return known(model)


@given(ROWS, st.integers(1, 60), st.sampled_from([0, UNKNOWN]))
def test_a_model_that_passes_calls_over_knows_what_one_knows_that_does_not(
    rows: list[Row], size: int, elsewhere: int
) -> None:
    events = of(rows)
    batches = [events[start : start + size] for start in range(0, len(events), size)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        whole = applied(monkeypatch, 1 << 30, batches, elsewhere)
        assert applied(monkeypatch, 1, batches, elsewhere) == whole


def gone(*rows: np.void, wanted: tuple[int, ...] = ()) -> list[int]:
    calls = batch(*rows)
    keep = np.zeros(len(calls), np.bool_)
    keep[list(wanted)] = True
    return passing(calls, keep, PAGE).nonzero()[0].tolist()


ROUND = [mmap(10, BASE, 4), munmap(20, BASE, 4), mmap(30, BASE, 4), munmap(40, BASE, 4), mmap(50, BASE, 4),
         munmap(60, BASE, 4)]  # fmt: skip


def test_what_is_between_the_first_two_calls_and_the_last_munmap_leaves_no_trace() -> None:
    assert gone(*ROUND) == [2, 3, 4]
    assert gone(*ROUND, mmap(70, BASE, 4, READ)) == [2, 3, 4]
    assert gone(*ROUND[1:]) == [2, 3]
    assert gone(*ROUND[:3]) == []


def test_runs_side_by_side_do_not_disturb_each_other() -> None:
    above = [
        mmap(at, BASE + 4 * PAGE, 4) if at % 4 == 1 else munmap(at, BASE + 4 * PAGE, 4) for at in range(61, 72, 2)]
    assert gone(*ROUND, *above) == [2, 3, 4, 8, 9, 10]


@pytest.mark.parametrize(
    "other",
    [
        munmap(70, BASE + PAGE, 1),
        mmap(70, BASE - PAGE, 2),
        munmap(70, BASE, 5),
        event(Kind.MPROTECT, 70, BASE + PAGE, PAGE, READ),
        event(Kind.MPROTECT, 70, BASE + PAGE, PAGE, READ, result=-12),
        event(Kind.MREMAP, 70, BASE + 64 * PAGE, PAGE, PAGE, 1, result=BASE + 3 * PAGE),
        event(Kind.MREMAP, 35, BASE + 64 * PAGE, 4 * PAGE, 4 * PAGE, 1, result=BASE),
        event(Kind.MPROTECT, 70, BASE + 64 * PAGE, PAGE, READ | DOWN),
        event(Kind.BRK, 70, BASE + 64 * PAGE, result=BASE + 64 * PAGE),
        event(Kind.EXEC, 70),
        event(Kind.MMAP, 70, BASE - 8 * PAGE, PAGE, READ, PRIVATE | ANONYMOUS | HUGE_PAGES, result=BASE - 8 * PAGE),
    ],
    ids=str,
)
def test_nothing_is_passed_over_where_another_call_may_touch_the_same_bytes(other: np.void) -> None:
    calls = batch(*ROUND, other)
    assert gone(*calls[np.argsort(calls["time"], kind="stable")]) == []


def test_calls_that_overlap_in_time_are_not_passed_over() -> None:
    late = munmap(60, BASE, 4, entered=45)
    assert gone(*ROUND[:-1], late) == [2]
    assert gone(*ROUND[:-1], late, mmap(70, BASE, 4), munmap(80, BASE, 4), mmap(90, BASE, 4)) == [2]


def test_a_call_that_a_role_made_stays_and_divides_the_run() -> None:
    assert gone(*ROUND, wanted=(4,)) == [2]


def test_a_mapping_at_a_place_that_was_not_free_begins_another_run() -> None:
    again = [mmap(70, BASE, 4), munmap(80, BASE, 4)]
    assert gone(*ROUND[:-1], *again) == [2]
    assert gone(*ROUND, *again) == [2, 3, 4, 5, 6]
