"""Who holds the resident memory: the values sum to the kernel's own Rss, and objects have the calls that Go says."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gomem.exporters.pprof.encode import encode
from gomem.tracer.process.target import Target
from gomem.tracer.profile.resident import resident_profile
from gomem.tracer.report.profile import Profile, Sample
from gomem.tracer.runtime.spans import IN_USE
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import build
from tests.support.liar import liar
from tests.support.old_programs import PROGRAMS as PROGRAMS_OF_OLD
from tests.support.old_programs import old_program, waiting
from tests.support.parked import parked
from tests.support.pprof import top
from tests.support.processes import rss, running, state, vm_size, wait_until
from tests.support.prometheus import running_prometheus
from tests.support.seen import told

MB = 1 << 20
SHAPE = {"live": 12, "garbage": 0.5, "goroutines": 300, "depth": 10, "ended": 50, "big": 4, "bigdrop": 2}


def parked_program(release: str, mode: str, **more: int) -> Callable[[ExitStack, Path], int]:
    def start(stack: ExitStack, directory: Path) -> int:
        binary = build("parked", release, mode=mode, stripped=True)  # type: ignore[arg-type]
        return stack.enter_context(parked(binary, {**SHAPE, **more})).pid

    return start


def mapped_program(kind: str) -> Callable[[ExitStack, Path], int]:
    def start(stack: ExitStack, directory: Path) -> int:
        process, _ = stack.enter_context(told(build("mapped", "1.25.5"), kind, 24 * MB, directory / "mapped"))
        return process.pid

    return start


def c_threads(stack: ExitStack, directory: Path) -> int:
    command = build("cthreads", "1.23.9", mode="cgo"), 6, 512 << 10, 4 * MB
    return stack.enter_context(told(*command))[0].pid


def restless(stack: ExitStack, directory: Path) -> int:
    process = stack.enter_context(running(build("restless", "1.27.3"), "-seconds", 60))
    wait_until(lambda: rss(process.pid) > 40 * MB, "a large heap")
    return process.pid


def servers(stack: ExitStack, directory: Path) -> int:
    return stack.enter_context(running_prometheus(directory)).pid


def contiguous(stack: ExitStack, directory: Path) -> int:
    """Run a program of Go 1.10, of whose runtime no figures are read."""
    program = next(one for one in PROGRAMS_OF_OLD if one.go == "go1.10.2")
    return stack.enter_context(waiting(program, old_program(program), 4, "", directory)).pid


def of_c(stack: ExitStack, directory: Path) -> int:
    return stack.enter_context(running("sleep", 600)).pid


PROGRAMS = {
    "go1.19": parked_program("1.19", "exe"),
    "go1.23-cgo": parked_program("1.23.9", "cgo", cheap=9),
    "go1.27-pie": parked_program("1.27.3", "pie"),
    "shared-memory": mapped_program("memfd"),
    "private-copies": mapped_program("private"),
    "dirty-file": mapped_program("dirty"),
    "locked-file": mapped_program("lockedfile"),
    "c-threads": c_threads,
    "restless": restless,
    "prometheus": servers,
    "go1.10": contiguous,
    "no-go": of_c,
}


@contextmanager
def standing(pid: int) -> Iterator[None]:
    """Stop the process until the block ends: its figures are then those of one moment, whoever reads them."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state(pid) == "T", "the stop")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def taken(pid: int, *, freeze: bool) -> Profile:
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        return resident_profile(inspector, freeze=freeze)


def path_of(profile: Profile, sample: Sample) -> list[str]:
    """Return what a sample's stack goes through, from the whole to the holder."""
    return [line.function for index in reversed(sample.stack) for line in reversed(profile.locations[index].lines)]


def under(profile: Profile, *path: str) -> int:
    """Return the resident bytes below a path."""
    return sum(one.values[0] for one in profile.samples if path_of(profile, one)[: len(path)] == list(path))


def total(profile: Profile, index: int) -> int:
    return sum(sample.values[index] for sample in profile.samples)


def has_pages(root: str, ending: str) -> Callable[[Profile], None]:
    """Return what holds of a profile with 24 MB of pages below `root` whose holders' names end so."""

    def check(profile: Profile) -> None:
        found = [one for one in profile.samples if path_of(profile, one)[0] == root]
        assert sum(one.values[0] for one in found if path_of(profile, one)[-1].endswith(ending)) == 24 * MB

    return check


def has_memory_of_c(profile: Profile) -> None:
    # One of the goroutines may be on the main thread.
    assert 6 * (512 << 10) <= under(profile, "thread stacks") < 7 * (512 << 10)
    assert under(profile, "thread stacks", "stacks of threads that C made") >= 5 * (512 << 10)
    assert 4 * MB <= under(profile, "C heap") < 5 * MB


def has_no_go(profile: Profile) -> None:
    assert [limit.id for limit in profile.limits] == ["not-go"]


