"""Go in libraries of processes whose executables are none of Go's, against what the libraries themselves measure."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.exporters.text.report import render_text
from gomem.exporters.verdict import verdict
from gomem.tracer.discovery.census import take_census
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.libraries import Libraries
from gomem.tracer.discovery.scan import executable_key
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.process.target import Target
from gomem.tracer.report import Report
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.watch.backend import TraceRequest
from tests.live.recording.test_recording_live import both
from tests.support.command import gomem
from tests.support.discovery.following import following
from tests.support.embedded import HOST, Host, hosted, library
from tests.support.processes import running
from tests.support.recording_until import LIMIT, Until
from tests.support.reports import report_from
from tests.support.seen import look_at

NEWEST = "1.27.3"
MB = 1 << 20
# What no cgo callback moves: the figures are asked for one by one.
SETTLED = ("HeapInuse", "HeapSys", "HeapAlloc", "NumGC")
BUILDS = [("1.19", True), ("1.23.9", True), (NEWEST, True), (NEWEST, False)]


@pytest.fixture
def host() -> Iterator[Host]:
    with hosted() as one:
        yield one


def settled(figures: dict[str, int]) -> dict[str, int]:
    return {name: figures[name] for name in SETTLED}


def told(report: Report) -> dict[str, object]:
    assert report.memstats is not None
    return {name: report.memstats[name] for name in SETTLED}


def resident(report: Report, *kinds: str) -> int:
    return sum(row.resident or 0 for row in report.kinds or () if row.kind in kinds)


@pytest.mark.parametrize(("release", "stripped"), BUILDS)
def test_a_librarys_heap_is_read_as_the_library_itself_measures_it(
    release: str, stripped: bool, host: Host, tmp_path: Path
) -> None:
    path = library(release, tmp_path, stripped=stripped)
    host.call(path, "Hold", 40)
    measured = host.memstats(path)
    look, report = look_at(host.process)
    assert told(report) == settled(measured)
    process = report.process
    assert (process.module, process.exe) == (str(path), str(Path(sys.executable).resolve()))
    assert process.go_version is not None
    assert process.go_version.startswith(f"go{release}")
    assert process.stripped is stripped
    assert [limit.id for limit in report.limits] == []
    # The kernel's own count of the library's pages is that of its file, not of the executable's.
    assert report.consistency is not None
    assert report.consistency.exact
    assert report.accounting is not None
    assert report.accounting.unexplained == 0
    assert resident(report, "heap_arena") >= 40 * MB
    assert resident(report, "c_heap", "other", "thread_stack") < 10 * MB
    assert look.beside == ()
    assert report.runtimes is None
    assert "Go heap in use" in verdict(report)
    assert f" in {path.name}, pid" in render_text(report)


def test_a_host_without_a_go_library_has_no_go(host: Host) -> None:
    _, report = look_at(host.process)
    assert report.process.module is None
    assert report.memstats is None
    limits = {limit.id for limit in report.limits}
    assert limits - {"c-heap-partly"} == {"not-go"}  # Python's C heap may have more free chunks than are walked
    assert "no Go runtime was found" in verdict(report)


def test_two_runtimes_in_one_process_are_both_told_and_neither_is_cs_memory(host: Host, tmp_path: Path) -> None:
    small, large = library(NEWEST, tmp_path, "small.so", stripped=True), library("1.23.9", tmp_path, "large.so")
    for path, held in ((small, 30), (large, 70)):
        host.call(path, "Hold", held)
    measured = {path: settled(host.memstats(path)) for path in (small, large)}
    chosen = report_from(gomem("snapshot", host.pid, "--module", small.name, "--format", "json").report())
    _, default = look_at(host.process)  # of the one that holds most
    for report, path, other in ((chosen, small, large), (default, large, small)):
        assert report.process.module == str(path)
        assert told(report) == measured[path]
        assert report.runtimes is not None
        assert [(one.module, one.reported) for one in report.runtimes] == [(str(path), True), (str(other), False)]
        for one in report.runtimes:
            assert one.heap_in_use == measured[Path(one.module)]["HeapInuse"]
            assert one.heap_sys == measured[Path(one.module)]["HeapSys"]
        beside = report.runtimes[1].resident
        assert beside is not None
        assert resident(report, "other_runtime") == beside >= 30 * MB
        assert resident(report, "c_heap", "other", "thread_stack") < 10 * MB


def test_a_module_that_is_not_there_is_refused_with_those_that_are(host: Host, tmp_path: Path) -> None:
    path = library(NEWEST, tmp_path, stripped=True)
    host.call(path, "Hold", 1)
    refusal = gomem("snapshot", host.pid, "--module", "libc.so.6").refusal(1)
    assert "libc.so.6" in refusal
    assert str(path) in refusal


@pytest.mark.bpf
@pytest.mark.timeout(120)
def test_what_a_librarys_runtime_does_is_seen(host: Host, tmp_path: Path) -> None:
    path = library(NEWEST, tmp_path, stripped=True)
    host.call(path, "Hold", 20)
    host.begin(path, "Churn", 60_000)
    recorder = Until(tmp_path / "recording", lambda seen: seen.looks > 1 and all(seen.hits("unused")))
    report, replayed = both(TraceRequest(host.pid, (), LIMIT, "bpf", True), recorder)
    assert replayed.process == report.process
    assert report.process.module == str(path)
    assert report.drift is not None
    assert report.event_loss is not None
    assert (report.event_loss.drift_bytes, report.drift.illegal_count) == (0, 0)
    assert report.transitions
    assert all(row.function and row.function.startswith("runtime.") for row in report.transitions)
    assert report.gc_cycles


def test_a_host_is_found_when_it_has_loaded_go_and_others_are_not(host: Host, tmp_path: Path) -> None:
    path = library(NEWEST, tmp_path, stripped=True)
    with running(sys.executable, HOST) as other:
        assert host.pid not in {one.pid for one in take_census().go}
        host.call(path, "Hold", 1)
        found = {one.pid for one in take_census().go}
        assert host.pid in found
        assert other.pid not in found
        with following(Discovery(settle=0.05, scan_every=0.1, listen=None)) as seen:
            seen.until_found(host.pid)
            assert other.pid not in seen.found


def test_who_has_one_thread_or_was_asked_before_costs_no_list_of_mappings(host: Host, tmp_path: Path) -> None:
    libraries = Libraries()
    key = executable_key(host.pid)
    assert key is not None
    assert libraries.of_process(host.pid, key) is None
    assert libraries.lists_read == 0  # one thread
    host.call(library(NEWEST, tmp_path, stripped=True), "Hold", 1)
    assert libraries.of_process(host.pid, key) is None  # it is not asked again so soon
    assert libraries.lists_read == 0
    assert Libraries().of_process(host.pid, key) is not None


def test_processes_of_one_executable_with_other_libraries_are_other_programs(host: Host, tmp_path: Path) -> None:
    first, second = library(NEWEST, tmp_path, "first.so", stripped=True), library("1.23.9", tmp_path, "second.so")
    programs = Programs()
    with hosted() as other, hosted() as without:
        host.call(first, "Hold", 1)
        other.call(second, "Hold", 1)
        modules = []
        for process in (host, other, without):
            with Target.open(process.pid) as target:
                shared = programs.take(target)
                modules.append(shared.program.module.path if shared.program.module else None)
                again = programs.take(target)
                assert again is shared
                with Inspector(target, shared.program, owns_program=False) as inspector:
                    assert (inspector.look().runtime is not None) is (modules[-1] is not None)
                programs.give_back(again)
                programs.give_back(shared)
    assert modules == [str(first), str(second), None]
    programs.close()


def test_a_library_that_is_loaded_while_the_host_is_watched_is_in_the_report(host: Host, tmp_path: Path) -> None:
    path = library(NEWEST, tmp_path, stripped=True)

    class Loading(Until):
        """Has the host load the library after the first look, and ends the watching after the second."""

        def look(self, look: Snapshot, model_input: ModelInput, ended: int) -> None:
            super().look(look, model_input, ended)
            if self.looks == 1:
                host.call(path, "Hold", 20)
            if self.looks == 2:
                os.kill(os.getpid(), signal.SIGINT)

    recorder = Loading(tmp_path / "recording", lambda seen: False)
    report, _ = both(TraceRequest(host.pid, (), LIMIT, "procfs", False), recorder)
    assert report.process.module == str(path)
    assert report.memstats is not None
    assert int(str(report.memstats["HeapInuse"])) >= 20 * MB
    limits = {limit.id for limit in report.limits}
    assert "library-late" in limits
    assert "not-go" not in limits
