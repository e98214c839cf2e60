from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.model.courses import MOST, Courses
from gomem.tracer.report import AroundCollections, Course

SECOND = 10**9


def course(values: list[int | None], apart: int = SECOND) -> Course | None:
    courses = Courses()
    for at, value in enumerate(values):
        courses.note(at * apart, {"rss": value})
    return (courses.courses() or {}).get("rss")


def test_a_line_has_its_slope() -> None:
    found = course([100 + 10 * at for at in range(31)])
    assert found is not None
    assert (found.seconds, found.looks, found.first, found.last) == (30.0, 31, 100, 400)
    assert found.per_second == pytest.approx(10, rel=0.1)
    assert [third.looks for third in found.thirds] == [10, 10, 11]
    assert [third.lowest for third in found.thirds] == [100, 200, 300]


def test_one_peak_makes_no_slope() -> None:
    values: list[int | None] = [100] * 30
    values[28] = 10**9
    found = course(values)
    assert found is not None
    assert found.per_second == 0


@pytest.mark.parametrize("values", [[], [1] * 5, [1, 1, None, None, 1, 1], [None] * 30])
def test_a_third_with_less_than_two_looks_tells_nothing(values: list[int | None]) -> None:
    assert course(values) is None


def test_a_figure_that_comes_late_has_the_time_since_then() -> None:
    courses = Courses()
    for at in range(20):
        courses.note(at * SECOND, {"rss": 1} if at < 10 else {"rss": 1, "go": 2})
    found = courses.courses()
    assert found is not None
    assert (found["rss"].seconds, found["go"].seconds) == (19.0, 9.0)


@given(st.lists(st.one_of(st.none(), st.integers(-5, 1 << 64)), max_size=300))
def test_no_figures_break_it_and_it_holds_few(values: list[int | None]) -> None:
    found = course(values)
    assert found is None or (found.looks <= MOST and 0 <= found.first < 1 << 63)


def test_hours_are_kept_and_what_is_older_goes() -> None:
    found = course(list(range(20_000)), apart=2 * SECOND)
    assert found is not None
    assert 5 * 3600 < found.seconds <= 6.3 * 3600
    assert found.per_second == pytest.approx(0.5, rel=0.05)
    assert found.last >= 19_900


def test_what_rises_between_collections_and_falls_with_them_is_told_apart() -> None:
    courses = Courses()
    outside = [10, 20, 30, 5, 15, 12, 25, 4]  # a collection before the fourth and the last; something is freed by hand
    for at, (value, count) in enumerate(zip(outside, [1, 1, 1, 2, 2, 2, 2, 3], strict=True)):
        courses.note((at + 1) * SECOND, {"outside": value, "collections": count, "rss": value})
    found = courses.courses()
    assert found is not None
    assert found["outside"].around_collections == AroundCollections(10 + 10 + 10 + 13, 3, 25 + 21)
    assert found["rss"].around_collections is None
