"""Recording real processes: a replay is the trace's report, a killed recorder leaves what it had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gomem.exporters.json.report import render_json
from gomem.tracer.cli.watching import watch
from gomem.tracer.errors import GomemError
from gomem.tracer.events.optional_roles import RESIDENCY_ROLES
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.recording.reader import RecordingReader, StoredSnapshot
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.recording.watching import Beginning
from gomem.tracer.replay.file import replay_file
from gomem.tracer.report import Report
from gomem.tracer.report.findings.rules import find
from gomem.tracer.watch.backend import Backend, TraceRequest
from tests.support.builds import build
from tests.support.command import gomem, obeys_the_rules, outcome, started
from tests.support.processes import rss, running, wait_until
from tests.support.recording_until import LIMIT, Until

RELEASE = "1.25.5"


@pytest.fixture
def churning() -> Iterator[subprocess.Popen[bytes]]:
    with running(build("churn", RELEASE)) as process:
        wait_until(lambda: rss(process.pid) > 16 << 20, "a heap that was collected")
        yield process


def both(request: TraceRequest, into: Path | Recorder) -> tuple[Report, Report]:
    """Return the report of a watch and that of the recording that was made of it."""
    recorder = into if isinstance(into, Recorder) else Recorder(str(into))
    try:
        report = watch(request, lambda: recorder)
    finally:
        recorder.close()
    assert report.event_loss is None or report.event_loss.lost == 0
    return report, replay_file(recorder.path)


def collected(recorder: Until) -> bool:
    """Return whether a recording has two looks, collections, and memory that was used."""
    return recorder.looks > 1 and recorder.counts[EventKind.GC_DONE] > 1 and recorder.counts[EventKind.USED] > 100


def differences(left: Report, right: Report) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, but for who says it, and which commands it names of a process that still runs."""
    right = replace(right, backend=left.backend, backend_reason=left.backend_reason)
    right = replace(right, findings=find(right))
    one, other = json.loads(render_json(left)), json.loads(render_json(right))
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}


@pytest.mark.bpf
@pytest.mark.parametrize("backend", ["bpf", "strace", "procfs"])
def test_a_replay_is_the_report_that_the_trace_gave(
    churning: subprocess.Popen[bytes], tmp_path: Path, backend: Backend
) -> None:
    path = tmp_path / "r"
    request = TraceRequest(churning.pid, (), LIMIT if backend == "bpf" else 1.0, backend, True)
    traced, replayed = both(request, Until(path, collected) if backend == "bpf" else path)
    assert differences(traced, replayed) == {}
    assert replayed.memstats is not None
    if backend == "bpf":
        assert replayed.transitions
        assert replayed.event_loss is not None
        assert replayed.event_loss.drift_bytes == 0
        assert any(event.function for event in replayed.transitions)


@pytest.mark.bpf
@pytest.mark.parametrize("mode", ["exe", "pie"])
def test_so_it_is_of_a_program_watched_from_its_start(tmp_path: Path, mode: Any) -> None:
    command = (str(build("tiny", RELEASE, mode=mode)), "-hold", "700ms")
    traced, replayed = both(TraceRequest(None, command, None, "bpf", True), tmp_path / "r")
    assert differences(traced, replayed) == {}
    assert replayed.event_log
    assert replayed.heap is not None


@pytest.mark.bpf
def test_page_faults_and_resident_bytes_are_replayed(churning: subprocess.Popen[bytes], tmp_path: Path) -> None:
    def told(recorder: Until) -> bool:
        return recorder.looks > 1 and recorder.counts[EventKind.PAGE_FAULTS] > 50 and recorder.counts[EventKind.RSS] > 0

    request = TraceRequest(churning.pid, (), LIMIT, "bpf", True, optional=RESIDENCY_ROLES)
    traced, replayed = both(request, Until(tmp_path / "r", told))
    assert differences(traced, replayed) == {}
    assert replayed.live_resident is not None
    assert replayed.live_resident.peak.total >= replayed.live_resident.now.total > 0
    assert replayed.page_faults is not None
    assert replayed.page_faults.kinds is not None
    assert "heap_arena" in [row.kind for row in replayed.page_faults.kinds]


