"""A budget of CPU time, with a clock that goes when told."""

from __future__ import annotations

from gomem.tracer.machine.cpu_budget import CpuBudget


class Clock:
    """A clock that goes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


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


def test_a_reserve_is_kept_for_what_is_more_urgent() -> None:
    clock = Clock()
    budget = CpuBudget(1, 0.1, clock)
    assert budget.is_open(0.5)
    budget.spend(0.6)
    assert budget.is_open()
    assert not budget.is_open(0.5)
    clock.now += 2
    assert budget.is_open(0.5)
