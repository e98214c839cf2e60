"""Heap profiles from outside against those that the processes write of themselves, record for record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gomem.tracer.errors import TargetError
from gomem.tracer.process.target import Target
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.report.profile import Profile
from gomem.tracer.runtime.profile_buckets import Cycle
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import Mode, build
from tests.support.heapprofile import profiled, records_of
from tests.support.processes import running, sleeping

SITE, SIZE = "main.allocate", 2048


@contextmanager
def inspected(pid: int) -> Iterator[Inspector]:
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        yield inspector


def taken(pid: int, cycle: Cycle = "published") -> Profile:
    with inspected(pid) as inspector:
        return heap_profile(inspector, cycle)


@pytest.mark.parametrize("rate", [1, 1000])
@pytest.mark.parametrize(("release", "mode"), [("1.19", "exe"), ("1.23.9", "cgo-pie"), ("1.27.3", "pie")])
def test_each_record_is_the_one_that_the_process_writes(release: str, mode: Mode, rate: int, tmp_path: Path) -> None:
    with profiled(build("heapprofile", release, mode=mode, stripped=True), "-rate", rate) as process:
        own = records_of(process.writes(tmp_path), tmp_path)
        profile = taken(process.pid)
        ours = records_of(profile, tmp_path)
    assert profile.limits == ()
    assert sum(own.with_values().values()) > (200 if rate == 1 else 0)
    assert ours.with_values() == own.with_values()
    assert own.samples <= ours.samples  # what has no value yet may be of the writing itself
    assert ours.period == own.period == f"Period: {rate}"
    assert [kind.removesuffix("[dflt]") for kind in ours.types] == list(own.types)
    files = [line.partition(": ")[2] for line in own.mappings if "[vsyscall]" not in line]
    assert [line.partition(": ")[2] for line in ours.mappings] == files


@pytest.mark.parametrize("release", ["1.27.3"])
def test_a_process_that_never_collected_shows_all_that_it_allocated(release: str, tmp_path: Path) -> None:
    with profiled(build("heapprofile", release), "-rate", 1, "-collect=false") as process:
        process.obey("allocate 500")
        ours = records_of(taken(process.pid), tmp_path)
        own = records_of(process.writes(tmp_path), tmp_path)
    assert ours.values_of(SITE, SIZE) == own.values_of(SITE, SIZE) == (500, 500 * SIZE, 500, 500 * SIZE)
    assert ours.values_of("main.dropped", 1 << 20) == own.values_of("main.dropped", 1 << 20) == (20, 20 << 20) * 2


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_the_open_cycles_have_what_was_allocated_since_the_last_collection(release: str, tmp_path: Path) -> None:
    def values(cycle: Cycle) -> tuple[int, ...]:
        return records_of(taken(process.pid, cycle), tmp_path).values_of(SITE, SIZE)

    with profiled(build("heapprofile", release), "-rate", 1) as process:
        process.obey("allocate 1000")
        published, active = values("published"), values("active")
        process.obey("collect")
        own = records_of(process.writes(tmp_path), tmp_path).values_of(SITE, SIZE)
        assert values("published") == values("active") == own
    assert own == (1000, 1000 * SIZE, 500, 500 * SIZE)
    assert not any(published)
    assert active == (1000, 1000 * SIZE, 1000, 1000 * SIZE)  # garbage that no collection has found yet is in use


@pytest.mark.parametrize("release", ["1.27.3"])
def test_counts_are_of_one_moment_while_the_process_collects(release: str) -> None:
    seen = []
    with profiled(build("heapprofile", release), "-rate", 1) as process, inspected(process.pid) as inspector:
        for _ in range(6):
            process.begin("allocate 1000")
            process.begin("collect")
            for _ in range(3):
                profile = heap_profile(inspector)
                if not profile.limits:
                    seen += [values for values in of_site(profile) if values[0]]
            process.end()
            process.end()
    assert len(set(seen)) > 2
    # A collection publishes what was allocated and what it has found free of that at once.
    assert all(allocated % 1000 == 0 and held * 2 == allocated for allocated, _, held, _ in seen)


def of_site(profile: Profile) -> list[tuple[int, ...]]:
    innermost = [location.lines[0].function if location.lines else "" for location in profile.locations]
    return [
        sample.values
        for sample in profile.samples
        if sample.stack and innermost[sample.stack[0]] == SITE and ("bytes", SIZE) in sample.labels
    ]


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_a_program_that_never_reads_its_profile_is_told_to_have_none(release: str) -> None:
    with running(build("tiny", release), "-hold", "1h") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        with pytest.raises(TargetError, match="the linker turned it off") as refused:
            taken(process.pid)
    assert "import" in refused.value.fix


def test_a_rate_of_0_from_the_start_is_told() -> None:
    binary = build("heapprofile", "1.27.3")
    with profiled(binary, env={"GODEBUG": "memprofilerate=0"}) as process, pytest.raises(TargetError) as refused:
        taken(process.pid)
    assert "MemProfileRate is 0" in refused.value.what


def test_what_was_sampled_before_the_rate_became_0_is_shown_as_it_is(tmp_path: Path) -> None:
    with profiled(build("heapprofile", "1.27.3"), "-rate", 1, "-last-rate", 0) as process:
        own = records_of(process.writes(tmp_path), tmp_path)
        profile = taken(process.pid)
    assert [limit.id for limit in profile.limits] == ["profile-stopped"]
    assert records_of(profile, tmp_path).with_values() == own.with_values()


def test_what_is_no_go_program_is_told() -> None:
    with sleeping() as process, pytest.raises(TargetError, match="is not a Go program"):
        taken(process.pid)
