"""Goroutine profiles from outside against those that the processes write of themselves, record for record."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from gomem.exporters.pprof.decode import decode
from gomem.tracer.process.target import Target
from gomem.tracer.profile.goroutine import goroutine_profile
from gomem.tracer.report.profile import Profile
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import Mode, build
from tests.support.goroutines import parked_goroutines
from tests.support.heapprofile import Record, Records, records_of
from tests.support.old_programs import PROGRAMS, old_program, waiting
from tests.support.processes import wait_until
from tests.support.prometheus import running_prometheus

WRITER = "main.writer"


def taken(pid: int) -> Profile:
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        return goroutine_profile(inspector)


def without_writer(records: Records) -> Counter[Record]:
    """Return the samples but for the goroutine that wrote the profile: it is no longer where it was then."""
    (writer,) = (record for record in records.samples if record.calls(WRITER))
    assert writer.values == (1,)
    return records.samples - Counter([writer])


@pytest.mark.parametrize(("release", "mode"), [("1.19", "cgo-pie"), ("1.23.9", "pie"), ("1.27.3", "cgo")])
def test_each_record_is_the_one_that_the_process_writes(release: str, mode: Mode, tmp_path: Path) -> None:
    with parked_goroutines(build("goroutines", release, mode=mode, stripped=True), tmp_path) as process:
        profile = taken(process.pid)
        own, ours = records_of(process.profile, tmp_path), records_of(profile, tmp_path)
        assert in_order(profile) == in_order(decode(process.profile.read_bytes(), "its own"))
    assert profile.limits == ()
    assert len(own.samples) > 50
    assert without_writer(ours) == without_writer(own)
    assert (ours.types, ours.period) == (own.types, own.period)


def in_order(profile: Profile) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return counts and addresses of each sample, but for the writer's, in the order of the profile."""
    return [
        (sample.values, tuple(profile.locations[index].address for index in sample.stack))
        for sample in profile.samples
        if not any(line.function == WRITER for index in sample.stack for line in profile.locations[index].lines)
    ]


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_what_a_signal_has_stopped_is_told_by_its_very_instruction(release: str, tmp_path: Path) -> None:
    def only_the_writer_runs() -> bool:
        seen.append(records_of(taken(process.pid), tmp_path))
        running = [record for record in seen[-1].samples if record.calls("(running)")]
        return len(running) == 1 and running[0].calls(WRITER)

    seen: list[Records] = []
    with parked_goroutines(build("goroutines", release, stripped=True), tmp_path, "-spin") as process:
        own = records_of(process.profile, tmp_path)
        wait_until(only_the_writer_runs, "the writer's return from its last system call")
    stopped, stopped_then = spinning(seen[-1]), spinning(own)
    assert stopped_then.calls("runtime.asyncPreempt")
    assert without_writer(seen[-1]) - Counter([stopped]) == without_writer(own) - Counter([stopped_then])
    # Its loop is a jump, and in some releases an instruction that does nothing: it is stopped anew at one of them.
    assert stopped.stack[:-1] == stopped_then.stack[:-1]
    assert abs(int(stopped.stack[-1][0], 16) - int(stopped_then.stack[-1][0], 16)) <= 1


def spinning(records: Records) -> Record:
    (stopped,) = (record for record in records.samples if record.calls("main.spinning"))
    return stopped


def test_goroutines_that_go_on_are_all_counted_and_no_stack_is_of_two_moments(tmp_path: Path) -> None:
    binary = build("goroutines", "1.27.3", stripped=True)
    with parked_goroutines(binary, tmp_path, "-run", 1, "-restless", 30) as process:
        with Target.open(process.pid) as target, Inspector.open(target) as inspector:
            profiles = [goroutine_profile(inspector) for _ in range(4)]
        own = decode(process.profile.read_bytes(), "its own")
    passing = 0
    for profile in profiles:
        assert {limit.id for limit in profile.limits} == {"goroutines-running"}
        assert count(profile) == count(own)
        for sample in profile.samples:
            names = " ".join(line.function for index in sample.stack for line in profile.locations[index].lines)
            assert "main.passes" not in names or PASSING.fullmatch(names), names
            passing += sample.values[0] if "main.passes" in names else 0
    assert passing > 30


# A goroutine of main.restlessly waits in main.passes, which calls itself up to 19 times, or is about to go on there.
PASSING = re.compile(r"(runtime\.\S+ )*(main\.passes ){1,20}main\.restlessly main\.main\.func\d+ main\.start\.func1")


def count(profile: Profile) -> int:
    return sum(sample.values[0] for sample in profile.samples)


@pytest.mark.parametrize("depth", [7, 1024])
def test_stacks_are_as_deep_as_the_process_was_told_to_make_them(depth: int, tmp_path: Path) -> None:
    binary = build("goroutines", "1.25.5", stripped=True)
    with parked_goroutines(binary, tmp_path, env={"GODEBUG": f"profstackdepth={depth}"}) as process:
        own, ours = records_of(process.profile, tmp_path), records_of(taken(process.pid), tmp_path)
    assert ours.samples.total() > 50
    assert without_writer(ours) == without_writer(own)


def test_of_a_server_only_what_serves_the_profile_itself_is_not_seen(tmp_path: Path) -> None:
    def own(name: str) -> Counter[Record]:
        path = tmp_path / name
        with urllib.request.urlopen(f"{server.url}/debug/pprof/goroutine", timeout=20) as answer:
            path.write_bytes(answer.read())
        return records_of(path, tmp_path).samples

    with running_prometheus(tmp_path, "1h") as server:
        before = own("before")
        ours = records_of(taken(server.pid), tmp_path).samples
        after = own("after")
    assert ours.total() > 15
    missing = (before & after) - ours
    # One that has just been made, to wait for the end of the request, has no calls yet.
    assert all(
        record.calls("net/http.(*conn).serve") or record.calls(BACKGROUND) or not record.stack for record in missing
    )
    assert any(record.calls("net/http/pprof.Index") for record in missing)
    assert ours - (before | after) == Counter()


BACKGROUND = "net/http.(*connReader).backgroundRead"


# Each with an unwinder of its own: without a flag for what nothing calls, with one, and the last with gentraceback.
@pytest.mark.parametrize("go", ["go1.11.2", "go1.16", "go1.20.2"])
def test_of_old_releases_each_stack_is_one_of_those_that_sigquit_prints(
    go: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOTRACEBACK", "system")
    (program,) = (program for program in PROGRAMS if program.go == go)
    with waiting(program, old_program(program), 2, "", tmp_path) as process:
        profile = taken(process.pid)
        os.kill(process.pid, signal.SIGQUIT)
        process.process.wait(20)
        printed = process.log.read_text()
    ours = Counter(
        tuple(line.function for index in sample.stack for line in profile.locations[index].lines)
        for sample in profile.samples
        for _ in range(sample.values[0])
    )
    assert profile.limits == ()
    assert ours
    assert ours - printed_stacks(printed) == Counter()


def printed_stacks(text: str) -> Counter[tuple[str, ...]]:
    """Return the functions of each stack in what a process says when it gets SIGQUIT."""
    blocks = (block for block in text.split("\n\n") if re.match(r"goroutine \d+ \[", block))
    return Counter(
        tuple(name for name in re.findall(r"^(?!created by)(\S.*)\(\S*(?:, \S+)*\)$", block, re.M) if name != GOEXIT)
        for block in blocks
    )


GOEXIT = "runtime.goexit"
