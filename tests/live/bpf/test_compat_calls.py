"""32-bit system calls: their numbers and registers are others, and only the kernel can tell which kind a call is."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gomem.bpf import compat_trial, syscalls
from gomem.bpf.compat_watch import EVERY, MISSED
from gomem.bpf.shared_program import ONE, SharedProgram
from gomem.bpf.shared_source import SharedSource
from gomem.bpf.source import BpfSource
from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.events.strace.source import StraceSource
from tests.live.bpf.test_bpf_syscalls import Call, as_calls
from tests.support.bpf.tracing import gather, tracing
from tests.support.builds import build
from tests.support.c_programs import compiled
from tests.support.command import gomem, outcome, started
from tests.support.processes import running, wait_until
from tests.support.requirements import program

pytestmark = pytest.mark.bpf

LASTING = 2.5  # seconds after which the tracepoints of single calls would be in use
RELEASE = "1.25.5"


def round_of(process: subprocess.Popen[bytes]) -> list[Call]:
    """Let tests/targets/compat make its calls; return what it says it did."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    said: list[Call] = []
    while line := process.stdout.readline().strip():
        told = json.loads(line)
        said.append((told["name"], tuple(told["args"]), told["result"]))
    return said


def polled(source: BpfSource, seconds: float) -> EventBatch:
    """Poll once more than it takes, so that what is due by then is done."""
    until = time.monotonic() + seconds
    batch = source.poll(0.1)
    while time.monotonic() < until:
        source.poll(0.2)
    return batch


def test_32_bit_calls_of_a_64_bit_program_are_what_they_are() -> None:
    with running(compiled("compat/compat.c", "-mno-red-zone")) as process, tracing(process.pid) as source:
        said = round_of(process)
        assert len(said) == 9
        assert as_calls(polled(source, LASTING)) == said
        assert round_of(process) == said
        source.stop()
        assert as_calls(source.poll(0)) == said


def test_calls_are_seen_at_any_time_of_a_program_that_has_the_instruction() -> None:
    with running(compiled("compat/compat.c", "-mno-red-zone")) as process:
        source = BpfSource(process.pid, has_int_0x80=True)
        source.start()
        try:
            assert not len(polled(source, LASTING))
            said = round_of(process)
            source.stop()
            assert as_calls(source.poll(0)) == said
            assert source.limits() == []
        finally:
            source.stop()


def add_calls(seen: list[Call], source: SharedSource, pid: int) -> list[Call]:
    """Poll, add the calls of a target to those that were seen, and return these."""
    seen += as_calls(source.poll(0.01).get(pid, no_events()))
    return seen


def test_many_targets_calls_are_seen_at_once_of_a_program_that_has_the_instruction() -> None:
    program = compiled("compat/compat.c", "-mno-red-zone")
    with running(program) as process, running(program) as other:
        source = SharedSource()
        source.start()
        try:
            source.add(other.pid)
            source.add(process.pid, has_int_0x80=True)
            said = round_of(process)
            seen: list[Call] = []
            wait_until(lambda: len(add_calls(seen, source, process.pid)) >= len(said), "the calls")
            assert seen == said
            source.poll(EVERY + 0.1)  # by then it is noted who makes such calls
            source.poll(0)
            assert source.target(process.pid).limits() == []
            assert source.target(other.pid).limits() == []
        finally:
            source.stop()


def test_who_makes_such_calls_out_of_the_blue_is_found_out_and_seen_from_then_on() -> None:
    program = compiled("compat/compat.c", "-mno-red-zone")
    with running(program) as process, running(program) as innocent:
        source = SharedSource()
        source.start()
        try:
            for one in (process, innocent):
                source.add(one.pid)
            target = source.target(process.pid)
            said: list[Call] = []
            seen: list[Call] = []

            def found_out() -> bool:
                said.extend(round_of(process))
                add_calls(seen, source, process.pid)
                return bool(target.limits())

            wait_until(found_out, "a moment in which the calls are watched")
            missed = len(said) - len(seen)
            said += round_of(process)
            wait_until(lambda: add_calls(seen, source, process.pid)[-9:] == said[-9:], "the last")
            assert target.limits() == [MISSED]
            assert source.target(innocent.pid).limits() == []
            assert seen
            assert missed >= len(said) - len(seen) >= 0
            assert said[-len(seen) :] == seen
        finally:
            source.stop()


Meanwhile = Callable[[subprocess.Popen[bytes]], object]


def traced(program: Path, output: Path, meanwhile: Meanwhile, seconds: int = 7) -> dict[str, Any]:
    """Trace a program for longer than LASTING, and do something to it again and again from then on."""
    words = ("-d", seconds, "--format", "json", "-o", output)
    with running(program) as process, started("trace", "--pid", process.pid, *words) as trace:
        until = time.monotonic() + LASTING + 1
        while trace.poll() is None:
            if time.monotonic() > until:
                meanwhile(process)
            time.sleep(0.001)
        assert outcome(trace).status == 0
    report: dict[str, Any] = json.loads(output.read_text())
    return report


def limit_ids(report: dict[str, Any]) -> list[str]:
    return [one["id"] for one in report["limits"]]


