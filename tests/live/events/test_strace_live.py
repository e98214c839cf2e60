"""strace on real processes: every call is seen, and nothing that happens to us or to strace harms the target."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gomem.tracer.errors import BackendUnavailable, NotPermitted, TargetGone
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.events.strace.membership import status_field
from gomem.tracer.events.strace.source import StraceSource
from tests.support.builds import build
from tests.support.processes import running, state, wait_until
from tests.support.requirements import program

PAGE = 4096
ROOT = Path(__file__).resolve().parents[3]
Call = tuple[str, tuple[int, ...], int]


@pytest.fixture(autouse=True)
def _strace() -> None:
    program("strace", "strace")


def drain(source: StraceSource, seconds: float) -> EventBatch:
    """Poll for so long, stop, and return all events."""
    deadline = time.monotonic() + seconds
    batches = [source.poll(0.1)]
    while time.monotonic() < deadline:
        batches.append(source.poll(0.1))
    source.stop()
    batches.append(source.poll(0))
    return np.concatenate(batches)


def tracer_of(pid: int) -> int:
    return int(status_field(Path(f"/proc/{pid}"), "TracerPid") or 0)


def calls(events: EventBatch) -> list[Call]:
    rows = events[events["kind"] < EventKind.EXEC]
    return [(EventKind(int(row["kind"])).name.lower(), tuple(row["args"].tolist()), int(row["result"])) for row in rows]


def told(line: bytes) -> Call:
    record = json.loads(line)
    return record["name"], tuple(record["args"]), record["result"]


def assert_contains_in_order(seen: list[Call], expected: list[Call]) -> None:
    remaining = iter(seen)
    for call in expected:
        assert call in remaining, f"{call} is missing, or not in its place"


def test_every_call_of_a_running_program_is_seen_with_arguments_and_result() -> None:
    with running(build("mappings", "1.25.5")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        source = StraceSource(process.pid)
        source.start()
        process.stdin.write(b"x")
        process.stdin.flush()
        expected = [told(line) for line in iter(process.stdout.readline, b"\n")]
        events = drain(source, 0.3)
        assert len(expected) > 35
        assert_contains_in_order(calls(events), expected)
        assert source.lost == 0
        assert source.failure is None
        assert {probe.role: probe.hits for probe in source.probes()} == {
            kind.name.lower(): int(np.count_nonzero(events["kind"] == kind))
            for kind in EventKind
            if kind < EventKind.EXEC
        }
        assert tracer_of(process.pid) == 0


Intervals = set[tuple[int, int]]


def mapped(pid: int) -> list[tuple[int, int]]:
    """The address space in use, as merged ranges; without [stack], which grows by itself."""
    ranges: list[tuple[int, int]] = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "[stack]" not in line:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            ranges.append((begin, end))
    return merged(ranges)


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def without(ranges: list[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    kept = []
    for low, high in ranges:
        kept += [(low, min(high, begin))] if low < begin else []
        kept += [(max(low, end), high)] if high > end else []
    return [one for one in kept if one[0] < one[1]]


def applied(ranges: list[tuple[int, int]], events: EventBatch) -> list[tuple[int, int]]:
    for row in events:
        address, length = row["args"][:2].tolist()
        length = -(-length // PAGE) * PAGE
        if row["kind"] == EventKind.MMAP and row["result"] > 0:
            ranges = merged([*ranges, (int(row["result"]), int(row["result"]) + length)])
        elif row["kind"] == EventKind.MUNMAP and row["result"] == 0:
            ranges = without(ranges, address, address + length)
    return ranges


def hold_still(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state(pid) in "Tt", "stopping")


def test_the_address_space_follows_from_the_events_of_all_threads(release: str) -> None:
    with running(build("churn", release), "-mb", "256", "-phase", "250ms") as process:
        time.sleep(0.1)
        hold_still(process.pid)
        before = mapped(process.pid)
        source = StraceSource(process.pid)
        source.start()
        os.kill(process.pid, signal.SIGCONT)
        enough, deadline = time.monotonic() + 1.8, time.monotonic() + 60
        batches, advised, threads = [], False, set[int]()
        # On a busy machine its first phase that frees comes late.
        while time.monotonic() < enough or (not (advised and len(threads) > 1) and time.monotonic() < deadline):
            batches.append(source.poll(0.05))
            advised = advised or bool(np.any(batches[-1]["kind"] == EventKind.MADVISE))
            threads.update(batches[-1]["tid"].tolist())
        hold_still(process.pid)
        time.sleep(0.1)
        source.stop()
        batches.append(source.poll(0))
        events = np.concatenate(batches)
        assert len(np.unique(events["tid"])) > 1
        assert np.count_nonzero(events["kind"] == EventKind.MADVISE) > 0
        assert applied(before, events) == mapped(process.pid)
        assert applied(before, events) != before
        assert source.lost == 0


def shared_mappings(events: EventBatch) -> list[int]:
    """The lengths of what Python's mmap.mmap(-1, n) maps (MAP_SHARED, unlike malloc's arenas)."""
    shared = events[(events["kind"] == EventKind.MMAP) & (events["args"][:, 3] & 1 == 1)]
    lengths: list[int] = shared["args"][:, 1].tolist()
    return lengths


FORKER = """
import mmap, subprocess, sys, threading
print("ready", flush=True)
sys.stdin.read(1)
for step in range(1, 9):
    mmap.mmap(-1, step << 24).close()
    subprocess.run(["/bin/true"])
