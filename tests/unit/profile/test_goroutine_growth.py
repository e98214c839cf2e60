"""Growth by go statement, from groups of two looks, and which looks are too near to each other to tell of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.profile.goroutine_growth import growth_of, too_near
from gomem.tracer.report import FirstAndLast
from gomem.tracer.report.goroutines import GoroutineGroup, GoroutineLook, Place

KB = 1 << 10


def group(
    creator: Place | None, counts: Sequence[int], stack: int, stayed: Sequence[int] = (), grows: bool | None = None
) -> GoroutineGroup:
    return GoroutineGroup(
        creator=creator, start=None, reason=None, stack=None, goroutines=counts[-1], stack_bytes=stack,
        stack_resident=None, reasons={}, longest_wait=None, waits_known=0, at_looks=list(counts),
        stayed=list(stayed or counts), only_grows=grows,
    )  # fmt: skip


def at(*seconds: float) -> list[GoroutineLook]:
    return [GoroutineLook(one, 0, None) for one in seconds]


def test_who_grew_most_comes_first_with_what_there_was_at_first_and_at_last() -> None:
    leak, pool, gone, new = (Place(f"main.{name}", f"/src/{name}.go", 7) for name in ("leak", "pool", "gone", "new"))
    first = [group(leak, [10], 20 * KB), group(pool, [90], 180 * KB), group(gone, [30], 60 * KB)]
    last = [
        group(pool, [90, 10, 95], 190 * KB, stayed=[0, 1, 95], grows=False),
        group(gone, [30, 3, 0], 0, stayed=[0, 0, 0], grows=False),
        group(leak, [10, 60, 110], 220 * KB, stayed=[10, 60, 110], grows=True),
        group(new, [0, 0, 5], 10 * KB, stayed=[0, 0, 5], grows=False),
        group(None, [0, 1, 1], 2 * KB, grows=False),
    ]
    found = growth_of(first, last, at(0, 4, 10))
    assert [(row.function, row.sums.grown, row.some_stay, row.only_grows) for row in found.creators] == [
        ("main.leak", 100, True, True), ("main.new", 5, False, False), ("main.pool", 5, True, False),
        ("", 1, False, False), ("main.gone", -30, False, False),
    ]  # fmt: skip
    assert found.creators[0].sums == FirstAndLast(10, 110, 20 * KB, 220 * KB)
    assert (found.creators[0].file, found.creators[0].line) == ("/src/leak.go", 7)
    assert found.whole == FirstAndLast(130, 211, 260 * KB, 422 * KB)
    assert (found.seconds, found.looks, found.more_creators, found.others) == (10.0, 3, 0, FirstAndLast(0, 0, 0, 0))


def test_two_looks_tell_what_there_is_more_but_not_what_stays() -> None:
    (row,) = growth_of([group(Place("f"), [1], 2 * KB)], [group(Place("f"), [1, 9], 18 * KB)], at(0, 2)).creators
    assert (row.sums.grown, row.some_stay, row.only_grows) == (8, None, None)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_a_few_rows_and_the_rest_are_all_of_it(counts: list[tuple[int, int]]) -> None:
    places = [Place("main.f", "f.go", line) for line in range(len(counts))]
    first = [group(place, [before], before * 2048) for place, (before, _) in zip(places, counts, strict=True)]
    last = [group(place, both, both[1] * 4096) for place, both in zip(places, counts, strict=True)]
    found = growth_of(first, last, at(0, 1))
    told = [row.sums for row in found.creators] + [found.others]
    assert len(found.creators) == min(len(counts), 20)
    assert found.more_creators == max(len(counts) - 20, 0)
    assert sum(one.goroutines_first for one in told) == found.whole.goroutines_first == sum(one for one, _ in counts)
    assert sum(one.goroutines_last for one in told) == found.whole.goroutines_last == sum(one for _, one in counts)
    assert sum(one.stack_first for one in told) == found.whole.stack_first
    assert sum(one.stack_last for one in told) == found.whole.stack_last
    grown = sorted((after - before for before, after in counts), reverse=True)
    assert [row.sums.grown for row in found.creators] == grown[:20]


@pytest.mark.parametrize(
    ("seconds", "which"),
    [((0, 8), None), ((0, 4, 8), None), ((0, 0.1, 8), 1), ((0, 7.9, 8), 1), ((0, 2, 2.1, 8), 1), ((0, 1, 2, 8), None)],
)
def test_looks_that_are_too_near_are_told_but_never_the_first_or_the_last(
    seconds: tuple[float, ...], which: int | None
) -> None:
    assert too_near(at(*seconds), 8) == which


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=200))
def test_what_is_left_are_few_looks_all_well_apart(gaps: list[float]) -> None:
    """As they are taken: each after what was left of those before."""
    kept, now = at(0.0), 0.0
    for gap in gaps:
        now += gap
        kept += at(now)
        while (far := too_near(kept, 16)) is not None:
            del kept[far]
    assert len(kept) <= 17
    assert (kept[0].seconds, kept[-1].seconds) == (0.0, now)
