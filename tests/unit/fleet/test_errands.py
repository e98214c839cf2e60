"""Which work is left behind, and what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.processes import wait_until
from tracer.fleet.errands import Errand, Errands
from tracer.runner import MOST_STUCK, Runner

PATIENCE = 0.02
SLICE = 0.005


@contextmanager
def errands(patience: float = PATIENCE) -> Iterator[tuple[Errands[str], threading.Event]]:
    """Have errands, and what ends the waiting of those that wait for it."""
    made: Errands[str] = Errands("test-errands", patience)
    answer = threading.Event()
    try:
        yield made, answer
    finally:
        answer.set()
        made.close()


def until_stuck(made: Errands[str]) -> str:
    while (stuck := made.wait(SLICE)) is None:
        assert made.current is not None
        assert not made.finished()
    return stuck.owner


def finished(made: Errands[str]) -> list[Errand[str]]:
    """Wait until something is."""
    found: list[Errand[str]] = []

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
    return sum(thread.name == "test-errands" for thread in threading.enumerate())


def test_what_is_done_comes_back_with_its_error() -> None:
    with errands() as (made, _):
        for fails in (False, True):
            made.begin("owner", fail if fails else lambda: None)
            (errand,) = finished(made)
            assert errand.owner == "owner"
            assert isinstance(errand.error, ZeroDivisionError) is fails
            assert not errand.was_stuck
            assert made.free


def test_others_go_on_while_one_waits_and_it_is_told_when_it_is_back() -> None:
    with errands() as (made, answer):
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
    monkeypatch.setattr(Runner, "cpu_time", lambda self: next(times))
    with errands(patience=0.0001) as (made, answer):
        made.begin("busy", lambda: wait_for(answer))
        assert [made.wait(SLICE) for _ in range(10)] == [None] * 10
        monkeypatch.setattr(Runner, "cpu_time", lambda self: 0)
        monkeypatch.setattr(Runner, "runs", True)  # and gets no CPU
        assert [made.wait(SLICE) for _ in range(10)] == [None] * 10
        monkeypatch.setattr(Runner, "runs", False)
        assert until_stuck(made) == "busy"


def test_no_more_threads_wait_than_there_may_be() -> None:
    with errands(patience=0.0001) as (made, answer):
        for number in range(MOST_STUCK):
            assert made.free
            made.begin(str(number), lambda: wait_for(answer))
            until_stuck(made)
        assert not made.free
        assert waiting() == MOST_STUCK
        answer.set()
        wait_until(lambda: not waiting(), "the threads end")
        assert len(made.finished()) == MOST_STUCK
        assert made.free
