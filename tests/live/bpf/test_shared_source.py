"""One source for many processes: whose event is whose, and what one of them may do to the others."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf.memory_calls import SeenBy
from gomem.bpf.shared_source import SharedSource
from gomem.bpf.source import BpfSource
from gomem.tracer.errors import BackendUnavailable, TargetGone
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import USED_MARKS, EventBatch, EventKind
from gomem.tracer.events.source import EventSource, ProbeStatus
from gomem.tracer.process.launch import Launched
from tests.support.bpf.sharing import Gathered, sharing
from tests.support.bpf.tracing import Binary, opened, tracing
from tests.support.builds import build
from tests.support.processes import running, sleeping, state, wait_until

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).resolve().parents[3]
BOTH = pytest.mark.parametrize("tells_last", [None, False], ids=["last thread told", "leader told"])


def contents(events: EventBatch) -> Counter[bytes]:
    """Return events without their times, which each source reads for itself."""
    events = events.copy()
    events["time"] = events["entered"] = 0
    return Counter(event.tobytes() for event in events)


def say(process: subprocess.Popen[bytes], line: bytes = b"\n") -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def churn(tmp_path: Path) -> Path:
    """Return a copy of a program that nobody else on the machine can put uprobes on."""
    return Path(shutil.copy(build("churn", "1.25.5"), tmp_path))


def wait_for_no_breakpoint(binary: Binary, pid: int) -> None:
    """Wait, because another tracer on the machine may follow every Go process for a while."""
    specs = binary.specs()
    wait_until(lambda: not any(binary.has_breakpoint(pid, spec) for spec in specs), "the end of all uprobes", 100)


def hits(probes: Iterable[ProbeStatus]) -> Counter[tuple[str, int]]:
    return Counter((probe.role, probe.hits) for probe in probes)


def mapped(events: EventBatch, size: int) -> int:
    """Count the mmaps of that many bytes."""
    return int(((events["kind"] == EventKind.MMAP) & (events["args"][:, 1] == size)).sum())


@pytest.mark.parametrize("seen_by", [None, "single calls", "all calls"], ids=["best", "single calls", "all calls"])
def test_every_process_has_the_events_that_a_source_of_its_own_sees(seen_by: SeenBy | None) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(sharing(seen_by=seen_by))
        gathered = Gathered(source)
        alone: dict[int, tuple[BpfSource, list[EventBatch]]] = {}
        children: list[Launched] = []
        for release in ("1.21.13", "1.27.3", "1.21.13", "1.27.3"):
            path = build("churn", release)
            binary = stack.enter_context(opened(path, release))
            command = [str(path), "-mb", "24", "-phase", "100ms", "-rounds", "2"]
            launched = stack.enter_context(Launched(command))
            own = stack.enter_context(tracing(launched.pid, binary.specs(), ring_bytes=8 << 20))
            assert source.add(launched.pid, binary.specs()) == []
            alone[launched.pid] = own, []
            launched.resume()
            children.append(launched)

        def all_ended() -> bool:
            for own, batches in alone.values():
                batches.append(own.poll(0))
            return all(
                (batch["kind"] == EventKind.EXIT).any() for batch in (gathered.of(pid) for pid in alone)
            ) and all(
                any((batch["kind"] == EventKind.EXIT).any() for batch in batches) for _, batches in alone.values()
            )

        gathered.until(all_ended, "the end of all four")
        assert [launched.wait() for launched in children] == [0, 0, 0, 0]
        assert source.lost_total == 0
        for pid, (own, batches) in alone.items():
            assert own.lost == 0
            seen = gathered.of(pid)
            assert {EventKind.EXEC, EventKind.MMAP, EventKind.RESERVE, EventKind.ARENA, EventKind.GROW} <= set(
                gathered.kinds(pid)
            )
            assert contents(seen) == sum((contents(batch) for batch in batches), Counter())
            # By which place of the kernel each of the two sees calls may differ.
            assert hits(source.target(pid).probes()) == hits(own.probes())
            assert gathered.kinds(pid)[-1] == EventKind.EXIT


def test_processes_come_and_go_while_others_are_followed(churn: Path) -> None:
    with (
        opened(churn, "1.25.5") as binary,
        running(churn, "-mb", "24", "-phase", "100ms") as stays,
        running(churn, "-mb", "24", "-phase", "100ms") as comes,
        sharing() as source,
    ):
        gathered = Gathered(source)
        source.add(stays.pid, binary.specs())
        wait_for_no_breakpoint(binary, comes.pid)  # it runs the same file
        for _ in range(5):
            source.add(comes.pid, binary.specs())
            target = source.target(comes.pid)
            seen = len(gathered.of(comes.pid))
            gathered.until(lambda seen=seen: len(gathered.of(comes.pid)) > seen, "an event")  # type: ignore[misc]
            source.remove(comes.pid)
            source.remove(comes.pid)
            assert source.pids == [stays.pid]
            last = len(gathered.of(comes.pid))
            seen = len(gathered.of(stays.pid))
            gathered.until(lambda seen=seen: len(gathered.of(stays.pid)) > seen, "an event")  # type: ignore[misc]
            assert len(gathered.of(comes.pid)) == last
            assert sum(status.hits for status in target.probes()) > 0
        assert source.lost_total == 0
        wait_for_no_breakpoint(binary, comes.pid)
        assert all(binary.has_breakpoint(stays.pid, spec) for spec in binary.specs())
        assert comes.poll() is None


def test_processes_that_end_while_they_are_added_leave_nothing() -> None:
    path = build("tiny", "1.25.5")
    with opened(path, "1.25.5") as binary, sharing() as source:
        gathered = Gathered(source)
        specs = binary.specs()
        before = len(os.listdir("/proc/self/fd"))
        added = []
        for _ in range(30):
            with subprocess.Popen([path], stdout=subprocess.DEVNULL) as process:
                try:
                    source.add(process.pid, specs)
                    added.append(process.pid)
                except TargetGone:
                    assert process.pid not in source.pids
        gathered.until_exit(*added)
        for pid in added:
            source.remove(pid)
        assert source.pids == []
        assert source.lost_total == 0
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "closing", 100)


def test_each_target_is_an_event_source() -> None:
    path = build("mappings", "1.25.5")
    with running(path) as one, running(path) as other, sharing() as shared:
        sources: list[EventSource] = []
        for process in (one, other):
            shared.add(process.pid)
            sources.append(shared.target(process.pid))
            say(process)
            while hear(process).strip():
                pass
        for source in reversed(sources):
            source.stop()
            source.stop()
            batch = source.poll(0)
            assert list(batch["kind"]).count(EventKind.PROCESS_MADVISE) == 1
            assert not len(source.poll(0))
            assert {status.role: status.hits for status in source.probes()}["process_madvise"] == 1
            assert source.lost == 0


@BOTH
def test_the_exit_of_a_process_is_its_last_event_and_its_alone(tells_last: bool | None) -> None:
    with sleeping() as stays, sharing(tells_last=tells_last) as source:
        gathered = Gathered(source)
        source.add(stays.pid)
        with running(build("tiny", "1.25.5"), "-hold", "20s") as ends:
            hear(ends)
            source.add(ends.pid)
            ends.kill()
            gathered.until_exit(ends.pid)
            wait_until(lambda: state(ends.pid) == "Z", "the exit")
            gathered.poll()
            gathered.poll()
            assert gathered.kinds(ends.pid).count(EventKind.EXIT) == 1
            assert gathered.kinds(ends.pid)[-1] == EventKind.EXIT
            with pytest.raises(TargetGone, match=str(ends.pid)):
                source.add(ends.pid)
        assert EventKind.EXIT not in gathered.kinds(stays.pid)


def test_processes_that_are_gone_or_followed_already_are_refused() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    with sharing() as source, sleeping() as process:
        with pytest.raises(TargetGone, match=str(done.pid)):
            source.add(done.pid)
        source.add(process.pid)
        with pytest.raises(ValueError, match="already"):
            source.add(process.pid)
        assert source.pids == [process.pid]


def test_a_process_for_which_there_is_no_descriptor_left_is_refused_and_changes_nothing() -> None:
    path = build("tiny", "1.25.5")
    with opened(path, "1.25.5") as binary, sharing() as source, running(path, "-hold", "100s") as process:
        hear(process)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # the lowest numbers that are free: one for the pidfd, none for the uprobes
        first, second = os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)
        os.close(first)
        os.close(second)
        try:
            for limit in (first, second):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                with pytest.raises(BackendUnavailable, match="Too many open files"):
                    source.add(process.pid, binary.specs())
                assert source.pids == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert source.add(process.pid, binary.specs()) == []


def test_uprobes_that_the_kernel_refuses_are_told() -> None:
    path = build("churn", "1.25.5")
    with opened(path, "1.25.5") as binary, running(path, "-phase", "100ms") as process, sharing() as source:
        good = binary.specs(EventKind.USED)
        bad = UprobeSpec("none", EventKind.FAULT, "runtime.beyond", good[0].path, 1 << 40)
        with pytest.raises(BackendUnavailable, match=r"runtime\.beyond"):
            source.add(process.pid, [bad])
        assert source.pids == []
        assert [skipped.spec for skipped in source.add(process.pid, [bad, *good])] == [bad]
        gathered = Gathered(source)
        gathered.until(lambda: EventKind.USED in gathered.kinds(process.pid), "USED")
        assert [status.role for status in source.target(process.pid).probes()][-1] == "used"


LEADERLESS = """
import ctypes, mmap, sys, threading
def stay():
    for line in sys.stdin:
        mmap.mmap(-1, int(line))
        print("mapped", flush=True)
