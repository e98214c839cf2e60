"""Beginnings and ends: of the target, of the tracer, of the room in the ring buffer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf.source import BpfSource
from gomem.bpf.trials import check_bpf
from gomem.tracer.errors import TargetGone
from gomem.tracer.events.record import EventKind
from gomem.tracer.events.source import EventSource
from tests.support.bpf.tracing import gather, kinds_of, opened, tracing
from tests.support.builds import build
from tests.support.processes import running, sleeping, state, wait_until

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).resolve().parents[3]
TRACE_FOREVER = """
import sys
from gomem.bpf.source import BpfSource
from tests.support.bpf.tracing import Binary
binary = Binary(f"/proc/{sys.argv[1]}/exe", sys.argv[2])
source = BpfSource(int(sys.argv[1]), binary.specs(), uprobe_backend=sys.argv[3])
source.start()
while True:
    if len(source.poll(0.1)):
        print("seen", flush=True)
"""


def progress(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("backend", ["multi", "perf"])
def test_a_busy_target_goes_on_unharmed_when_the_tracer_is_killed(tmp_path: Path, release: str, backend: str) -> None:
    # A copy that nobody else runs: perf events put breakpoints into all that run a file.
    path = shutil.copy2(build("churn", release), tmp_path / "churn")
    with running(path, "-mb", "48", "-phase", "100ms") as target:
        command = [sys.executable, "-c", TRACE_FOREVER, str(target.pid), release, backend]
        tracer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert progress(tracer) == b"seen\n"
        finally:
            tracer.send_signal(signal.SIGKILL)
            tracer.communicate()
        for _ in range(8):
            assert progress(target)
        assert target.poll() is None
        with opened(path, release) as binary:
            specs = binary.specs()
            wait_until(lambda: not any(binary.has_breakpoint(target.pid, spec) for spec in specs), "no breakpoint")


def test_the_exit_of_the_target_is_its_last_event() -> None:
    with running(build("forks", "1.25.5")) as process, tracing(process.pid) as source:
        assert process.stdin is not None
        process.stdin.write(b"here\nend\n")
        process.stdin.flush()
        events = gather(source, EventKind.EXIT)
        wait_until(lambda: state(process.pid) == "Z", "the exit")
        assert not len(source.poll(0.1))
    kinds = kinds_of(events)
    assert kinds[-1] == EventKind.EXIT
    assert kinds.count(EventKind.EXIT) == 1
    assert EventKind.MMAP in kinds


def test_a_target_whose_exit_found_no_room_ends_all_the_same() -> None:
    with running(build("mappings", "1.25.5")) as process, tracing(process.pid, ring_bytes=4096) as source:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        while process.stdout.readline().strip():  # more calls than there is room for, and nobody reads
            pass
        process.kill()
        wait_until(lambda: state(process.pid) == "Z", "the exit")
        events = gather(source, EventKind.EXIT)
        assert source.lost > 0
        assert not len(source.poll(0.1))
    kinds = kinds_of(events)
    assert kinds[-1] == EventKind.EXIT
    assert kinds.count(EventKind.EXIT) == 1
    assert (events["time"][1:] >= events["time"][:-1]).all()


def test_execve_by_a_thread_that_is_not_the_leader_is_an_exec_and_no_exit() -> None:
    script = "import os, sys, threading; sys.stdin.readline(); t = threading.Thread(target=os.execv, args=("
    script += "'/bin/sleep', ['sleep', '0.7'])); t.start(); t.join()"
    with running(sys.executable, "-c", script) as process, tracing(process.pid) as source:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        events = gather(source, EventKind.EXIT)
    kinds = [kind for kind in kinds_of(events) if kind in (EventKind.EXEC, EventKind.EXIT)]
    assert kinds == [EventKind.EXEC, EventKind.EXIT]
    assert events["tid"][events["kind"] == EventKind.EXEC].tolist() == [process.pid]


def test_events_that_found_no_room_are_counted() -> None:
    path = build("churn", "1.25.5")
    with opened(path, "1.25.5") as binary, running(path, "-mb", "48", "-phase", "100ms") as process:
        source = BpfSource(process.pid, binary.specs(), ring_bytes=8192)
        source.start()
        wait_until(lambda: sum(status.hits for status in source.probes()) > 500, "500 events")
        source.stop()
        events = source.poll(0)
        hits = sum(status.hits for status in source.probes())
    assert 0 < len(events) <= 8192 // 216
    assert source.lost == hits - len(events)


def test_the_ring_buffer_goes_round_without_losing_or_inventing_anything() -> None:
    path = build("churn", "1.25.5")
    with opened(path, "1.25.5") as binary, running(path, "-mb", "48", "-phase", "100ms") as process:
        source = BpfSource(process.pid, binary.specs(EventKind.USED), ring_bytes=1 << 16)
        source.start()
        batches = [source.poll(1.0)]
        while sum(len(batch) for batch in batches) < 20 * (1 << 16) // 216:
            batches.append(source.poll(1.0))
        source.stop()
        batches.append(source.poll(0))
        events = np.concatenate(batches)
        expected = sum(status.hits for status in source.probes())
        assert len(events) + source.lost == expected
        used = events[events["kind"] == EventKind.USED]
        entry = {binary.called_before(int(address)) for address in np.unique(used["stack"][:, 0])}
        assert entry == {"runtime.sysUsedOS"}


def test_a_stopped_source_is_stopped_twice_and_gives_its_rest_once() -> None:
    with running(build("mappings", "1.25.5")) as process:
        source: EventSource = BpfSource(process.pid)
        source.start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        while process.stdout.readline().strip():
            pass
        source.stop()
        source.stop()
        rest = source.poll(0)
        assert EventKind.PROCESS_MADVISE in rest["kind"]
        assert not len(source.poll(0))
        assert {status.role: status.hits for status in source.probes()}["process_madvise"] == 1


def test_a_process_that_is_gone_is_told_as_such() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    with pytest.raises(TargetGone, match=str(done.pid)):
        BpfSource(done.pid).start()


def test_a_zombie_is_told_as_gone() -> None:
    with running("true") as process:
        wait_until(lambda: state(process.pid) == "Z", "the exit")
        with pytest.raises(TargetGone, match=str(process.pid)):
            BpfSource(process.pid).start()


def test_the_doctor_finds_every_part_working_here() -> None:
    with sleeping() as process:
        checks = check_bpf(process.pid)
    assert all(check.ok is not False for check in checks), checks
    assert {"bcc", "BPF programs", "tracepoints", "uprobe_multi", "perf-event uprobes", "uprobes"} <= {
        c.name for c in checks if c.ok
    }


@pytest.mark.parametrize("nested", [False, True])
def test_a_tracer_in_a_pid_namespace_of_its_own_sees_its_numbers(nested: bool) -> None:
    inside = """