print("done", flush=True)
sys.stdin.read()
"""


def test_calls_of_forked_children_are_not_the_targets() -> None:
    with running(sys.executable, "-c", FORKER) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        source = StraceSource(process.pid)
        source.start()
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.readline()
        events = drain(source, 0.2)
        assert np.unique(events["tid"]).tolist() == [process.pid]
        assert shared_mappings(events) == [step << 24 for step in range(1, 9)]
        assert not np.isin(events["kind"], (EventKind.EXEC, EventKind.EXIT)).any()
        assert source.lost == 0


THREADS = """
import mmap, subprocess, sys, threading
print("ready", flush=True)
sys.stdin.read(1)
for step in range(1, 41):
    thread = threading.Thread(target=lambda: mmap.mmap(-1, step << 24).close())
    thread.start()
    thread.join()
    if step % 8 == 0:
        subprocess.run(["/bin/true"])
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("namespace", ["ours", "its own"])
def test_threads_that_are_gone_before_we_look_are_still_the_targets(namespace: str) -> None:
    words = ["unshare", "--pid", "--fork", "--kill-child"] if namespace == "its own" else []
    with running(*words, sys.executable, "-c", THREADS) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            pytest.skip("no PID namespace can be made here")
        pid = process.pid
        if words:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        source = StraceSource(pid)
        source.start()
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.readline()  # nothing is polled meanwhile: all 40 threads have come and gone
        events = drain(source, 0.2)
        assert source.lost == 0
        assert shared_mappings(events) == [step << 24 for step in range(1, 41)]
        assert not np.isin(events["kind"], (EventKind.EXEC, EventKind.EXIT)).any()
        if words:
            process.communicate(timeout=60)


def test_an_exit_of_the_target_is_the_last_event() -> None:
    with running("sh", "-c", "read order") as process:
        assert process.stdin is not None
        source = StraceSource(process.pid)
        source.start()
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.wait(60)
        events = drain(source, 0.2)
        assert (int(events["kind"][-1]), int(events["result"][-1])) == (EventKind.EXIT, 0)
        assert source.failure is None


# The other ends: what is killed here must not take the target along.

WATCHER = """
import sys, time
from gomem.tracer.events.strace.source import StraceSource
source = StraceSource(int(sys.argv[1]))
source.start()
print("attached", flush=True)
time.sleep(600)
"""

LAUNCHER = """
import sys, time
from gomem.tracer.process.launch import Launched
from gomem.tracer.events.strace.source import StraceSource
launched = Launched(sys.argv[1:])
source = StraceSource(launched.pid, from_exec=True)
source.start()
launched.resume()
print(source.pid, flush=True, file=sys.stderr)
time.sleep(600)
"""


@pytest.fixture
def churning() -> Iterator[subprocess.Popen[bytes]]:
    with running(build("churn", "1.27.3"), "-mb", "64", "-phase", "50ms") as process:
        yield process


def assert_goes_on(process: subprocess.Popen[bytes]) -> None:
    """The target is untraced and prints its phases: it does all its system calls."""
    wait_until(lambda: tracer_of(process.pid) == 0, "the end of tracing")
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    process.stdout.read()  # what it said before
    os.set_blocking(process.stdout.fileno(), True)
    assert all([process.stdout.readline() for _ in range(3)])
    assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_target_goes_on_when_we_are_killed(churning: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(churning.pid)], stdout=subprocess.PIPE, cwd=ROOT
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == b"attached\n"
        strace = tracer_of(churning.pid)
        assert strace != 0
        watcher.send_signal(number)
        watcher.wait(60)
    assert_goes_on(churning)
    wait_until(lambda: not Path(f"/proc/{strace}").exists(), "the end of strace")


def test_the_target_goes_on_when_strace_is_killed_and_we_say_so(churning: subprocess.Popen[bytes]) -> None:
    source = StraceSource(churning.pid)
    source.start()
    os.kill(tracer_of(churning.pid), signal.SIGKILL)
    assert_goes_on(churning)
    drain(source, 0.1)
    assert source.failure is not None
    assert "strace ended" in source.failure