threading.Thread(target=stay).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit of this thread alone
"""


@BOTH
def test_a_process_goes_on_without_its_first_thread(tells_last: bool | None) -> None:
    with running(sys.executable, "-c", LEADERLESS) as process, sharing(tells_last=tells_last) as source:
        gathered = Gathered(source)
        source.add(process.pid)
        assert hear(process) == b"ready\n"
        wait_until(lambda: state(process.pid) == "Z", "the first thread's end")
        say(process, b"12345678\n")
        assert hear(process) == b"mapped\n"
        gathered.until(lambda: mapped(gathered.of(process.pid), 12345678) == 1, "the mapping")
        assert EventKind.EXIT not in gathered.kinds(process.pid)
        process.kill()
        gathered.until_exit(process.pid)
        assert gathered.kinds(process.pid)[-1] == EventKind.EXIT
        assert gathered.kinds(process.pid).count(EventKind.EXIT) == 1


@BOTH
def test_a_process_goes_on_after_another_thread_has_executed_a_program(tells_last: bool | None) -> None:
    script = "import os, sys, threading; sys.stdin.readline(); t = threading.Thread(target=os.execv, args=("
    script += "'/bin/sleep', ['sleep', '100'])); t.start(); t.join()"
    with running(sys.executable, "-c", script) as process, sharing(tells_last=tells_last) as source:
        gathered = Gathered(source)
        source.add(process.pid)
        say(process)
        gathered.until(lambda: EventKind.EXEC in gathered.kinds(process.pid), "EXEC")
        after = gathered.kinds(process.pid).index(EventKind.EXEC) + 1
        gathered.until(lambda: EventKind.MMAP in gathered.kinds(process.pid)[after:], "the new program's mappings")
        process.kill()
        gathered.until_exit(process.pid)
        assert [k for k in gathered.kinds(process.pid) if k in (EventKind.EXEC, EventKind.EXIT)] == [
            EventKind.EXEC,
            EventKind.EXIT,
        ]
        events = gathered.of(process.pid)
        assert events["tid"][events["kind"] == EventKind.EXEC].tolist() == [process.pid]


def test_a_target_that_floods_is_paused_and_harms_no_other() -> None:
    with (
        running(build("calls", "1.25.5"), "-call", "madvise", "-calls", "1000") as floods,
        running(build("mappings", "1.25.5")) as quiet,
        sharing(ring_bytes=4 << 20, budget=1000) as source,
    ):
        gathered = Gathered(source)
        hear(floods)
        source.add(quiet.pid)
        source.add(floods.pid)
        target = source.target(floods.pid)
        wait_until(lambda: target.paused, "the pause", 100)
        wait_until(lambda: target.over_budget > 20_000, "a flood", 100)
        say(quiet)
        told = []
        while line := hear(quiet).strip():
            told.append(json.loads(line)["name"])
        gathered.until(lambda: EventKind.PROCESS_MADVISE in gathered.kinds(quiet.pid), "the quiet one's last call")
        assert source.target(quiet.pid).lost == 0
        assert not source.target(quiet.pid).paused
        before = len(gathered.of(floods.pid))
        assert before >= 1000
        target.resume()
        gathered.until(lambda: len(gathered.of(floods.pid)) >= before + 1000, "more of it")
        wait_until(lambda: target.paused, "the second pause", 100)
        floods.kill()
        gathered.until_exit(floods.pid)
        delivered = gathered.of(floods.pid)
        hits = {status.role: status.hits for status in target.probes()}
        assert (
            hits["madvise"] == int((delivered["kind"] == EventKind.MADVISE).sum()) + target.over_budget + target.no_room
        )
        assert source.lost_total == target.lost == target.over_budget + target.no_room


def test_events_that_found_no_room_are_counted_for_their_process() -> None:
    path = build("churn", "1.25.5")
    with (
        opened(path, "1.25.5") as binary,
        running(path, "-mb", "48", "-phase", "100ms") as process,
        sleeping() as quiet,
        sharing(ring_bytes=8192) as source,
    ):
        source.add(quiet.pid)
        source.add(process.pid, binary.specs())
        target = source.target(process.pid)
        wait_until(lambda: sum(status.hits for status in target.probes()) > 500, "500 events", 100)
        source.stop()
        batches = source.poll(0)
        assert set(batches) == {process.pid}
        batch = batches[process.pid]
        events = batch[~np.isin(batch["kind"], USED_MARKS)]
        assert 0 < len(events) <= 8192 // 224
        assert target.lost == sum(status.hits for status in target.probes()) - len(events)
        assert source.lost_total == target.lost
        assert not source.poll(0)


def test_the_probe_of_role_used_goes_when_its_budget_is_used_up_and_comes_back() -> None:
    on, off = USED_MARKS
    path = build("scavenger", "1.25.5")
    with (
        sharing(share_for_used=0.002) as source,
        opened(path, "1.25.5") as binary,
        running(path, "-mb", "32", "-block", "64") as process,
    ):
        specs = binary.specs()
        (of_used,) = [spec for spec in specs if spec.kind is EventKind.USED]
        source.add(process.pid, specs)
        target, gathered = source.target(process.pid), Gathered(source)

        def marked(*marks: EventKind) -> bool:
            target.govern()
            return gathered.marks(process.pid) == list(marks)

        def hits(role: str) -> int:
            return next(status.hits for status in target.probes() if status.role == role)

        gathered.until(lambda: marked(on, off), "it went off")
        wait_until(lambda: not binary.has_breakpoint(process.pid, of_used), "the probe is gone", 60)
        before, others = hits("used"), hits("unused")
        gathered.until(lambda: hits("unused") > others + 100, "the others go on")
        assert hits("used") == before
        gathered.until(lambda: marked(on, off, on), "it came back")
        gathered.until(lambda: hits("used") > before, "it is hit again")
        assert gathered.kinds(process.pid).count(EventKind.USED) >= before
    assert target.lost == 0


TRACE_FOREVER = """
import sys
from gomem.bpf.shared_source import SharedSource
from tests.support.bpf.tracing import Binary
source = SharedSource()
source.start()
for pid in sys.argv[2:]:
    binary = Binary(f"/proc/{pid}/exe", sys.argv[1])
    source.add(int(pid), binary.specs())