HOLDS: dict[str, Callable[[Profile], None]] = {
    "shared-memory": has_pages("shared memory", ""),
    "private-copies": has_pages("mapped files", ": data, private copies"),
    "dirty-file": has_pages("mapped files", ": data, dirty"),
    "locked-file": has_pages("mapped files", ": data, locked"),
    "c-threads": has_memory_of_c,
    "no-go": has_no_go,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_values_sum_to_the_kernels_own_rss_and_each_holder_has_its_part(name: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        pid = PROGRAMS[name](stack, tmp_path)
        with standing(pid):
            before = rss(pid), vm_size(pid)
            frozen = taken(pid, freeze=True)
            running_on = taken(pid, freeze=False)
            with Target.open(pid) as target, Inspector.open(target) as inspector:
                report = snapshot_target(inspector)
            assert (rss(pid), vm_size(pid)) == before
    for profile in (frozen, running_on):
        assert (total(profile, 0), total(profile, 1)) == before
        assert all(value >= 0 for sample in profile.samples for value in sample.values)
        if report.heap is not None:
            assert under(profile, "Go heap", "spans in use") == report.heap.resident.in_use
            assert under(profile, "goroutine stacks") == report.heap.resident.stacks
            assert under(profile, "Go heap", "free and retained") == report.heap.resident.free
            assert under(profile, "Go heap", "scavenged, yet in RAM") == report.heap.resident.scavenged
    if name in HOLDS:
        HOLDS[name](frozen)


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_stacks_have_the_call_that_created_their_goroutine(release: str) -> None:
    with parked(build("parked", release, stripped=True), goroutines=300, depth=10) as target:
        profile = taken(target.pid, freeze=True)
        in_use = target.emitted["StackInuse"]
    spawned = sum(one.values[0] for one in profile.samples if "main.spawn" in path_of(profile, one))
    assert 300 * (10 << 10) < spawned < under(profile, "goroutine stacks") <= in_use
    # Each has ten frames of a KB, on a stack of 16 KB.
    assert sum(one.values[1] for one in profile.samples if "main.spawn" in path_of(profile, one)) == 300 * (16 << 10)


@pytest.mark.parametrize("release", ["1.19", "1.23.9", "1.27.3"])
def test_objects_have_the_calls_that_the_programs_own_heap_profile_names(release: str, tmp_path: Path) -> None:
    own = tmp_path / "own.pb.gz"
    with running(build("holders", release, stripped=True), own) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        profile = taken(process.pid, freeze=True)
    ours = tmp_path / "ours.pb.gz"
    ours.write_bytes(encode(profile))
    there = {row.name: row.cumulative for row in top(str(own), sample_type="inuse_space", unit="B")}
    here = {row.name: row.cumulative for row in top(str(ours), sample_type="resident", unit="B")}
    calls = ["main.most", "main.some", "main.few"]
    assert sorted(calls, key=there.__getitem__, reverse=True) == calls
    assert sorted(calls, key=here.__getitem__, reverse=True) == calls
    # Its estimate may be above what there is; ours stays within what is counted in slots of that size.
    assert 0.95 * min(there["main.most"], 12 * MB) < here["main.most"] < 12.2 * MB
    # The program's own profile cannot tell what of an object is in RAM.
    assert there["main.sparse"] >= 64 * MB
    assert 2 * MB <= here["main.sparse"] < 3 * MB
    # What was allocated since the last collection is not published yet.
    assert "main.since" not in there
    assert 3 * MB < here["main.since"] < 5.1 * MB


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
@pytest.mark.parametrize("swept", [False, True])
def test_dead_objects_are_told_as_long_as_they_are_not_swept(release: str, swept: bool) -> None:
    size, words = 16 * MB, ["swept"] if swept else []
    command = build("unswept", release), size, *words
    with running("env", "GODEBUG=asyncpreemptoff=1", *command) as process:
        assert process.stdout is not None
        allocated = int(process.stdout.readline())
        profile = taken(process.pid, freeze=True)
    dead = under(profile, "Go heap", "spans in use", "dead objects, not swept yet")
    if swept:
        assert allocated < size
        assert dead == 0
    else:
        assert allocated > size
        assert 0.8 * size < dead <= size


@pytest.mark.parametrize("freeze", [True, False])
def test_the_values_sum_to_the_rss_of_the_same_moment_of_a_process_that_is_busy(freeze: bool, tmp_path: Path) -> None:
    """Stopped, it is the kernel's own sum; else that of the pages which were found."""
    with ExitStack() as stack:
        profile = taken(restless(stack, tmp_path), freeze=freeze)
    pages, kernel = re.findall(r"RSS by OS page: (\d+) bytes, smaps_rollup's Rss (\d+)", profile.comments[1])[0]
    assert total(profile, 0) == int(kernel if freeze else pages)
    assert all(value >= 0 for sample in profile.samples for value in sample.values)


def test_spans_that_lie_change_no_sum() -> None:
    """Spans that claim pages of others, and more objects than there are."""
    with liar() as target:
        with Target.open(target.pid) as process, Inspector.open(process) as inspector:
            look = inspector.look()
            assert look.runtime is not None
            assert inspector.program.layout is not None
            spot = inspector.program.layout.offset("mspan", "npages")
        for address in look.runtime.spans.address[look.runtime.spans.with_state(IN_USE)][:40:2].tolist():
            target.told("word", address + spot, 1 << 9)
        with standing(target.pid):
            profile = taken(target.pid, freeze=False)
            assert total(profile, 0) == rss(target.pid)
    assert all(value >= 0 for sample in profile.samples for value in sample.values)
