"""Profiles of processes that keep whoever looks at them waiting: everybody else gets his."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gomem.exporters.http import profiling
from gomem.exporters.http.profiling import USUAL_SHARE, Profiling
from gomem.exporters.http.response import Response
from gomem.exporters.pprof.decode import decode
from gomem.tracer.fleet.programs import Programs
from tests.support.builds import build
from tests.support.discovery.fuse import executed_from_fuse
from tests.support.heapprofile import profiled
from tests.support.processes import wait_until
from tests.support.requirements import absent
from tests.support.samples.views import target

CHURN = ("-mb", "16", "-phase", "300ms", "-seconds", "600")
NO_ANSWER = "its files do not answer"
STILL = "still waits"


@contextmanager
def taking(share: float = USUAL_SHARE) -> Iterator[Profiling]:
    """Take profiles until the block ends; nothing may fail in a way that was not foreseen."""
    failures: list[Exception] = []
    programs = Programs()
    made = Profiling(programs, lambda pid, error: failures.append(error), share)
    made.start()
    yield made
    made.stop()
    programs.close()
    assert failures == []


def asked(of: Profiling, pid: int, kind: str = "heap") -> Response:
    return of.ask(target(pid, None), kind).result(60)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_file_system_that_keeps_the_thread_waiting_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")
    monkeypatch.setattr(profiling, "_PATIENCE", 1.0)
    monkeypatch.setattr(profiling, "_KEPT_FOR", 0.0)
    other, churn = build("heapprofile", "1.27.3", stripped=True), build("churn", "1.25.5")
    with executed_from_fuse(churn, *CHURN) as (server, pid), profiled(other) as innocent, taking() as made:
        with stopped(server):
            first, beside = (made.ask(target(one, None), "heap") for one in (pid, innocent.pid))
            assert NO_ANSWER in first.result(60).body.decode()
            assert beside.result(60).status == 200
            assert STILL in asked(made, pid, "allocs").body.decode()
            assert first.result().status == asked(made, pid).status == 503
        wait_until(lambda: asked(made, pid).status != 503, "the thread being back")


def test_a_profile_is_kept_for_a_while_and_errors_are_told() -> None:
    with profiled(build("heapprofile", "1.27.3", stripped=True)) as process, taking() as takes:
        first = asked(takes, process.pid)
        assert asked(takes, process.pid) is first
        allocated = asked(takes, process.pid, "allocs")
        assert decode(allocated.body).default_type == "alloc_space"
        assert decode(first.body).default_type == "inuse_space"
        assert takes.cpu_seconds() > 0
        assert asked(takes, process.pid + (1 << 22)).status == 410
        # One that started at another moment is another process.
        other = target(process.pid, None, start_ticks=1)
        assert takes.ask(other, "heap").result(60).status == 410
        assert asked(takes, os.getpid()).status == 404  # which is no Go program


def test_beyond_the_budget_nothing_is_taken() -> None:
    with profiled(build("heapprofile", "1.27.3", stripped=True)) as process, taking(1e-9) as poor:
        poor._budget.spend(1.999)
        assert asked(poor, process.pid).status == 200
        assert asked(poor, process.pid).status == 200  # which is kept
        answer = asked(poor, process.pid, "allocs")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