seen = set()
while True:
    seen |= set(source.poll(0.1))
    if len(seen) == 2:
        print("seen", flush=True)
"""


def test_busy_targets_go_on_unharmed_when_the_tracer_is_killed(churn: Path) -> None:
    with running(churn, "-mb", "24", "-phase", "50ms") as one, running(churn, "-mb", "24", "-phase", "50ms") as other:
        command = [sys.executable, "-c", TRACE_FOREVER, "1.25.5", str(one.pid), str(other.pid)]
        tracer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert hear(tracer) == b"seen\n"
        finally:
            tracer.send_signal(signal.SIGKILL)
            tracer.communicate()
        with opened(churn, "1.25.5") as binary:
            for target in (one, other):
                for _ in range(8):
                    assert hear(target)
                assert target.poll() is None
                wait_for_no_breakpoint(binary, target.pid)


def test_nothing_is_left_after_stop(churn: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with opened(churn, "1.25.5") as binary, running(churn, "-phase", "100ms") as process:
        specs = binary.specs()
        source = SharedSource()
        source.start()
        source.add(process.pid, specs)
        assert all(binary.has_breakpoint(process.pid, spec) for spec in specs)
        source.stop()
        source.stop()
        wait_for_no_breakpoint(binary, process.pid)
        source.remove(process.pid)
    assert set(os.listdir("/proc/self/fd")) <= before
