"""How a process ended that is not our child, by each of the ways in which the kernel tells it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gomem.tracer.ending import afterlife
from gomem.tracer.ending.afterlife import Afterlife, WaitStatus
from gomem.tracer.ending.endings import Endings
from gomem.tracer.ending.oom import OomWatch
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.kernel.process_events import ProcessEvents
from gomem.tracer.process.target import Target
from gomem.tracer.report import OomKill
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.processes import start_ticks, state, wait_until
from tests.support.requirements import absent

WAYS = [
    ("exit 0", WaitStatus(0, None, False)),
    ("exit 3", WaitStatus(3, None, False)),
    ("kill -KILL $$", WaitStatus(None, signal.SIGKILL, False)),
    ("ulimit -c 0; kill -SEGV $$", WaitStatus(None, signal.SIGSEGV, False)),
]
EATS = "bytearray(200 << 20)"


@pytest.fixture
def older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the process connector tells how a process ended that has been collected."""
    try:
        ProcessEvents.open().close()
    except BackendUnavailable as error:
        absent(str(error))
    monkeypatch.setattr(afterlife, "_has_info", lambda pidfd: False)
    monkeypatch.setattr(afterlife, "_told_by_pidfd", lambda pidfd: None)
    monkeypatch.setattr(afterlife, "_told_by_zombie", lambda directory: None)


@contextmanager
def waiting(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that ends its life when it gets a line."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    process.stdin = None
    wait_until(lambda: state(process.pid) == "Z", "its end")


def until_in(directory: Path, pid: int) -> None:
    wait_until(lambda: directory.name in Path(f"/proc/{pid}/cgroup").read_text(), "its joining")


@pytest.mark.parametrize(("way", "told"), WAYS)
def test_the_way_it_ended_is_known_before_and_after_its_parent_has_collected_it(way: str, told: WaitStatus) -> None:
    with waiting("/bin/sh", "-c", f"read x; {way}") as process:
        life = Afterlife(process.pid)
        try:
            assert life.status() is None, "it lives"
            go_on(process)
            assert life.status() == told
            process.wait()
            assert not Path(f"/proc/{process.pid}").exists()
            after = life.status()
        finally:
            life.close()
    if after is None:
        absent("this kernel does not tell the exit status of a process that has been collected")
    assert after == told


def test_many_processes_are_watched_with_one_log_and_each_is_told_from_who_has_its_pid_next() -> None:
    endings = Endings()
    endings.open()
    with (
        memory_cgroup(limit=64 << 20) as (directory, _),
        waiting(*joining(directory), "/bin/sh", "-c", f"read x; exec python3 -c '{EATS}'") as eater,
        waiting("/bin/sh", "-c", "read x; exit 3") as other,
    ):
        until_in(directory, eater.pid)
        lives = {process.pid: endings.begin(process.pid, start_ticks(process.pid)) for process in (eater, other)}
        assert endings.begin(other.pid, start_ticks(other.pid) - 1) is None
        first, second = lives[eater.pid], lives[other.pid]
        assert first is not None
        assert second is not None
        assert select.select([first.pidfd, second.pidfd], [], [], 0)[0] == []
        for process in (eater, other):
            go_on(process)
        assert len(select.select([first.pidfd, second.pidfd], [], [], 10)[0]) == 2
        assert endings.status(first) == WaitStatus(None, signal.SIGKILL, False)
        assert endings.status(second) == WaitStatus(3, None, False)
        readable = endings.names_victims(0.0)
        if readable:
            wait_until(lambda: endings.victim(eater.pid) is not None, "its name in the log")
            assert endings.victim(eater.pid) == OomKill("cgroup", f"/{directory.name}", 64 << 20, True)
        assert endings.victim(other.pid) is None
        endings.end(first)
        endings.end(second)
        assert endings.victim(eater.pid) is None
    endings.close()
    if not readable:
        absent("the kernel's log cannot be read here")


@pytest.mark.alone
@pytest.mark.usefixtures("older_kernel")
def test_one_process_connector_tells_it_of_many_on_older_kernels() -> None:
    endings = Endings()
    endings.open()
    with ExitStack() as stack:
        stack.callback(endings.close)
        ways = [(stack.enter_context(waiting("/bin/sh", "-c", f"read x; {way}")), told) for way, told in WAYS]
        lives = [endings.begin(process.pid, start_ticks(process.pid)) for process, _ in ways]
        unwatched = stack.enter_context(waiting("/bin/sh", "-c", "read x; exit 5"))
        for process, _ in [*ways, (unwatched, None)]:
            go_on(process)
            process.wait()
        for life, (_, told) in zip(lives, ways, strict=True):
            assert life is not None
            assert endings.status(life) == told
            endings.end(life)
            assert endings.status(life) is None


@pytest.mark.alone
@pytest.mark.usefixtures("older_kernel")
def test_the_process_connector_tells_it_on_older_kernels() -> None:
    for way, told in WAYS:
        with waiting("/bin/sh", "-c", f"read x; {way}") as process:
            life = Afterlife(process.pid)
            try:
                go_on(process)
                process.wait()
                assert life.status() == told, way
            finally:
                life.close()


def test_the_victim_of_the_oom_killer_and_one_that_was_killed_beside_it() -> None:
    """The one in the cgroup that grew is the victim; the one beside it got its SIGKILL from us."""
    with (
        memory_cgroup(limit=64 << 20) as (directory, _),
        waiting(*joining(directory), "/bin/sh", "-c", f"read x; exec python3 -c '{EATS}'") as eater,
        waiting(*joining(directory), "/bin/sh", "-c", "read x; kill -KILL $$") as other,
    ):
        for process in (eater, other):
            until_in(directory, process.pid)
        with Target.open(eater.pid) as first, Target.open(other.pid) as second:
            watches = OomWatch(first), OomWatch(second)
            by_counter = OomWatch(second)
            os.close(by_counter._log) if by_counter._log >= 0 else None
            by_counter._log = -1  # as where the kernel's log may not be read
        go_on(eater)
        go_on(other)
        assert eater.wait() == other.wait() == -signal.SIGKILL
        path = f"/{directory.name}"
        results = [watch.result() for watch in watches]
        counted = by_counter.result()
        for watch in (*watches, by_counter):
            watch.close()
    if results[0] is None or not results[0].proven:
        absent("the kernel's log cannot be read here")
    assert results[0] == OomKill("cgroup", path, 64 << 20, True)
    assert counted == OomKill(None, path, None, proven=False, kills=1)
    assert results[1] is None, "the log names the other one alone"