import os, subprocess, sys, time
from gomem.bpf.source import BpfSource
from gomem.tracer.events.record import EventKind
from tests.support.bpf.tracing import gather
child = "import sys, mmap; print(flush=True); sys.stdin.readline(); mmap.mmap(-1, 12345678); sys.stdin.readline()"
nest = ["unshare", "--pid", "--fork", "--kill-child"] if sys.argv[1] == "True" else []
process = subprocess.Popen([*nest, sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
process.stdout.readline()
pid = process.pid
if nest:
    pid = int(open(f"/proc/{pid}/task/{pid}/children").read())
source = BpfSource(pid)
source.start()
process.stdin.write(b"\\n"); process.stdin.flush()
mine = []
while not mine:
    events = gather(source, EventKind.MMAP)
    mine = [e for e in events if e["kind"] == EventKind.MMAP and e["args"][1] == 12345678]
source.stop()
assert len(mine) == 1, events
assert mine[0]["tid"] == pid, (mine[0]["tid"], pid)
process.communicate(b"\\n")
print("as expected")
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", inside, str(nested)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert (done.stdout, done.returncode) == ("as expected\n", 0), done.stderr


def test_a_quiet_target_keeps_poll_waiting_and_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with sleeping() as process:
        source = BpfSource(process.pid)
        source.start()
        started = time.monotonic()
        assert not len(source.poll(0.3))
        assert time.monotonic() - started >= 0.29
        source.stop()
    assert len(os.listdir("/proc/self/fd")) == before
