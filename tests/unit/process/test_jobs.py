"""Which work is left behind, and what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gomem.tracer.process.abandonable import MOST_STUCK, AbandonableWorker
from gomem.tracer.process.jobs import Job, Jobs
from tests.support.processes import wait_until

PATIENCE = 0.02
SLICE = 0.005


@contextmanager
def jobs(patience: float = PATIENCE) -> Iterator[tuple[Jobs[str], threading.Event]]:
    """Have jobs, and what ends the waiting of those that wait for it."""
    made: Jobs[str] = Jobs("test-jobs", patience)
    answer = threading.Event()
    try:
        yield made, answer
    finally:
        answer.set()
        made.close()


def until_stuck(made: Jobs[str]) -> str:
    while (stuck := made.wait(SLICE)) is None:
        assert made.current is not None
        assert not made.finished()
    return stuck.owner


def finished(made: Jobs[str]) -> list[Job[str]]:
    """Wait until something is."""
    found: list[Job[str]] = []

    def some() -> bool:
        found.extend(made.finished())
        return bool(found)

    wait_until(some, "something is done")
    return found


def fail() -> None:
    raise ZeroDivisionError


def wait_for(answer: threading.Event) -> None:
    answer.wait()


def waiting() -> int:
    return sum(thread.name == "test-jobs" for thread in threading.enumerate())


def test_what_is_done_comes_back_with_its_error() -> None:
    with jobs() as (made, _):
        for fails in (False, True):
            made.begin("owner", fail if fails else lambda: None)
            (job,) = finished(made)
            assert job.owner == "owner"
            assert isinstance(job.error, ZeroDivisionError) is fails
            assert not job.was_stuck
            assert made.free


def test_others_go_on_while_one_waits_and_it_is_told_when_it_is_back() -> None:
    with jobs() as (made, answer):
        made.begin("first", lambda: wait_for(answer))
        assert until_stuck(made) == "first"
        made.begin("second", lambda: None)
        assert [one.owner for one in finished(made)] == ["second"]
        assert [one.owner for one in made.stuck] == ["first"]
        answer.set()
        (back,) = finished(made)
        assert (back.owner, back.was_stuck) == ("first", True)
        assert not made.stuck


def test_whoever_computes_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1_000_000))
    monkeypatch.setattr(AbandonableWorker, "cpu_time", lambda self: next(times))
    with jobs(patience=0.0001) as (made, answer):
        made.begin("busy", lambda: wait_for(answer))
        assert [made.wait(SLICE) for _ in range(10)] == [None] * 10
        monkeypatch.setattr(AbandonableWorker, "cpu_time", lambda self: 0)
        monkeypatch.setattr(AbandonableWorker, "runs", True)  # and gets no CPU
        assert [made.wait(SLICE) for _ in range(10)] == [None] * 10
        monkeypatch.setattr(AbandonableWorker, "runs", False)
        assert until_stuck(made) == "busy"


def test_no_more_threads_wait_than_there_may_be() -> None:
    with jobs(patience=0.0001) as (made, answer):
        for number in range(4 * MOST_STUCK):
            assert made.free
            assert made.free_for_all == (number < MOST_STUCK)
            made.begin(str(number), lambda: wait_for(answer))
            until_stuck(made)
        assert not made.free
        assert waiting() == 4 * MOST_STUCK
        answer.set()
        wait_until(lambda: not waiting(), "the threads end")
        assert len(made.finished()) == 4 * MOST_STUCK
        assert made.free
