from __future__ import annotations

import pytest

from gomem.tracer.proc.clocks import TimeOfDay, parse_offset


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("monotonic      100000         5\nboottime            0         0\n", 100_000_000_000_005),
        ("monotonic          -2 500000000\nboottime 0 0\n", -1_500_000_000),
        ("boottime 1 1\n", 0),
        ("", 0),
        ("monotonic x y\n", 0),
    ],
)
def test_the_offset_of_the_monotonic_clock_is_read(text: str, offset: int) -> None:
    assert parse_offset(text) == offset


class Clocks:
    """Two clocks, ns: one that goes on, and the time of day, which is set."""

    def __init__(self) -> None:
        self.clock, self.ahead = 5_000_000_000, 1_000_000_000_000

    def time_of_day(self) -> TimeOfDay:
        return TimeOfDay(lambda: self.clock, lambda: self.clock + self.ahead)


@pytest.mark.parametrize("step", [3_600_000_000_000, -3_600_000_000_000, 2_000_000_000, -2_000_000_000])
def test_times_from_before_and_behind_a_step_are_the_moments_that_they_were(step: int) -> None:
    clocks = Clocks()
    today = clocks.time_of_day()
    walls = []
    for moment in range(6_000_000_000, 7_000_000_000, 100_000_000):
        clocks.clock = moment
        clocks.ahead += step if moment == 6_500_000_000 else 0
        walls.append(moment + clocks.ahead)
    clocks.clock = 7_000_000_000
    today.look()
    assert [today.moment(wall) for wall in walls] == list(range(6_000_000_000, 7_000_000_000, 100_000_000))
    assert today.of(7_000_000_000) == 7_000_000_000 + clocks.ahead


def test_a_moment_keeps_its_time_while_the_time_of_day_is_only_slewed() -> None:
    clocks = Clocks()
    today = clocks.time_of_day()
    before = today.of(6_000_000_000)
    for _ in range(100):
        clocks.clock += 1_000_000_000
        clocks.ahead += 400_000
        today.look()
    assert today.of(6_000_000_000) == before
    assert today.moment(clocks.clock + clocks.ahead - 10) == clocks.clock - 10
