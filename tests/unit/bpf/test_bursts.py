"""When probes are on: as long as they cost no more than their share, and never in step with the target."""

from __future__ import annotations

import threading
from itertools import pairwise
from random import Random

import pytest

from gomem.bpf.bursts import Burster, BurstSchedule, Slice
from gomem.tracer.errors import BackendUnavailable, WouldWait

PRICE = 1e-6


def drive(
    schedule: BurstSchedule, seconds: float, hits_per_second: float, *, step: float = 0.002, late: float = 0.0,
    threads: int = 1,
) -> tuple[float, list[tuple[float, float]]]:  # fmt: skip
    """Run a target that hits so often while probes are on; return what it paid and when they were on.

    They stay on for `late` seconds after it was decided that they go.
    """
    now = hits = 0.0
    off_at = -1.0
    windows: list[tuple[float, float]] = []
    began: float | None = None
    while now < seconds:
        on = schedule.decide(now, now * threads, hits * PRICE)
        if on and began is None:
            began = now
        if not on and began is not None:
            windows.append((began, now))
            began, off_at = None, now + late
        if on or now < off_at:
            hits += hits_per_second * step
        now += step
    if began is not None:
        windows.append((began, now))
    return hits * PRICE, windows


def test_what_costs_little_stays_on() -> None:
    cost, windows = drive(BurstSchedule(0.01, Random(1)), 60, 5_000)
    assert len(windows) == 1
    assert windows[0][1] == pytest.approx(60, abs=0.1)
    assert cost < 0.6


def test_what_is_hit_all_the_time_is_on_for_short_bursts_within_its_share() -> None:
    cost, windows = drive(BurstSchedule(0.01, Random(2)), 300, 1_000_000, late=0.03)
    assert len(windows) > 30
    assert all(end - begin < 0.05 for begin, end in windows)
    # The share of the time, and what it begins with.
    assert 0.5 * 300 * 0.01 < cost < 300 * 0.01 + 0.07


def test_the_share_is_of_the_cpu_time_of_all_threads() -> None:
    one, _ = drive(BurstSchedule(0.01, Random(2)), 200, 1_000_000, step=0.0005)
    four, _ = drive(BurstSchedule(0.01, Random(2)), 200, 4_000_000, threads=4, step=0.0005)
    assert 3 * one < four < 4 * 200 * 0.01


def test_bursts_begin_at_random_moments() -> None:
    def beginnings(seed: int) -> list[float]:
        return [begin for begin, _ in drive(BurstSchedule(0.01, Random(seed)), 100, 1_000_000)[1]]

    some, others = beginnings(1), beginnings(2)
    assert some[0] != others[0]
    pauses = [after - before for before, after in pairwise(some)]
    assert max(pauses) > 1.1 * min(pauses)


def test_a_whole_budget_never_takes_them_off() -> None:
    _, windows = drive(BurstSchedule(1.0, Random(1)), 10, 1_000_000)
    assert len(windows) == 1


def test_a_first_burst_may_begin_at_once() -> None:
    _, windows = drive(BurstSchedule(0.01, Random(1), on=True), 60, 5_000)
    assert windows[0][0] == 0
    assert len(windows) == 1
    cost, windows = drive(BurstSchedule(0.01, Random(2), on=True), 300, 1_000_000, late=0.03)
    assert windows[0][0] == 0
    assert 0.5 * 300 * 0.01 < cost < 300 * 0.01 + 0.07


def test_a_busy_moment_takes_what_was_saved() -> None:
    def first_burst(saved_for: float) -> float:
        _, windows = drive(BurstSchedule(0.01, Random(2), saved_for=saved_for, on=True), 30, 1_000_000)
        return windows[0][1] - windows[0][0]

    assert first_burst(5.0) == pytest.approx(10 * first_burst(0.5), rel=0.2)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        BurstSchedule(0.0, Random(1))


