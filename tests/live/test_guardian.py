"""Descriptors that are held elsewhere are closed when whoever handed them over is stopped, frozen or killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomem.tracer.process.guardian import Guardian
from tests.support.processes import state, wait_until
from tests.support.requirements import absent

_ROOT = Path(__file__).resolve().parents[2]
# It hands one end of a pipe over, says who holds it, and takes lines.
_OWNER = """
import os, sys
from gomem.tracer.process.guardian import Guardian
guardian = Guardian()
hold = guardian.hold([int(sys.argv[1])], os.getpid(), dear=True)
print(guardian._process.pid, flush=True)
for line in sys.stdin:
    print(hold.let_go_at, flush=True)
"""


def is_closed(reader: int) -> bool:
    """Tell whether nobody has the other end of a pipe any more."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))


@contextmanager
def owner() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run a process that has a descriptor held; gives it, the pid of the holder, and the other end of the pipe."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(writer)], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        pass_fds=(writer,), text=True,
    )  # fmt: skip
    os.close(writer)
    assert process.stdout is not None
    holder = int(process.stdout.readline())
    try:
        assert not is_closed(reader)
        yield process, holder, reader
    finally:
        process.kill()
        process.communicate()
        os.close(reader)


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_what_is_released_is_closed_and_the_rest_is_kept() -> None:
    pipes = [os.pipe() for _ in range(3)]
    guardian = Guardian()
    holds = [guardian.hold([writer], os.getpid()) for _, writer in pipes]
    holds[1].release()
    wait_until(lambda: is_closed(pipes[1][0]), "the second is closed")
    assert holds[1].released.wait(30)
    assert [is_closed(reader) for reader, _ in pipes] == [False, True, False]
    assert [hold.let_go_at for hold in holds] == [None, None, None]
    guardian.close()
    assert all(is_closed(reader) for reader, _ in pipes)
    for reader, _ in pipes:
        os.close(reader)


def test_many_descriptors_are_held_together() -> None:
    pipes = [os.pipe() for _ in range(150)]
    guardian = Guardian()
    hold = guardian.hold([writer for _, writer in pipes], os.getpid())
    assert not any(is_closed(reader) for reader, _ in pipes)
    hold.release()
    assert hold.released.wait(30)
    assert all(is_closed(reader) for reader, _ in pipes)
    guardian.close()
    for reader, _ in pipes:
        os.close(reader)


def test_the_guardian_may_look_at_processes_and_nothing_else() -> None:
    with owner() as (_, holder, _):
        status = Path(f"/proc/{holder}/status").read_text()
        kept = 1 << 2 | 1 << 19  # DAC_READ_SEARCH, SYS_PTRACE
        for name in ("CapPrm", "CapEff", "CapInh"):
            assert int(status.partition(f"{name}:")[2].split()[0], 16) & ~kept == 0
        assert "NoNewPrivs:\t1" in status


def test_a_process_that_is_stopped_lets_go_and_knows_it_when_it_runs_again() -> None:
    with owner() as (process, _, reader):
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: is_closed(reader), "it is closed")
        assert state(process.pid) == "T"
        os.kill(process.pid, signal.SIGCONT)
        wait_until(lambda: answer(process) != "None", "it knows")


def test_a_holder_that_is_stopped_itself_lets_go() -> None:
    with owner() as (process, holder, reader):
        os.kill(holder, signal.SIGSTOP)
        wait_until(lambda: is_closed(reader), "it is closed")
        wait_until(lambda: answer(process) != "None", "it is known")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_lets_go_and_its_holder_ends(number: signal.Signals) -> None:
    with owner() as (process, holder, reader):
        os.kill(process.pid, number)
        process.wait()
        wait_until(lambda: is_closed(reader), "it is closed")
        wait_until(lambda: not Path(f"/proc/{holder}").exists(), "its holder ends")


def test_a_frozen_cgroup_of_the_second_version_lets_go(tmp_path: Path) -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(words[1]) for words in mounts if words[2] == "cgroup2"]
    group = roots[0] / f"gomem-test-{os.getpid()}" if roots else None
    if group is None or not os.access(roots[0], os.W_OK):
        absent("no cgroup v2 that we may write to")
    group.mkdir()
    try:
        with owner() as (process, holder, reader):
            for pid in (process.pid, holder):
                (group / "cgroup.procs").write_text(str(pid))
            (group / "cgroup.freeze").write_text("1")
            wait_until(lambda: "frozen 1" in (group / "cgroup.events").read_text(), "it is frozen")
            wait_until(lambda: is_closed(reader), "it is closed")
            assert "frozen 1" in (group / "cgroup.events").read_text()
            (group / "cgroup.freeze").write_text("0")
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "it is empty")
    finally:
        group.rmdir()
