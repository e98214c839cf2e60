from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.fleet.schedule import LOOK_SHARE, NEAR_SHARE, OPENED, SOON, Pace, Turns


def test_looks_come_at_the_interval() -> None:
    assert Pace(15.0, 0.05).gap(0.007, suspicious=False) == 15.0


def test_a_look_that_differed_from_the_model_is_repeated_soon() -> None:
    assert Pace(15.0, 0.05).gap(0.0005, suspicious=True) == SOON


def test_a_process_near_a_limit_is_looked_at_more_often_within_its_share() -> None:
    pace = Pace(15.0, 0.05)
    assert pace.gap(0.007, suspicious=False, near=True) == 15.0 * NEAR_SHARE < 15.0
    pace.adapt(5.0, 10)
    assert pace.gap(0.007, suspicious=False, near=True) == 2 * 15.0 * NEAR_SHARE
    assert pace.gap(1.0, suspicious=False, near=True) == 1.0 / LOOK_SHARE


def test_many_that_are_near_a_limit_get_a_share_of_the_budget_and_no_more() -> None:
    pace = Pace(15.0, 0.05)
    gaps = [pace.gap(0.007, suspicious=False, near=True) for _ in range(1000)]
    assert set(gaps) == {15.0 * NEAR_SHARE, 15.0}
    assert gaps.count(15.0) > 500


@given(cost=st.floats(0, 100), suspicious=st.booleans())
def test_no_process_gets_more_than_its_share(cost: float, suspicious: bool) -> None:
    assert cost <= Pace(15.0, 0.05).gap(cost, suspicious=suspicious) * LOOK_SHARE * (1 + 1e-9)


def test_second_looks_are_spread() -> None:
    pace = Pace(15.0, 0.05)
    gaps = [pace.first_gap() for _ in range(200)]
    assert 7.5 <= min(gaps) < 9.0
    assert 13.5 < max(gaps) <= 15.0


def test_a_process_that_cannot_be_followed_is_tried_less_and_less_often_but_always_again() -> None:
    pace = Pace(15.0, 0.05)
    assert [pace.retry_gap(failures) for failures in (0, 1, 2, 5, 6, 1000)] == [1, 2, 4, 32, 60, 60]


@given(fixed=st.floats(0.0, 0.04), per_look=st.floats(0.0001, 2.0), budget=st.floats(0.05, 1.0))
def test_whatever_looks_cost_the_share_settles_within_the_budget(fixed: float, per_look: float, budget: float) -> None:
    pace = Pace(15.0, budget)

    def share() -> float:
        return min(fixed + 5 * per_look / pace.effective_interval, 1.0)

    for _ in range(60):
        pace.adapt(share() * 10, 10)
    reachable = fixed + 5 * per_look / (15.0 * 40)
    assert share() <= max(budget, reachable) * 1.15


def test_looks_come_back_to_the_interval_when_they_are_cheap_again() -> None:
    pace = Pace(15.0, 0.05)
    pace.adapt(5.0, 10)
    assert pace.stretch == 2.0
    for _ in range(5):
        pace.adapt(0.01, 10)
    assert pace.effective_interval == pytest.approx(15.0)


def test_who_answers_goes_first_and_the_others_are_not_forgotten() -> None:
    turns = Turns()
    assert [turns.choose("known", "new") for _ in range(10)] == [*["known"] * 4, "new"] * 2
    assert turns.choose(None, "new") == "new"
    assert turns.choose("known", None) == "known"
    assert turns.choose(None, None) is None


def test_a_process_that_is_looked_at_closely_comes_each_second_as_far_as_its_looks_are_cheap() -> None:
    pace = Pace(interval=15.0, cpu_budget=0.05)
    assert pace.gap(0.001, suspicious=False, opened=True) == OPENED
    assert pace.gap(0.001, suspicious=False) == 15.0
    assert pace.gap(0.1, suspicious=False, opened=True) == pytest.approx(0.1 / LOOK_SHARE)
