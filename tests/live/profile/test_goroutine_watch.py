"""Whose goroutines become more while a process is watched, against its own traces."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.goroutine_growth import GoroutineWatch
from tests.support.crowd import Crowd, by_creator, crowd, traced


@contextmanager
def watching(*commands: str) -> Iterator[tuple[Crowd, GoroutineWatch]]:
    with crowd() as process:
        process.obey(*commands)
        with Target.open(process.pid) as target, Inspector.open(target) as inspector:
            yield process, GoroutineWatch(inspector)


def test_of_a_leak_beside_what_comes_and_goes_the_leak_is_told() -> None:
    with watching("gcs", "breathe 50", "turn", "swell", "park 20", "leak 30000") as (process, watch):
        before = by_creator(traced(process.obey("trace")["Trace"]))
        for _ in range(5):
            watch.see(last=False)
            time.sleep(0.5)
        watch.see(last=True)
        growth = watch.growth
        after = by_creator(traced(process.obey("trace")["Trace"]))
        watch.see(last=True)
        watch.see(last=False)
        assert watch.growth is growth, "after the last look there is none"
    assert growth is not None
    assert growth.looks >= 3
    assert growth.seconds >= 2.5
    told = {row.function: row for row in growth.creators}
    leak = told["main.leak"]
    place = (leak.function, leak.file, leak.line)
    assert before[place] <= leak.sums.goroutines_first < leak.sums.goroutines_last <= after[place]
    assert leak.sums.stack_last - leak.sums.stack_first >= 2048 * leak.sums.grown
    assert {name for name, row in told.items() if row.only_grows} == {"main.leak"}
    assert {name for name, row in told.items() if row.some_stay} == {"main.leak"}
    assert told["main.crowd"].sums.grown == 0
    assert told["main.swell"].sums.grown > 50


def test_looks_that_come_too_fast_are_not_all_taken() -> None:
    with watching("park 10") as (_, watch):
        for _ in range(4):
            watch.see(last=False)
        assert watch.growth is None
        watch.see(last=True)
        assert watch.growth is not None
        assert watch.growth.looks == 2


def test_who_is_looked_at_once_has_no_growth() -> None:
    with watching("park 10") as (_, watch):
        watch.see(last=True)
        assert watch.growth is None


def test_of_a_process_that_ends_it_is_told_what_was_seen() -> None:
    with watching("park 10") as (process, watch):
        watch.see(last=False)
        process.obey("park 5")
        time.sleep(0.3)
        watch.see(last=False)
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        watch.see(last=True)
    assert watch.growth is not None
    assert (watch.growth.looks, watch.growth.whole.grown) == (2, 5)