def test_a_launched_program_goes_on_when_we_are_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, build("mappings", "1.27.3")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as launcher:  # fmt: skip
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        assert launcher.stderr is not None
        pid = int(launcher.stderr.readline())
        launcher.kill()
        launcher.wait(60)
        wait_until(lambda: tracer_of(pid) == 0, "the end of tracing")
        launcher.stdin.write(b"x")
        launcher.stdin.flush()
        done = [told(line) for line in iter(launcher.stdout.readline, b"\n")]
        assert [result for name, _, result in done if name == "mmap"].count(-38) == 0  # ENOSYS: a seccomp filter
        assert sum(name == "mmap" and result > 0 for name, _, result in done) == 8
        launcher.stdin.close()
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z", "its end")


def test_a_launched_program_is_seen_from_its_exec_and_left_running(tmp_path: Path) -> None:
    output = tmp_path / "events.json"
    script = f"OUTPUT = {str(output)!r}\n" + (
        "import sys, json\n"
        "from gomem.tracer.events.record import EventKind\n"
        "from gomem.tracer.process.launch import Launched\n"
        "from gomem.tracer.events.strace.source import StraceSource\n"
        "launched = Launched(sys.argv[1:])\n"
        "source = StraceSource(launched.pid, from_exec=True)\n"
        "source.start()\n"
        "launched.resume()\n"
        "events = []\n"
        # Its runtime is up when it has made its reservations, and it waits for its input soon after.
        "while sum(e['args'][2] == 0 for e in events if e['kind'] == EventKind.MMAP) < 7 or len(last):\n"
        "    last = list(source.poll(0.2))\n"
        "    events += last\n"
        "source.stop()\n"
        "events += list(source.poll(0))\n"
        "rows = [[int(e['kind']), int(e['tid']), e['args'].tolist(), int(e['result'])] for e in events]\n"
        "json.dump([source.pid, source.lost, rows], open(OUTPUT, 'w'))\n"
    )
    target = build("mappings", "1.27.3")
    with subprocess.Popen(
        [sys.executable, "-c", script, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as launcher:  # fmt: skip
        assert launcher.stdin is not None
        assert launcher.wait(120) == 0
        pid, lost, rows = json.loads(output.read_text())
        assert lost == 0
        assert rows[0][0] == EventKind.EXEC
        reserved = [args[1] for kind, _, args, _ in rows if kind == EventKind.MMAP and args[2] == 0]
        assert reserved[:7] == [131072, 1 << 20, 8 << 20, 64 << 20, 512 << 20, 512 << 20, 64 << 20]
        wait_until(lambda: state(pid) == "S", "its waiting for input")
        assert os.readlink(f"/proc/{pid}/exe") == str(target)
        launcher.stdin.close()
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z", "its end")


def test_a_process_that_has_a_tracer_is_refused_with_its_name(churning: subprocess.Popen[bytes]) -> None:
    first = StraceSource(churning.pid)
    first.start()
    with pytest.raises(BackendUnavailable, match=r"already traced by process \d+ \(strace\)"):
        StraceSource(churning.pid).start()
    first.stop()
    assert_goes_on(churning)


def test_no_process_and_a_zombie_are_gone() -> None:
    with pytest.raises(TargetGone, match="no process"):
        StraceSource((1 << 22) + 1).start()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    wait_until(lambda: state(pid) == "Z", "a zombie")
    try:
        with pytest.raises(TargetGone, match="zombie"):
            StraceSource(pid).start()
    finally:
        os.waitpid(pid, 0)


def test_a_missing_strace_is_said_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BackendUnavailable, match="not installed") as caught:
        StraceSource(os.getpid()).start()
    assert "apt-get install strace" in caught.value.fix


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_users_process_is_not_permitted(churning: subprocess.Popen[bytes]) -> None:
    child = os.fork()
    if child == 0:
        verdict = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            StraceSource(churning.pid).start()
        except NotPermitted as error:
            verdict = 0 if "CAP_SYS_PTRACE" in error.fix else 2
        finally:
            os._exit(verdict)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_goes_on(churning)


def ticks(pid: int) -> list[str]:
    """Return the CPU time of a process, user and system."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def test_a_strace_that_we_do_not_read_from_ends_instead_of_blocking_the_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gomem.tracer.events.strace.spool.Spool.MAX_UNREAD", 64 << 10)
    loop = "import mmap, sys\nwhile True:\n    mmap.mmap(-1, 4096).close()\n    print('x', flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.DEVNULL) as process:
        source = StraceSource(process.pid)
        source.start()
        wait_until(lambda: tracer_of(process.pid) == 0, "the end of a strace that is not read from")
        used = ticks(process.pid)
        wait_until(lambda: ticks(process.pid) != used, "its going on")
        source.stop()
        assert source.failure is not None
        assert len(source.poll(0)) > 100
        process.kill()
