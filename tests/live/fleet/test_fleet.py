"""A fleet without events: processes that come, go and change are followed as what they are."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gomem.tracer.discovery.selection import Conditions, Selection
from gomem.tracer.fleet.session import FleetSession
from gomem.tracer.fleet.view import FleetView, TargetState
from tests.support.bpf.sharing import sharing
from tests.support.builds import build
from tests.support.fleets import of, watching
from tests.support.parked import parked
from tests.support.processes import running, vm_size, wait_until

CHURN = ("-mb", "16", "-phase", "300ms", "-seconds", "600")


def has_report(pid: int) -> Callable[[FleetView], bool]:
    return lambda view: bool((one := of(view, pid)) and one.report)


def has_not(pid: int) -> Callable[[FleetView], bool]:
    return lambda view: of(view, pid) is None


def test_each_process_is_reported_as_itself() -> None:
    with parked(build("parked", "1.19")) as old, parked(build("parked", "1.27.3")) as new:
        pids = {old.pid: "go1.19", new.pid: "go1.27"}
        with watching(Selection(pids=frozenset(pids))) as watched:
            view = watched.until(
                lambda view: [target.looks > 0 for target in view.targets] == [True, True], "both were looked at"
            )
            for target in view.targets:
                assert target.state is TargetState.FOLLOWED, target.why
                assert target.report is not None
                assert target.report.process.pid == target.pid
                assert (target.report.process.go_version or "").startswith(pids[target.pid])
                assert target.report.virtual is not None
                assert target.report.virtual.total == vm_size(target.pid)
            assert view.health.rounds >= 1
            assert not watched.complaints


def test_a_process_that_ends_leaves_the_view_and_nothing_of_it_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    name = shutil.copy(build("churn", "1.25.5"), tmp_path / "churn of our own")
    with watching(Selection(include=Conditions(exe=(str(name),)))) as watched:
        for _ in range(3):
            with running(name, *CHURN) as process:
                watched.until(has_report(process.pid), "it was looked at")
            view = watched.until(has_not(process.pid), "it left the view")
        assert view.health.targets_ended == 3
        assert not watched.complaints
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_executes_another_program_is_followed_as_that(tmp_path: Path) -> None:
    program = build("churn", "1.21.13")
    fifo = tmp_path / "go on"
    os.mkfifo(fifo)
    script = f'read -r line <"{fifo}"; exec "{program}" {" ".join(CHURN)}'
    with running("sh", "-c", script) as process, watching(Selection(pids=frozenset((process.pid,)))) as watched:
        view = watched.until(has_report(process.pid), "the shell was seen")
        shell = of(view, process.pid)
        assert shell is not None
        assert shell.state is TargetState.KERNEL_ONLY
        assert "not a Go program" in shell.why
        fifo.write_text("\n")
        view = watched.until(
            lambda view: bool((one := of(view, process.pid)) and one.state is TargetState.FOLLOWED), "the Go program"
        )
        target = of(view, process.pid)
        assert target is not None
        assert target.report is not None
        assert target.report.process.go_version == "go1.21.13"
        assert target.name == program.name


def test_without_permission_the_view_says_what_would_help() -> None:
    """The tracer is another user than the target, in a child process of its own."""
    with parked(build("parked", "1.25.5")) as target:
        script = f"""
import os, sys
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from tests.support.bpf.sharing import sharing
from tests.support.fleets import of, watching
from gomem.tracer.discovery.selection import Selection
with watching(Selection(pids=frozenset(({target.pid},)))) as watched:
    view = watched.until(lambda view: bool((one := of(view, {target.pid})) and one.state == "unreadable"), "trouble")
    print(of(view, {target.pid}).why)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CAP_SYS_PTRACE" in done.stdout


def test_what_our_own_mistake_at_one_process_breaks_is_only_the_view_of_that_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with parked(build("parked", "1.25.5")) as good, parked(build("parked", "1.25.5")) as bad:
        look = FleetSession.look

        def fail_at_one(self: FleetSession) -> None:
            if self.pid == bad.pid:
                raise ZeroDivisionError("a mistake of ours")
            look(self)

        monkeypatch.setattr(FleetSession, "look", fail_at_one)
        with watching(Selection(pids=frozenset((good.pid, bad.pid)))) as watched:
            view = watched.until(
                lambda view: (
                    bool((one := of(view, good.pid)) and one.looks > 1)
                    and bool((two := of(view, bad.pid)) and two.state is TargetState.UNREADABLE)
                ),
                "one followed, one given up",
            )
            target = of(view, bad.pid)
            assert target is not None
            assert "ZeroDivisionError" in target.why
            assert [pid for pid, _ in watched.complaints] == [bad.pid]


@pytest.mark.bpf
def test_a_process_that_the_kernel_can_tell_no_events_of_is_looked_at_all_the_same() -> None:
    with parked(build("parked", "1.25.5")) as target, sharing() as source:
        assert source._program is not None
        source._program._table._free.clear()  # as with as many processes as there may be
        with watching(Selection(pids=frozenset((target.pid,))), source) as watched:
            view = watched.until(has_report(target.pid), "it was looked at")
    one = of(view, target.pid)
    assert one is not None
    assert one.report is not None
    assert (one.state, one.follows_events) == (TargetState.FOLLOWED, False)
    assert any("followed already" in limit.why and "filter" in limit.fix for limit in one.report.limits)
    assert not watched.complaints


def test_the_target_is_not_disturbed_by_being_let_go() -> None:
    with running(build("churn", "1.23.9"), *CHURN) as process:
        with watching(Selection(pids=frozenset((process.pid,)))) as watched:
            watched.until(has_report(process.pid), "it was looked at")
        wait_until(lambda: process.poll() is None, "it runs on")
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
