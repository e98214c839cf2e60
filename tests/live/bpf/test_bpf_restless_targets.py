"""Targets that execute, fork, load code or are killed under attached probes: they go on, and nothing is left behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf.probes.uprobes import Backend
from gomem.tracer.events.record import EventBatch, EventKind
from tests.support.bpf.tracing import Binary, gather, kinds_of, opened, tracing
from tests.support.bpf_objects import Objects, held_by, objects
from tests.support.builds import build
from tests.support.command import executable
from tests.support.processes import running, state, wait_until

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).resolve().parents[3]
BACKENDS = pytest.mark.parametrize("backend", ["multi", "perf"])
ANSWER = 60.0  # seconds
BIG = 64 << 20
COPY_ENDED = "exit status 7, signal -1"
TRACE_BY_PERF = """
import sys
from gomem.bpf.source import BpfSource
from tests.support.bpf.tracing import Binary
binary = Binary(f"/proc/{sys.argv[1]}/exe", sys.argv[2])
source = BpfSource(int(sys.argv[1]), binary.specs(), uprobe_backend="perf")
print("attaching", file=sys.stderr, flush=True)
source.start()
print("watching", file=sys.stderr, flush=True)
while True:
    source.poll(0.1)
"""


def own(target: str, directory: Path) -> Path:
    """Return a copy of a program that nobody else runs: perf events put breakpoints into all that run a file."""
    return Path(shutil.copy2(build(target, "1.25.5"), directory / target))


def told(process: subprocess.Popen[bytes], order: str) -> str:
    """Give a target an order, and return its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{order}\n".encode())
    process.stdin.flush()
    return process.stdout.readline().decode().strip()


def goes_on(process: subprocess.Popen[bytes], lines: int = 4) -> None:
    """Fail unless a target that says how far it is says so again."""
    assert process.stdout is not None
    for _ in range(lines):
        assert process.stdout.readline(), "the target has ended"
    assert process.poll() is None


def wait_until_gone(held: Objects) -> None:
    """Wait until the kernel has none of these any longer: it cleans up behind our back."""
    wait_until(lambda: not held & objects(), "the kernel's cleaning up")


def growths(events: EventBatch) -> int:
    """Return how often the heap grew by a lot."""
    grown = events[events["kind"] == EventKind.GROW]
    return int(np.count_nonzero(grown["args"][:, 1] >= BIG))


def unprobed(pid: int, binary: Binary) -> bool:
    """Return whether no instruction of a process is a breakpoint of ours."""
    return not any(binary.has_breakpoint(pid, spec) for spec in binary.specs())


