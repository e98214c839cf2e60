"""Targets that exit, exec or lose their executable while they are looked at."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import obeys_the_rules, outcome, report_of, started
from tests.support.parked import Parked, adopted, parked
from tests.support.processes import running
from tests.support.requirements import absent, program

BACKENDS = pytest.mark.parametrize("backend", [pytest.param("bpf", marks=pytest.mark.bpf), "strace", "procfs"])


def until_it_watches(trace: subprocess.Popen[str]) -> None:
    assert trace.stderr is not None
    said = []
    while "watching" not in (line := trace.stderr.readline()):
        said.append(line)
        assert line, "".join(said)


@BACKENDS
def test_a_target_that_exits_while_traced_is_reported_as_far_as_it_was_seen(backend: str) -> None:
    with (
        running(build("churn", "1.25.5"), "-mb", "32", "-phase", "100ms") as process,
        started("trace", "--pid", process.pid, "--duration", 100, "--backend", backend, "--format", "json") as trace,
    ):
        until_it_watches(trace)
        time.sleep(1)  # for a look at the process
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        process.stdout.read()  # what it did before it was watched
        os.set_blocking(process.stdout.fileno(), True)
        said = [process.stdout.readline() for _ in range(8)]
        assert sum(b"scavenge" in line for line in said) >= 2
        process.terminate()
        report = outcome(trace).report()
    assert report["backend"] == backend
    assert report["duration_seconds"] < 90
    assert any("exit" in limit["what"] + limit["why"] or "end" in limit["what"] + limit["why"]
               for limit in report["limits"])  # fmt: skip
    if backend != "procfs":
        assert report["events"]["madvise"]["count"] > 0


@BACKENDS
def test_a_target_that_executes_another_program_is_followed_and_each_program_is_a_chapter(backend: str) -> None:
    parked_one = build("parked", "1.25.5")
    with (
        running(build("becomes", "1.25.5"), parked_one, "-live=24") as process,
        started("trace", process.pid, "-d", 100, "--backend", backend, "--format", "json") as trace,
    ):
        until_it_watches(trace)
        time.sleep(1)  # for a look at the process
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        target = adopted(process)
        assert trace.stderr is not None
        while "following it" not in trace.stderr.readline():
            assert trace.poll() is None
        time.sleep(1)
        trace.send_signal(signal.SIGINT)
        report = outcome(trace).report()
        assert process.poll() is None, "gomem ended, the target goes on"
    (before,) = report["chapters"]
    assert before["process"]["main_module"] == "example.org/becomes"
    assert before["memstats"]["HeapSys"] > 0, "its state was seen before it ended"
    assert before["ending"] is None
    assert report["process"]["main_module"] == "example.org/parked"
    assert report["process"]["cmdline"][1] == "-live=24"
    assert report["memstats"]["HeapInuse"] == target.emitted["HeapInuse"]
    assert report["ending"] is None
    for chapter in (before, report):
        obeys_the_rules(chapter)
        assert chapter["duration_seconds"] < 60
    if backend != "procfs":
        assert report["events"]["mmap"]["bytes"] > 24 << 20, "from its first system call on"
        assert report["event_loss"] == {"lost": 0, "resyncs": 0, "drift_bytes": 0}


@pytest.mark.bpf
def test_a_program_that_is_go_only_after_the_exec_gets_the_probes_of_its_runtime() -> None:
    churn = build("churn", "1.25.5")
    with (
        running("/bin/sh", "-c", f"read x; exec {churn} -mb 32 -phase 100ms") as process,
        started("trace", process.pid, "-d", 100, "--format", "json") as trace,
    ):
        until_it_watches(trace)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x\n")
        process.stdin.flush()
        assert trace.stderr is not None
        while "following it" not in trace.stderr.readline():
            assert trace.poll() is None
        for _ in range(12):
            process.stdout.readline()
        trace.send_signal(signal.SIGINT)
        report = outcome(trace).report()
    assert report["chapters"][0]["process"]["go_version"] is None
    assert report["process"]["go_version"] == "go1.25.5"
    assert report["events"]["unused"]["bytes"] > 20 << 20, "sysUnused was probed"
    assert report["events"]["gc_start"]["count"] >= 2
    assert report["event_loss"]["drift_bytes"] == 0
    obeys_the_rules(report)


@pytest.mark.bpf
def test_page_faults_and_resident_bytes_are_in_the_report_if_they_were_asked_for() -> None:
    roles = ("--with", "rss", "--with", "page-faults")
    with (
        running(build("faults", "1.25.5"), "-ask") as process,
        started("trace", "--pid", process.pid, "--duration", 600, *roles, "--format", "json") as trace,
    ):
        until_it_watches(trace)
        assert process.stdin is not None
        assert process.stdout is not None
        for order in (b"anon 4000\n", b"free\n", b"anon 3000\n"):
            process.stdin.write(order)
            process.stdin.flush()
            process.stdout.readline()
        trace.send_signal(signal.SIGINT)
        report = outcome(trace).report()
    faults, resident = report["page_faults"], report["live_resident"]
    by_kind = {row["kind"]: row for row in faults["kinds"]}
    assert sum(row["faults"] for row in faults["kinds"]) + faults["unplaced"] == faults["count"] >= 7000
    assert by_kind["other"]["touched"] >= 3000 << 12, "it is the program's own mapping that was faulted in"
    assert resident["peak"]["anonymous"] > 4000 << 12
    assert resident["now"]["anonymous"] < resident["peak"]["anonymous"]
    assert {"page_faults", "rss"} <= {probe["role"] for probe in report["overhead"]["probes"] if probe["hits"]}
    obeys_the_rules(report)


def test_page_faults_and_resident_bytes_are_null_unless_they_were_asked_for() -> None:
    with running(build("faults", "1.25.5"), "-ask") as process:
        report = report_of("trace", "--pid", process.pid, "--duration", 0.2)
    assert (report["page_faults"], report["live_resident"]) == (None, None)


def _reads_the_runtime(target: Parked) -> None:
    report = report_of("trace", "--pid", target.pid, "--duration", 1)
    obeys_the_rules(report)
    assert report["memstats"]["HeapSys"] == target.emitted["HeapSys"]
    assert report["process"]["main_module"] == "example.org/parked"


def test_an_executable_that_was_deleted(tmp_path: Path) -> None:
    copy = tmp_path / "program"
    shutil.copy2(build("parked", "1.25.5"), copy)
    with parked(copy, live=8) as target:
        copy.unlink()
        _reads_the_runtime(target)


def test_an_executable_that_was_replaced_by_another(tmp_path: Path) -> None:
    copy, other = tmp_path / "program", tmp_path / "other"
    shutil.copy2(build("parked", "1.25.5"), copy)
    shutil.copy2(build("tiny", "1.19"), other)
    with parked(copy, live=8) as target:
        other.rename(copy)
        _reads_the_runtime(target)


def test_an_executable_in_another_mount_namespace(tmp_path: Path) -> None:
    unshare = program("unshare", "util-linux")
    inner = tmp_path / "inner"
    inner.mkdir()
    start = tmp_path / "start"
    binary = build("parked", "1.25.5", stripped=True)
    start.write_text(
        f'#!/bin/sh\nset -e\nmount -t tmpfs none {inner}\ncp {binary} {inner}/program\nexec {inner}/program "$@"\n'
    )
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nexec {unshare} --mount --propagation private /bin/sh {start} "$@"\n')
    wrapper.chmod(0o755)
    try:
        with parked(wrapper, live=8) as target:
            assert not (inner / "program").exists(), "it is visible from here"
            _reads_the_runtime(target)
    except FileNotFoundError:
        absent("mount namespaces cannot be made here")


def test_a_target_that_is_killed_leaves_no_trace_of_us() -> None:
    with (
        running(build("churn", "1.25.5"), "-mb", "32") as process,
        started("trace", "--pid", process.pid, "--duration", 100, "--format", "json") as trace,
    ):
        until_it_watches(trace)
        time.sleep(1)  # for a look at the process
        process.kill()
        report = outcome(trace).report()
    assert report["process"]["pid"] == process.pid