class Uprobes:
    """Stands for HeldUprobes, and for what counts at them: notes what is done to them, in order."""

    def __init__(self, *errors: Exception) -> None:
        self.done: list[str] = []
        self.errors = list(errors)
        self.off = True
        self.settled = threading.Event()
        self.settled.set()
        self.let_go_at: int | None = None
        self.hits = 0

    def put_on(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.done.append("on")

    def take_off(self) -> None:
        self.done.append("off")

    def lost_at(self) -> int | None:
        when, self.let_go_at = self.let_go_at, None
        return when

    def count(self, *, on: bool) -> None:
        self.done.append("count" if on else "rest")

    def spent(self) -> float:
        self.hits += 10_000
        return self.hits * PRICE


class Clock:
    def __init__(self, step: float = 0.01) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def burster(uprobes: Uprobes, share: float, slices: list[Slice]) -> Burster:
    schedule = BurstSchedule(share, Random(1))
    clock = Clock()
    return Burster(
        uprobes, uprobes, schedule, 1, lambda: uprobes.done.append("begins"), slices.append,  # type: ignore[arg-type]
        clock=clock, cpu_seconds=lambda pid: clock.now,
    )  # fmt: skip


def until(condition: threading.Event) -> None:
    assert condition.wait(30)


def test_counting_begins_when_all_probes_are_on_and_ends_before_the_first_goes() -> None:
    uprobes = Uprobes()
    slices: list[Slice] = []
    one = burster(uprobes, 1.0, slices)
    one.put_on()
    one.stop()
    assert uprobes.done == ["begins", "on", "count", "rest", "off"]
    assert [piece.last for piece in slices] == [True]
    assert one.figures.bursts == 1
    assert one.figures.seconds > 0
    one.stop()
    assert len(slices) == 1


def test_bursts_come_and_go_by_themselves() -> None:
    uprobes = Uprobes()
    slices: list[Slice] = []
    enough = threading.Event()

    def take(piece: Slice) -> None:
        slices.append(piece)
        if len(slices) == 2:
            enough.set()

    clock = Clock(0.5)
    schedule = BurstSchedule(0.05, Random(1))
    one = Burster(
        uprobes, uprobes, schedule, 1, lambda: None, take,  # type: ignore[arg-type]
        clock=clock, cpu_seconds=lambda pid: clock.now,
    )  # fmt: skip
    uprobes.spent = lambda: len(uprobes.done) * 0.1  # type: ignore[method-assign]
    one.begin()
    until(enough)
    one.stop()
    assert uprobes.done[:8] == ["on", "count", "rest", "off"] * 2
    assert one.figures.bursts >= 2
    assert [piece.last for piece in slices].count(True) == 1


def test_probes_that_were_taken_off_because_we_were_stopped_come_back() -> None:
    uprobes = Uprobes()
    slices: list[Slice] = []
    one = burster(uprobes, 1.0, slices)
    one.put_on()
    uprobes.let_go_at = int(100.015e9)
    back = threading.Event()
    put_on = uprobes.put_on

    def again() -> None:
        put_on()
        back.set()

    uprobes.put_on = again  # type: ignore[method-assign]
    one.begin()
    until(back)
    one.stop()
    assert uprobes.done == ["begins", "on", "count", "rest", "begins", "on", "count", "rest", "off"]
    assert one.figures.stopped == 1
    assert one.figures.unseen > 0


def test_a_refusal_is_told_and_a_process_that_does_not_answer_is_waited_for() -> None:
    refused = burster(Uprobes(BackendUnavailable("no")), 1.0, [])
    refused.put_on()
    refused.begin()
    refused.stop()
    assert refused.figures.failure == "no"
    assert not refused.figures.bursts

    uprobes = Uprobes(WouldWait("busy"))
    waiting = burster(uprobes, 1.0, [])
    waiting.put_on()
    assert (waiting.figures.failure, waiting.figures.waits) == ("", "busy")
    waiting.put_on()
    waiting.stop()
    assert uprobes.done[:4] == ["begins", "begins", "on", "count"]
