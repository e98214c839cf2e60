"""The arithmetic of the benchmarks: what a ratio is worth, and when a machine was quiet."""

from __future__ import annotations

import random

import pytest

from tests.bench.overhead_figures import of_calls, of_twins, ratio
from tests.bench.overhead_noise import Moment, Noise, quietness


def test_an_interval_holds_the_true_ratio_of_noisy_pairs_about_as_often_as_it_says() -> None:
    draw = random.Random(4)
    held = 0
    for _ in range(100):
        found = ratio([draw.gauss(0.99, 0.01) for _ in range(12)])
        assert found.low <= found.median <= found.high
        held += found.low <= 0.99 <= found.high
    assert held >= 85


def test_a_wild_pair_moves_neither_median_nor_interval() -> None:
    calm = ratio([0.99] * 11)
    wild = ratio([0.99] * 10 + [0.2])
    assert (wild.median, wild.low, wild.high) == (calm.median, calm.low, calm.high) == (0.99, 0.99, 0.99)


def test_one_pair_has_no_interval_and_says_so() -> None:
    found = ratio([0.4])
    assert found.half_width == 0
    assert str(found) == "0.400 (one pair)"
    assert str(ratio([0.991, 0.993])) == "0.9920 (0.9910-0.9930)"


def test_of_twins_only_what_tracing_does_to_them_is_left() -> None:
    unlike, cost = 1.3, 0.98  # the first does more than the second, whoever is traced
    assert of_twins([unlike * cost, unlike], [unlike / cost, unlike]) == pytest.approx([cost, 1.0])


def test_slower_calls_cost_by_how_many_they_are() -> None:
    assert of_calls(100_000, 100e-9) == pytest.approx(1 / 1.01)
    assert of_calls(100_000, 0.0) == 1.0


def test_a_ratio_takes_another_cost_on_top() -> None:
    both = ratio([0.99, 0.98]).times(0.5)
    assert (both.low, both.median, both.high) == pytest.approx((0.49, 0.4925, 0.495))


def test_noise_is_what_neither_we_nor_the_idle_loop_used() -> None:
    before = Moment(at=10.0, busy=100.0, steal=1.0, known=50.0)
    after = Moment(at=14.0, busy=106.0, steal=1.4, known=55.0)
    noise = before.until(after)
    assert noise.others == pytest.approx(0.25)
    assert noise.steal == pytest.approx(0.1)
    # Ticks of /proc/stat and the processes' own do not fall together.
    assert before.until(Moment(at=11.0, busy=100.5, steal=1.0, known=50.9)).others == 0


@pytest.mark.parametrize(
    ("noises", "quiet"),
    [
        ([Noise(0.01, 0.0)] * 5 + [Noise(1.5, 0.0)], True),  # once is no habit
        ([Noise(0.3, 0.0)] * 3, False),
        ([Noise(0.0, 0.2)] * 3, False),
    ],
)
def test_a_machine_is_quiet_if_others_seldom_use_it_and_its_host_leaves_it_alone(
    noises: list[Noise], quiet: bool
) -> None:
    found, said = quietness(noises, cpus=2)
    assert found is quiet
    assert ("NOT QUIET" in said) is not quiet
