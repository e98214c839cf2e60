"""Where reports go, how a trace ends early, and which backend it takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.command import executable, gomem, obeys_the_rules, outcome, report_of, started
from tests.support.parked import Parked, parked
from tests.support.processes import running

BACKENDS = pytest.mark.parametrize("backend", [pytest.param("bpf", marks=pytest.mark.bpf), "strace"])


@pytest.fixture(scope="module")
def target() -> Iterator[Parked]:
    with parked(build("parked", "1.25.5"), live=8) as one:
        yield one


@pytest.mark.parametrize("backend", ["bpf", "strace", "procfs"])
def test_ctrl_c_ends_a_trace_early_and_still_reports(target: Parked, backend: str) -> None:
    words = ("trace", "--pid", target.pid, "--duration", 60, "--backend", backend, "--format", "json")
    with started(*words) as trace:
        time.sleep(0.2)
        trace.send_signal(signal.SIGINT)
        report = outcome(trace).report()
    assert 0 < report["duration_seconds"] < 60
    assert report["backend"] == backend
    obeys_the_rules(report)
    before = dict(target.emitted)
    assert target.memstats() == before


def test_a_terminated_trace_leaves_the_target_as_it_was(target: Parked) -> None:
    with started("trace", "--pid", target.pid, "--duration", 60) as trace:
        trace.terminate()
        trace.wait(timeout=60)
    assert target.process.poll() is None
    before = dict(target.emitted)
    assert target.memstats() == before


def test_a_report_into_a_file_replaces_it_in_one_step(target: Parked, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("what was there before")
    done = gomem("snapshot", "--pid", target.pid, "--format", "json", "-o", file)
    assert (done.status, done.stdout) == (0, "")
    assert json.loads(file.read_text())["schema"] == "gomem.report/1"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_failed_run_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("what was there before")
    gomem("snapshot", "--pid", 2**31 - 1, "-o", file).refusal(1)
    assert file.read_text() == "what was there before"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_file_that_cannot_be_written_is_refused_before_watching(target: Parked, tmp_path: Path) -> None:
    done = gomem("trace", "--pid", target.pid, "--duration", 60, "-o", tmp_path / "missing" / "report")
    assert done.status in (1, 2)
    assert done.seconds < 60
    assert "missing" in done.stderr


@pytest.mark.parametrize("sink", ["head", "full"])
def test_a_reader_that_goes_away_or_is_full_gets_no_traceback(target: Parked, sink: str) -> None:
    command = [executable(), "snapshot", "--pid", str(target.pid), "--format", "json"]
    if sink == "full":
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert done.stderr.strip()
    else:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("backend", [pytest.param("bpf", marks=pytest.mark.bpf), "strace", "procfs"])
def test_each_backend_gives_the_same_state(target: Parked, backend: str) -> None:
    report = report_of("trace", "--pid", target.pid, "--duration", 1, "--backend", backend)
    assert report["backend"] == backend
    assert report["memstats"]["Mallocs"] == target.emitted["Mallocs"]
    obeys_the_rules(report)
    if backend != "bpf":
        assert report["limits"], "what it lacks"
    if backend == "procfs":
        assert report["events"] is None


@pytest.mark.bpf
def test_auto_takes_bpf_where_it_works_and_says_why(target: Parked) -> None:
    report = report_of("trace", "--pid", target.pid, "--duration", 1, "--backend", "auto")
    assert report["backend"] == "bpf"
    assert report["backend_reason"]


def _calls(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    return [json.loads(line) for line in iter(process.stdout.readline, b"\n")]


@BACKENDS
@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_every_memory_system_call_is_counted_with_its_bytes(backend: str, release: str) -> None:
    words = ("--duration", 100, "--backend", backend, "--format", "json")
    with (
        running(build("mappings", release)) as process,
        started("trace", "--pid", process.pid, *words) as trace,
    ):
        calls = _calls(process)
        trace.send_signal(signal.SIGINT)
        report = outcome(trace).report()
    succeeded = Counter(call["name"] for call in calls if call["result"] >= 0)
    failed = Counter(call["name"] for call in calls if call["result"] < 0)
    events = report["events"]
    # The Go runtime of the target may map something itself meanwhile.
    for name in ("munmap", "mremap", "mprotect", "brk"):
        assert events[name]["count"] == succeeded[name], name
    for name in ("mmap", "madvise"):
        assert succeeded[name] <= events[name]["count"] <= succeeded[name] + 10, name
    assert {name: events[name]["failed"] for name in failed} == dict(failed)
    unmapped = sum(call["args"][1] for call in calls if call["name"] == "munmap" and call["result"] >= 0)
    assert events["munmap"]["bytes"] == unmapped
    assert report["madvise"]["free"]["count"] >= 4
    assert report["event_loss"]["lost"] == 0


def test_doctor_says_what_works() -> None:
    done = gomem("doctor")
    assert done.status in (0, 1)
    for word in ("kernel", "bcc", "strace", "pagemap", "tracefs"):
        assert word in done.stdout.lower()


def test_version_and_help() -> None:
    assert gomem("--version").status == 0
    text = gomem("--help").stdout
    for command in ("trace", "snapshot", "doctor"):
        assert command in text
        assert gomem(command, "--help").status == 0


@pytest.mark.parametrize("words", [("snapshot",), ("trace", "--duration", "0.5", "--backend", "procfs")])
def test_nobody_on_the_terminal_waits_for_the_modules_of_a_server(target: Parked, words: tuple[str, ...]) -> None:
    done = gomem(*words, "--pid", target.pid, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.status == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    packages = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "rich" in packages
    assert packages.isdisjoint({"jinja2", "markupsafe", "aiohttp", "prometheus_client", "kubernetes"})
