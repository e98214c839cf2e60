"""Whose profile comes next: those near a limit, by age and by growth; the others seldom, and all in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gomem.exporters.black_box.schedule import AT_REST, NEAR_ONE, ProfileAge, is_urgent, next_one


@dataclass
class One:
    near: float
    age: ProfileAge = field(default_factory=ProfileAge)


def aged(near: float, taken: float | None, near_then: float | None = None) -> One:
    one = One(near)
    if taken is not None:
        one.age.took(taken, near if near_then is None else near_then)
    return one


@pytest.mark.parametrize(
    ("one", "now", "due"),
    [
        (aged(0.1, None), 0, True),
        (aged(0.1, 0), AT_REST - 1, False),
        (aged(0.1, 0), AT_REST, True),
        (aged(0.9, 0), NEAR_ONE - 1, False),
        (aged(0.9, 0), NEAR_ONE, True),
        (aged(0.55, 0, 0.5), 1, False),
        (aged(0.61, 0, 0.5), 1, True),
        (aged(0.83, 0, 0.81), 1, False),
        (aged(0.86, 0, 0.81), 1, True),
        (aged(0.975, 0, 0.97), 1, False),
        (aged(0.98, 0, 0.97), 1, True),
        (aged(1.3, 0, 1.2), 1, True),
        (aged(0.3, 0, 0.9), 1, False),
    ],
)
def test_a_profile_is_due_by_age_or_by_growth(one: One, now: float, due: bool) -> None:
    assert (next_one([one], now) is one) is due


def test_those_that_come_nearer_to_a_limit_go_first_and_then_the_most_overdue() -> None:
    new, steady, moving = aged(0.2, None), aged(0.9, 0), aged(0.9, 99, 0.82)
    assert [is_urgent(one, 100) for one in (new, steady, moving)] == [False, False, True]
    assert next_one([new, steady, moving], 100) is moving
    moving.age.took(100, 0.9)
    assert next_one([new, steady, moving], 101) is new
    assert next_one([new, steady, moving], 2.5 * NEAR_ONE) is steady
    assert is_urgent(aged(0.9, None), 100)


def test_who_failed_is_left_alone_for_a_while_and_who_keeps_no_profile_for_longer() -> None:
    one = One(0.95)
    one.age.failed(100, lasting=False)
    assert next_one([one], 120) is None
    assert next_one([one], 131) is one
    one.age.failed(131, lasting=True)
    assert next_one([one], 500) is None
    assert next_one([one], 800) is one