@contextmanager
def tracer(pid: int, release: str, backend: str) -> Iterator[subprocess.Popen[str]]:
    """Run gomem with all that it can attach, or a tracer of our own with perf events; it is killed in the end."""
    roles = [word for role in ("rss", "page-faults", "spans") for word in ("--with", role)]
    command = [executable(), "trace", "--pid", str(pid), "--duration", "600", *roles]
    if backend == "perf":
        command = [sys.executable, "-c", TRACE_BY_PERF, str(pid), release]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until_it_says(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    said = []
    while word not in (line := process.stderr.readline()):
        said.append(line)
        assert line, "".join(said)


@BACKENDS
def test_a_tracer_that_is_killed_leaves_no_program_link_map_or_breakpoint(tmp_path: Path, backend: str) -> None:
    path = own("churn", tmp_path)
    with running(path, "-mb", "48", "-phase", "100ms") as target, opened(path, "1.25.5") as binary:
        with tracer(target.pid, "1.25.5", backend) as process:
            until_it_says(process, "watching")
            held = held_by(process.pid)
            assert {what for what, _ in held} == {"prog_id", "map_id", "link_id"}
            assert held <= objects()
            assert not unprobed(target.pid, binary), "no probe is in place"
            process.send_signal(signal.SIGKILL)
            process.wait()
        wait_until_gone(held)
        wait_until(lambda: unprobed(target.pid, binary), "the end of the breakpoints")
        goes_on(target)


@BACKENDS
def test_a_tracer_may_be_killed_at_any_moment_of_attaching(tmp_path: Path, backend: str) -> None:
    path = own("churn", tmp_path)
    seed = random.Random(20261121)
    with running(path, "-mb", "48", "-phase", "50ms") as target, opened(path, "1.25.5") as binary:
        for _ in range(5):
            with tracer(target.pid, "1.25.5", backend) as process:
                if backend == "perf":
                    until_it_says(process, "attaching")
                time.sleep(seed.uniform(0.0, 0.8))
                process.send_signal(signal.SIGSTOP)
                wait_until(lambda: state(process.pid) in "TZ", "the tracer's stop")
                held = held_by(process.pid) if state(process.pid) == "T" else frozenset()
                process.kill()
                process.wait()
            wait_until_gone(held)
            goes_on(target, 1)
        wait_until(lambda: unprobed(target.pid, binary), "the end of the breakpoints")
        goes_on(target)


@BACKENDS
def test_a_busy_target_goes_on_while_probes_come_and_go(tmp_path: Path, backend: Backend) -> None:
    path = own("churn", tmp_path)
    with running(path, "-mb", "48", "-phase", "50ms") as target, opened(path, "1.25.5") as binary:
        for _ in range(3 if backend == "multi" else 1):
            with tracing(target.pid, binary.specs(), backend) as source:
                gather(source, EventKind.USED, seconds=ANSWER)
                assert state(target.pid) in "RSD"
            goes_on(target, 1)
        assert unprobed(target.pid, binary)
        goes_on(target)


@BACKENDS
def test_a_target_that_executes_under_probes_goes_on_as_the_other_program(tmp_path: Path, backend: Backend) -> None:
    becomes, churn = own("becomes", tmp_path), own("churn", tmp_path)
    with opened(becomes, "1.25.5") as binary, running(becomes, becomes, churn, "-mb", "16", "-phase", "50ms") as target:
        assert target.stdin is not None
        with tracing(target.pid, binary.specs(), backend) as source:
            # First it becomes itself again, in whose file the probes are, then another program.
            for _ in range(2):
                target.stdin.write(b"x")
                target.stdin.flush()
                events = gather(source, EventKind.EXEC, seconds=ANSWER)
                assert kinds_of(events).count(EventKind.EXEC) == 1
                assert EventKind.EXIT not in events["kind"]
            goes_on(target)
        goes_on(target)
        with opened(churn, "1.25.5") as other:
            assert unprobed(target.pid, other)


@pytest.mark.parametrize("release", ["1.19", "1.25.5"])  # placed before and behind the branch of the stack check
@BACKENDS
def test_the_copy_of_a_process_that_forks_is_neither_seen_nor_harmed(release: str, backend: Backend) -> None:
    path = build("forks", release)
    with opened(path, release) as binary, running(path) as target:
        with tracing(target.pid, binary.specs(), backend) as source:
            assert told(target, "fork") == COPY_ENDED
            before = source.poll(0.5)
            assert told(target, "here") == "done"
            events = np.concatenate((before, gather(source, EventKind.GROW, seconds=ANSWER)))
            while not growths(events):
                events = np.concatenate((events, source.poll(0.2)))
            assert told(target, "fork") == COPY_ENDED
            source.stop()
            events = np.concatenate((events, source.poll(0)))
        assert not growths(before), "the copy took 64 MB, and was mistaken for the target"
        assert growths(events) == 1
        assert EventKind.EXIT not in events["kind"]
        threads = {int(name) for name in os.listdir(f"/proc/{target.pid}/task")}
        assert set(events["tid"].tolist()) <= threads
        assert target.poll() is None


@BACKENDS
def test_a_target_that_loads_a_plugin_is_seen_on(backend: Backend) -> None:
    release = "1.25.5"
    path = build("plugins", release, mode="cgo")
    plugin = build("plugged", release, mode="cgo", extra_flags=["-buildmode=plugin"])
    with opened(path, release) as binary, running(path) as target:
        with tracing(target.pid, binary.specs(), backend) as source:
            assert told(target, str(plugin)) == str(128 << 20)
            source.stop()
            events = source.poll(0)
            assert source.lost == 0
        mapped = [event for event in events if event["kind"] == EventKind.MMAP and event["result"] > 0]
        code = [event for event in mapped if event["args"][2] & 4 and int(event["args"][4]) < 1 << 31]
        assert code, "the plugin's text was mapped"
        assert told(target, str(plugin)) == str(128 << 20), "it goes on"


@pytest.mark.parametrize("signals", [(signal.SIGKILL,), (signal.SIGTERM,), (signal.SIGSTOP, signal.SIGKILL)])
@BACKENDS
def test_the_end_of_a_target_by_a_signal_is_its_last_event(
    signals: tuple[signal.Signals, ...], backend: Backend
) -> None:
    path = build("churn", "1.25.5")
    with opened(path, "1.25.5") as binary, running(path, "-mb", "48", "-phase", "50ms") as target:
        with tracing(target.pid, binary.specs(), backend) as source:
            goes_on(target, 2)
            for one in signals:
                target.send_signal(one)
            events = gather(source, EventKind.EXIT, seconds=ANSWER)
            held = held_by(os.getpid())
            assert not len(source.poll(0.05))
        assert kinds_of(events)[-1] == EventKind.EXIT
        assert kinds_of(events).count(EventKind.EXIT) == 1
        assert target.wait(ANSWER) == -signals[-1]
        wait_until_gone(held - held_by(os.getpid()))
