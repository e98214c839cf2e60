"""What is held is measured on the objects, and views of an array count for what they keep."""

from __future__ import annotations

import numpy as np

from gomem.tracer.fleet.memory import MemoryBudget
from gomem.tracer.machine.holding import held_bytes


class Shared:
    def __init__(self) -> None:
        self.data = bytes(1 << 20)


def test_an_array_counts_once_and_also_for_a_view_of_a_part() -> None:
    array = np.zeros(1 << 20, np.uint8)
    assert 1 << 20 <= held_bytes([{"whole": array, "again": [array]}]) < (1 << 20) + 4096
    assert 1 << 20 <= held_bytes([array[:1]]) < (1 << 20) + 4096


def test_what_is_shared_is_nobodys() -> None:
    shared = Shared()
    assert held_bytes([[shared, "mine"]]) >= 1 << 20
    assert held_bytes([[shared, "mine", held_bytes]], apart=(Shared,)) < 4096


def test_what_other_work_takes_for_a_moment_is_not_held_against_the_processes() -> None:
    working = [True]
    budget = MemoryBudget(1, passing=lambda: working[0])
    assert budget.greediest([]) == []
    assert not budget.used_up
    working.clear()
    working.append(False)
    assert budget.greediest([]) == []
    assert budget.used_up
