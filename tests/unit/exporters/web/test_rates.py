"""Rates and budgets, with a clock that goes when told."""

from __future__ import annotations

import pytest

from exporters.web.rates import CpuBudget, TokenBucket


class Clock:
    """A clock that goes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(3, 2, clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 1000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_a_bucket_says_when_the_next_one_comes() -> None:
    clock = Clock()
    bucket = TokenBucket(1, 4, clock)
    assert bucket.seconds_to_next() == 0
    bucket.take()
    assert bucket.seconds_to_next() == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.seconds_to_next() == 0


def test_a_cpu_budget_may_be_overdrawn_once_and_is_earned_again() -> None:
    clock = Clock()
    budget = CpuBudget(2, 0.5, clock)
    budget.spend(1.9)
    assert budget.is_open()
    budget.spend(1.1)
    assert not budget.is_open()
    clock.now += 1.9
    assert not budget.is_open()
    clock.now += 0.2
    assert budget.is_open()
    clock.now += 1000
    assert budget.is_open()
    budget.spend(2)
    assert not budget.is_open()
