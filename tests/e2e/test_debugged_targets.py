"""A debugger and gomem at one process, at the same instructions: the process lives, whoever leaves first."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.bench.attack_steady import Steady, steady
from tests.support.command import started
from tests.support.debugger import debugged, probed
from tests.support.processes import wait_until

pytestmark = pytest.mark.bpf
_WATCH = ("--with", "spans", "--budget", "100", "--duration", "100")


def goes_on(target: Steady) -> bool:
    rounds = target.progress.rounds
    wait_until(lambda: target.ended or target.progress.rounds > rounds + 10, "it goes on")
    return not target.ended and not target.progress.wrong


def untouched(target: Steady) -> Callable[[], bool]:
    return lambda: not target.ended and not probed(target.pid)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL, signal.SIGSTOP])
def test_a_breakpoint_that_was_set_on_a_probe_may_be_removed_when_gomem_has_gone(end: signal.Signals) -> None:
    with steady() as target, started("trace", target.pid, *_WATCH) as trace:
        wait_until(lambda: len(probed(target.pid)) > 5, "the probes are on")
        with debugged(target.pid, probed(target.pid)) as debugger:
            assert goes_on(target)
            trace.send_signal(end)
            if end is signal.SIGSTOP:
                time.sleep(3)  # longer than gomem may be silent before its guardian lets dear probes go
            else:
                trace.communicate()
            assert goes_on(target)
            debugger.leave()
            assert goes_on(target)
        if end is signal.SIGSTOP:
            trace.kill()
        wait_until(untouched(target), "no probe is left")
        assert goes_on(target)


def test_a_debugger_that_was_there_first_may_leave_first_or_last() -> None:
    with steady() as target:
        with started("trace", target.pid, *_WATCH) as trace:
            wait_until(lambda: len(probed(target.pid)) > 5, "the probes are on")
            places = probed(target.pid)
            trace.kill()
        wait_until(untouched(target), "no probe is left")
        # The main thread alone is traced: who else came to a breakpoint that is no probe would end the process.
        with debugged(target.pid, []) as debugger, started("trace", target.pid, *_WATCH) as trace:
            wait_until(lambda: probed(target.pid) == places, "the probes are on")
            assert goes_on(target)
            debugger.leave()
            assert goes_on(target)
            trace.send_signal(signal.SIGINT)
            trace.communicate()
        wait_until(untouched(target), "no probe is left")
        assert goes_on(target)