class Remembering(Until):
    """A recorder that also keeps what it is given."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, lambda recorder: recorder.counts.total() > 1000)
        self.given: list[tuple[bytes, int, int]] = []

    def events(self, batch: EventBatch, until: int, lost: int) -> None:
        self.given.append((batch.tobytes(), until, lost))
        super().events(batch, until, lost)


@pytest.mark.bpf
def test_a_recording_has_the_identical_events_in_the_identical_batches(
    churning: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    recorder = Remembering(tmp_path / "r")
    watch(TraceRequest(churning.pid, (), LIMIT, "bpf", True), lambda: recorder)
    recorder.close()
    with RecordingReader(str(tmp_path / "r")) as reader:
        steps = [step for content in reader.contents() if isinstance(content, list) for step in content]
    assert sum(len(step.batch) for step in steps) > 100
    assert [(step.batch.tobytes(), step.until, step.lost) for step in steps] == recorder.given


@pytest.mark.bpf
def test_first_look_and_events_lead_to_the_address_space_of_the_last_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"

    def much(recorder: Until) -> bool:
        return recorder.counts.total() > 2000 and recorder.counts[EventKind.GC_DONE] > 2

    # Two looks: the second look at what the first left open would be a third.
    monkeypatch.setattr("gomem.tracer.watch.trace.LOOK_EVERY", 60.0)
    monkeypatch.setattr(Reconciler, "suspicious", False)
    with running(build("churn", RELEASE)) as growing:
        traced, end = both(TraceRequest(growing.pid, (), LIMIT, "bpf", True), Until(path, much))
    with RecordingReader(str(path)) as reader:
        contents = list(reader.contents())
    beginning = next(content for content in contents if isinstance(content, Beginning))
    looks = [content.time for content in contents if isinstance(content, StoredSnapshot)]
    assert len(looks) == 2, "the first and the last"
    assert beginning.started is not None
    totals, counts = [], []
    # The events of the last moments before the last look may come behind it.
    until = max(step.until for content in contents if isinstance(content, list) for step in content)
    last = min(looks[1], until)
    for share in (0.01, 0.3, 0.6, 0.999):
        moment = (looks[0] + share * (last - looks[0]) - beginning.started) / 1e9
        report = replay_file(str(path), f"{moment:.6f}")
        obeys_the_rules(json.loads(render_json(report)))
        assert report.virtual is not None
        assert report.events is not None
        totals.append(report.virtual.total)
        counts.append(sum(row.count for row in report.events.values()))
    assert traced.virtual is not None
    assert totals[0] <= totals[-1] == traced.virtual.total, "nothing of that was looked at"
    assert end.events is not None
    assert sorted(counts) == counts
    assert counts[0] < counts[-1] <= sum(row.count for row in end.events.values())


def has_used(path: Path) -> bool:
    """Return whether the recording has events in which memory was used, and the state before them."""
    if not path.exists():
        return False
    try:
        with RecordingReader(str(path)) as reader:
            contents = list(reader.contents())
    except GomemError:  # nothing is in it yet
        return False
    steps = [step for content in contents if isinstance(content, list) for step in content]
    looks = any(isinstance(content, StoredSnapshot) for content in contents)
    return looks and any(EventKind.USED in step.batch["kind"] for step in steps)


@pytest.mark.bpf
def test_a_killed_recorder_leaves_what_it_had_and_the_target_alone(
    churning: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "r"
    with started("record", "--pid", churning.pid, "-o", path) as recording:
        wait_until(lambda: has_used(path), "the first events in the file")
        killed = time.monotonic_ns()
        os.kill(recording.pid, signal.SIGKILL)
        recording.wait()
    assert churning.poll() is None
    with RecordingReader(str(path)) as reader:
        steps = [step for content in reader.contents() if isinstance(content, list) for step in content]
        assert not [limit for limit in reader.limits() if "damaged" in limit.why]
    last = max(step.until for step in steps)
    assert killed - last < 20e9, "it is on the disk within a second, but for a machine that stood still"
    report = gomem("replay", path, "--format", "json").report()
    assert [limit for limit in report["limits"] if "breaks off" in limit["why"]]
    assert report["events"]["used"]["count"] > 0
    assert report["memstats"]["NumGC"] > 0


@pytest.mark.bpf
def test_ctrl_c_ends_a_recording_well(churning: subprocess.Popen[bytes], tmp_path: Path) -> None:
    path = tmp_path / "r"
    with started("record", "--pid", churning.pid, "-o", path) as recording:
        wait_until(lambda: path.exists() and path.stat().st_size > 20_000, "the first events in the file")
        recording.send_signal(signal.SIGINT)
        ended = outcome(recording)
    assert (ended.status, ended.stdout) == (0, "")
    assert "gomem replay" in ended.stderr
    report = gomem("replay", path, "--format", "json").report()
    assert not [limit for limit in report["limits"] if "breaks off" in limit["why"]]
    obeys_the_rules(report)


def test_a_file_of_another_kind_is_safe_before_anything_is_attached(tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    path.write_text("three years")
    refusal = gomem("record", "--pid", os.getpid(), "--duration", "1", "-o", path).refusal(1)
    assert "--force" in refusal
    assert path.read_text() == "three years"


def test_a_recording_of_nobody_is_not_left_behind(tmp_path: Path) -> None:
    gomem("record", "--pid", 1 << 21, "-o", tmp_path / "r").refusal(1)
    gomem("record", "-o", tmp_path / "r").refusal(2)
    assert list(tmp_path.iterdir()) == []
    gomem("replay", tmp_path / "none").refusal(1)
    gomem("replay", "/bin/true").refusal(1)
    gomem("replay").refusal(2)


def test_any_user_can_replay_without_any_permission(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("7 100000000.5 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000\n")
    report = gomem("replay", path, "--format", "json").report()
    assert report["virtual"]["total"] == 4096
    assert report["backend"] == "replay"
