"""Pids and command lines that gomem refuses, and how it says so."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import gomem
from tests.support.parked import parked
from tests.support.processes import running, state, wait_until, without_capabilities
from tests.support.requirements import absent, program

COMMANDS = pytest.mark.parametrize("command", [["trace", "--duration", "1"], ["snapshot"]], ids=["trace", "snapshot"])


def _pid_of_nobody() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@COMMANDS
def test_no_such_pid(command: list[str]) -> None:
    pid = _pid_of_nobody()
    assert str(pid) in gomem(*command, "--pid", pid).refusal(1)


@COMMANDS
def test_a_pid_beyond_the_kernels_range(command: list[str]) -> None:
    gomem(*command, "--pid", 2**31 - 1).refusal(1)


@COMMANDS
def test_a_zombie(command: list[str]) -> None:
    process = subprocess.Popen(["true"])
    try:
        wait_until(lambda: state(process.pid) == "Z", "the zombie")
        message = gomem(*command, "--pid", process.pid).refusal(1)
    finally:
        process.wait()
    assert "zombie" in message


@COMMANDS
def test_a_kernel_thread(command: list[str]) -> None:
    kthreadd = Path("/proc/2/stat")
    if not kthreadd.exists() or "(kthreadd)" not in kthreadd.read_text():
        absent("no kernel thread is visible in this PID namespace")
    assert "kernel thread" in gomem(*command, "--pid", 2).refusal(1)


@COMMANDS
def test_the_id_of_a_thread_that_is_no_process(command: list[str]) -> None:
    ready, done = threading.Event(), threading.Event()
    ids: list[int] = []

    def thread() -> None:
        ids.append(threading.get_native_id())
        ready.set()
        done.wait()

    other = threading.Thread(target=thread)
    other.start()
    try:
        ready.wait()
        assert str(os.getpid()) in gomem(*command, "--pid", ids[0]).refusal(1), "it names the process to take instead"
    finally:
        done.set()
        other.join()


@pytest.mark.parametrize(
    "words",
    [
        ["trace"],
        ["snapshot"],
        ["trace", "--pid", "one"],
        ["trace", "--pid", "0"],
        ["trace", "--pid", "-1"],
        ["trace", "--pid", "1", "--duration", "-1"],
        ["trace", "--pid", "1", "--duration", "nan"],
        ["trace", "--pid", "1", "--format", "xml"],
        ["trace", "--pid", "1", "--backend", "magic"],
        ["trace", "--pid", "1", "--", "true"],
        ["trace", "--"],
        ["frobnicate"],
        ["snapshot", "--pid", "1", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense(words: list[str]) -> None:
    # Where a command would be started, 2 could be the command's own code.
    gomem(*words).refusal(125 if words[-2:] == ["--", "true"] else 2)


def test_a_program_that_is_not_go_gets_what_the_kernel_knows() -> None:
    with running("sleep", 60) as process:
        report = gomem("snapshot", "--pid", process.pid, "--format", "json").report()
    assert report["memstats"] is None
    assert report["heap"] is None
    assert report["process"]["go_version"] is None
    assert report["virtual"]["total"] > 0
    assert report["resident"]["total"] > 0
    assert report["limits"]


@COMMANDS
def test_a_program_that_is_not_go_is_refused_where_go_is_required(command: list[str]) -> None:
    with running("sleep", 60) as process:
        assert "Go" in gomem(*command, "--require-go", "--pid", process.pid).refusal(1)


@COMMANDS
def test_without_permission_it_names_the_capability(command: list[str]) -> None:
    program("setpriv", "util-linux")
    if os.geteuid() != 0:
        absent("only root can give permissions away")
    with parked(build("parked", "1.25.5"), live=1) as target:
        message = gomem(*command, "--pid", target.pid, under=without_capabilities()).refusal(77)
        assert "CAP_SYS_PTRACE" in message
        assert str(target.pid) in message
        before = dict(target.emitted)
        assert target.memstats() == before