def test_a_report_says_that_calls_were_missed_only_where_such_calls_were_made(tmp_path: Path) -> None:
    """The instruction is in the program, in code that it generates, nowhere."""
    ways: list[tuple[Path, Meanwhile]] = [
        (compiled("compat/compat.c", "-mno-red-zone"), round_of),
        (compiled("compat/compat.c", "-mno-red-zone", "-DGENERATED"), round_of),
        (build("churn", RELEASE), lambda process: None),
    ]
    with ThreadPoolExecutor(len(ways)) as pool:
        traces = [pool.submit(traced, way[0], tmp_path / str(n), way[1]) for n, way in enumerate(ways)]
        known, generated, other = (trace.result() for trace in traces)
    assert known["events"]["madvise"]["count"] > 100
    assert "compat-calls" not in limit_ids(known)
    assert generated["events"]["madvise"]["count"] > 0
    (limit,) = (one for one in generated["limits"] if one["id"] == "compat-calls")
    assert limit["kind"] == "gap"
    assert other["events"]["madvise"]["count"] > 0
    assert "compat-calls" not in limit_ids(other)


def grown(process: subprocess.Popen[bytes]) -> None:
    """Let it make one call, seldom enough that hardly one falls into the moments in which all of them are seen."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    time.sleep(0.5)


def test_memory_that_changes_without_an_event_is_watched_closely_and_its_calls_are_found(tmp_path: Path) -> None:
    report = traced(
        compiled("compat/compat.c", "-mno-red-zone", "-DGENERATED", "-DGROWS"), tmp_path / "report", grown, 12
    )
    assert report["event_loss"]["drift_bytes"] > 0
    assert report["events"]["mmap"]["count"] > 0
    assert "compat-calls" in limit_ids(report)


def test_the_kernel_is_asked_where_it_keeps_the_kind_of_a_call() -> None:
    """The trial finds what arch/x86/include/asm/thread_info.h has, and what is told wrongly is mended by it."""
    program = SharedProgram(1 << 16, 1024, ONE)
    try:
        fd = program._loaded.maps["thread_status_at"]
        syscalls.map_update(fd, 0, (8).to_bytes(4, "little"))
        assert program.try_compat() == compat_trial.Outcome(possible=True, told=True)
        assert int.from_bytes(syscalls.map_lookup(fd, 0, 4), "little") == compat_trial.USUALLY_AT
    finally:
        program.close()


CALL = re.compile(r"madvise\((0x[0-9a-f]+), (\d+), (\w+)(?:\) = (-?\d+)| <unfinished)")
ADVICE = {"MADV_DONTNEED": 4, "MADV_FREE": 8, "MADV_HUGEPAGE": 14, "MADV_NOHUGEPAGE": 15, "MADV_COLLAPSE": 25}


def test_calls_of_a_32_bit_program_are_those_that_strace_sees(tmp_path: Path) -> None:
    strace, log = program("strace", "strace"), tmp_path / "log"
    with running(build("churn", RELEASE, goarch="386"), "-mb", "16", "-phase", "100ms") as process:
        with running(strace, "-f", "-a0", "-e", "trace=madvise", "-o", log, "-p", process.pid) as tracer:
            status = Path(f"/proc/{process.pid}/status")
            wait_until(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text(), "strace attaching")
            with tracing(process.pid) as source:
                events = gather(source, EventKind.MADVISE)
                seen = [call for call in as_calls(events) if call[0] == "madvise"]
            assert seen
            wait_until(lambda: len(CALL.findall(log.read_text())) > len(seen) + 50, "strace writing")
        whole: dict[tuple[int, ...], set[str]] = defaultdict(set)
        for address, size, advice, result in CALL.findall(log.read_text()):
            whole[int(address, 16), int(size), ADVICE[advice]].add(result)
    for _, arguments, result in seen:
        # What another thread's call comes between has its result in a line of its own.
        assert whole[arguments] & {str(result), ""}, arguments


def test_the_strace_backend_sees_the_same_calls() -> None:
    with running(compiled("compat/compat.c", "-mno-red-zone")) as process:
        source = StraceSource(process.pid)
        source.start()
        try:
            said = [*round_of(process), *round_of(process)]
            seen: list[Call] = []

            def all_seen() -> bool:
                seen.extend(as_calls(source.poll(0.1)))
                return len(seen) >= len(said)

            wait_until(all_seen, "strace telling of the calls")
            assert source.lost == 0
        finally:
            source.stop()
    # Of what brk returns to a 64-bit program that calls it with int 0x80, strace shows the lower half.
    assert [call[:2] for call in seen] == [call[:2] for call in said]
    assert [call for call in seen if call[0] != "brk"] == [call for call in said if call[0] != "brk"]


def test_a_32_bit_go_program_is_told_to_be_one_that_is_not_supported() -> None:
    with running(build("churn", RELEASE, goarch="386"), "-mb", "16", "-phase", "100ms") as process:
        report = gomem("trace", "--pid", process.pid, "--duration", "1", "--format", "json").report()
        page = gomem("snapshot", "--pid", process.pid).stdout
    assert (report["process"]["go_version"], report["process"]["goarch"]) == (f"go{RELEASE}", "386")
    (limit,) = (one for one in report["limits"] if one["what"] == "the Go runtime")
    assert "386" in limit["why"]
    assert "amd64 only" in limit["why"]
    assert report["heap"] is None
    assert report["events"]["madvise"]["count"] > 0
    assert report["event_loss"]["drift_bytes"] == 0
    assert "no Go" not in page
