from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf.rss import TALLY, Sizes, Tallies, read_tallies

BASE: Sizes = np.array([100, 200, 300, 400], np.int64)


def nothing(cpus: int = 2) -> Tallies:
    return np.zeros((4, cpus), TALLY)


def test_members_that_did_not_change_have_what_they_had_at_the_start() -> None:
    reading = read_tallies(nothing(), BASE, space=0, round_=0)
    assert reading.now.tolist() == reading.peak.tolist() == [100, 200, 300, 400]
    assert (reading.total_peak, reading.changes) == (600, 0)


def test_the_cpu_that_saw_the_last_change_knows_the_size() -> None:
    tallies = nothing()
    tallies[0, 0]["time"], tallies[0, 0]["size"], tallies[0, 0]["changes"] = 10, 1000, 3
    tallies[0, 1]["time"], tallies[0, 1]["size"], tallies[0, 1]["changes"] = 20, 500, 1
    reading = read_tallies(tallies, BASE, space=0, round_=0)
    assert reading.now.tolist() == [500, 200, 300, 400]
    assert reading.changes == 4


def test_the_peak_of_a_round_is_the_highest_of_all_cpus_and_not_of_rounds_before() -> None:
    tallies = nothing()
    for cpu, (round_, size, total) in enumerate([(6, 900, 1400), (4, 5000, 9000)]):
        tallies[0, cpu]["time"], tallies[0, cpu]["size"] = 10, 50
        tallies[0, cpu]["peaks"][0] = (round_, 0, size, total)
    tallies[0, 0]["peaks"][1] = (7, 0, 950, 1450)  # began when it was read
    reading = read_tallies(tallies, BASE, space=0, round_=6)
    assert reading.peak.tolist() == [950, 200, 300, 400]
    assert reading.total_peak == 1450


def test_what_another_address_space_had_counts_no_longer() -> None:
    tallies = nothing(1)
    tallies[0, 0]["time"], tallies[0, 0]["size"], tallies[0, 0]["space"] = 10, 7000, 0
    tallies[0, 0]["peaks"][0] = (2, 0, 7000, 7000)
    tallies[1, 0]["time"], tallies[1, 0]["size"], tallies[1, 0]["space"] = 11, 30, 1
    reading = read_tallies(tallies, np.zeros(4, np.int64), space=1, round_=2)
    assert reading.now.tolist() == reading.peak.tolist() == [0, 30, 0, 0]
    assert reading.total_peak == 30


@dataclass
class Kernel:
    """What bpf/programs/rss.c does at each change, in Python."""

    tallies: Tallies
    latest: list[int]
    round: int = 0
    clock: int = 0

    def change(self, cpu: int, member: int, size: int) -> None:
        self.clock += 1
        self.latest[member] = size
        total = sum(self.latest[:3])
        tally = self.tallies[member, cpu]
        peak = tally["peaks"][self.round & 1]
        if peak["round"] != self.round:
            peak["round"], peak["size"], peak["total"] = self.round, size, total
        peak["size"], peak["total"] = max(peak["size"], size), max(peak["total"], total)
        tally["time"], tally["size"] = self.clock, size
        tally["changes"] += 1


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1 << 40)), max_size=8), max_size=6)
)
def test_now_and_peak_are_those_of_the_changes_since_the_last_reading(
    rounds: list[list[tuple[int, int, int]]],
) -> None:
    kernel = Kernel(nothing(3), BASE.tolist())
    for changes in rounds:
        seen = [list(kernel.latest)]
        for cpu, member, size in changes:
            kernel.change(cpu, member, size)
            seen.append(list(kernel.latest))
        ended, kernel.round = kernel.round, kernel.round + 1
        reading = read_tallies(kernel.tallies, BASE, 0, ended)
        assert reading.now.tolist() == kernel.latest
        after = seen[1:] or seen
        for member in range(4):
            mine = [size for _, which, size in changes if which == member] or [kernel.latest[member]]
            assert reading.peak[member] == max(mine)
        assert reading.total_peak == max(sum(sizes[:3]) for sizes in after)
