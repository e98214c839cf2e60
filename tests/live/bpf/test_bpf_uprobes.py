"""Probes on the runtime's functions: seen once each, with the right arguments and the caller first."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf.probes.uprobes import Backend
from gomem.tracer.events.after_exec import AfterExec
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import USED_MARKS, EventBatch, EventKind
from gomem.tracer.process.launch import Launched
from tests.support.bpf.tracing import gather, kinds_of, opened, tracing
from tests.support.builds import build
from tests.support.processes import running, sleeping

pytestmark = pytest.mark.bpf

# Where a stack begins: a goroutine, a thread, or the runtime's own stack that a goroutine switched to.
OUTERMOST = {f"runtime.{name}" for name in ("goexit", "main", "mstart", "rt0_go", "morestack", "mcall")}
ROUND = (EventKind.USED, EventKind.UNUSED, EventKind.GC_START, EventKind.GC_DONE)  # what churn does again and again
BIRTH = (
    EventKind.RESERVE,
    EventKind.MAP,
    EventKind.ALLOC,
    EventKind.ARENA,
    EventKind.GROW,
)  # what only a growing heap does


@pytest.mark.parametrize("backend", ["multi", "perf"])
def test_the_first_stack_entry_is_where_the_probed_function_returns_to(release: str, backend: Backend) -> None:
    path = build("churn", release)
    with opened(path, release) as binary, Launched([str(path), "-mb", "48", "-phase", "200ms"]) as launched:
        specs = binary.specs()
        with tracing(launched.pid, specs, backend) as source:
            assert source._source.backend == backend
            launched.resume()
            events = gather(source, *BIRTH, *ROUND)
            assert launched.poll() is None
        os.kill(launched.pid, signal.SIGKILL)
        launched.wait()
        symbols = {spec.kind: spec.symbol for spec in specs}
        for event in events[events["kind"] >= 64]:
            kind = EventKind(event["kind"])
            stack = [int(address) for address in event["stack"][: event["depth"]]]
            assert binary.called_before(stack[0]) == symbols[kind], kind.name
            assert len(stack) >= 2
            assert stack[0] != stack[1]
            if len(stack) < (3 if kind is EventKind.USED else 16):
                assert binary.name_at(stack[-1]) in OUTERMOST, kind.name


def test_events_of_roles_explain_the_syscalls_that_the_runtime_makes(release: str) -> None:
    path = build("churn", release)
    with (
        opened(path, release) as binary,
        Launched([str(path), "-mb", "48", "-phase", "200ms", "-rounds", "3"]) as launched,
        tracing(launched.pid, binary.specs()) as source,
    ):
        launched.resume()
        events = AfterExec().filter(gather(source, EventKind.EXIT))
        launched.wait()
        assert source.lost == 0
    events = without_cut_off_calls(events)
    fixed = ranges(events, EventKind.MMAP, lambda event: bool(event["args"][3] & 0x10))
    mapped = ranges(events, EventKind.MAP)
    assert mapped
    assert mapped <= fixed
    unused = ranges(events, EventKind.UNUSED)
    assert unused
    assert unused <= ranges(events, EventKind.MADVISE)
    reserved = {size for _, size in ranges(events, EventKind.RESERVE)}
    assert reserved <= {size for _, size in ranges(events, EventKind.MMAP)}
    for event in events[events["kind"] == EventKind.GROW]:
        assert event["args"][1] == 8192 * event["args"][2]
        assert 0 < event["args"][2] < 1 << 20


def without_cut_off_calls(events: EventBatch) -> EventBatch:
    """Leave out each thread's last event of a role: the process may have ended before its last system call.

    sysUnused of Go 1.19 makes up to three (MADV_NOHUGEPAGE at both ends, mem_linux.go), so others may follow it.
    """
    events = events[events["kind"] != EventKind.EXIT]
    roles = np.flatnonzero(events["kind"] >= EventKind.RESERVE)
    _, from_the_end = np.unique(events["tid"][roles][::-1], return_index=True)
    return np.delete(events, roles[len(roles) - 1 - from_the_end])


def ranges(
    events: EventBatch, kind: EventKind, accept: Callable[[np.void], bool] = lambda _: True
) -> set[tuple[int, int]]:
    return {(int(e["args"][0]), int(e["args"][1])) for e in events[events["kind"] == kind] if accept(e)}


def test_collections_from_birth_on_are_counted_once_each(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build("churn", release)
    log = tmp_path / "gctrace"
    monkeypatch.setenv("GODEBUG", "gctrace=1")
    script = f'exec "{path}" -mb 48 -phase 200ms -rounds 3 2>"{log}" >/dev/null'
    with (
        opened(path, release) as binary,
        Launched(["sh", "-c", script]) as launched,
        tracing(launched.pid, binary.specs(EventKind.GC_START, EventKind.GC_DONE)) as source,
    ):
        launched.resume()
        events = gather(source, EventKind.EXIT)
        launched.wait()
        assert source.lost == 0
        hits = {status.role: status.hits for status in source.probes()}
    said = len(re.findall(r"^gc \d+ @", log.read_text(), re.MULTILINE))
    kinds = kinds_of(events)
    assert said > 2
    # the end of the process may fall between one of our probes and the line of its cycle
    assert said <= kinds.count(EventKind.GC_DONE) <= said + 1
    assert kinds.count(EventKind.GC_DONE) <= kinds.count(EventKind.GC_START) <= kinds.count(EventKind.GC_DONE) + 1
    assert hits["gc_start"] == kinds.count(EventKind.GC_START)


@pytest.mark.parametrize("backend", ["multi", "perf"])
def test_a_child_that_has_not_called_execve_yet_is_seen_from_its_first_mapping(release: str, backend: Backend) -> None:
    path = build("tiny", release)
    with (
        opened(path, release) as binary,
        Launched([str(path)]) as launched,
        tracing(launched.pid, binary.specs(), backend) as source,
    ):
        launched.resume()
        events = AfterExec().filter(gather(source, EventKind.EXIT))
        launched.wait()
    kinds = kinds_of(events)
    assert kinds[0] == EventKind.EXEC
    assert kinds[-1] == EventKind.EXIT
    reserve = events[events["kind"] == EventKind.RESERVE]
    assert len(reserve) >= 5  # the levels of the page summary
    with opened(path, release) as binary:
        assert "runtime.(*pageAlloc).sysInit" in {binary.name_at(int(a)) for e in reserve for a in e["stack"]}
    arena = events[events["kind"] == EventKind.ARENA]
    assert len(arena) >= 1


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_copies_of_the_program_tell_what_the_one_program_tells_that_asks_for_cookies(release: str) -> None:
    path = build("churn", release)
    with (
        opened(path, release) as binary,
        Launched([str(path), "-mb", "24", "-phase", "100ms", "-rounds", "2"]) as launched,
        tracing(launched.pid, binary.specs(), ring_bytes=8 << 20) as one,
        tracing(launched.pid, binary.specs(), "copies", ring_bytes=8 << 20) as copies,
    ):
        launched.resume()
        seen = [AfterExec().filter(gather(source, EventKind.EXIT)) for source in (one, copies)]
        assert launched.wait() == 0
        assert [one.lost, copies.lost] == [0, 0]
        assert [status.hits for status in one.probes()] == [status.hits for status in copies.probes()]
    contents = [Counter(event.tobytes() for event in without_times(events)) for events in seen]
    assert contents[0] == contents[1]
    assert {*BIRTH, *ROUND} <= set(kinds_of(seen[1]))


def without_times(events: EventBatch) -> EventBatch:
    """Leave out what each source reads for itself."""
    events = events[~np.isin(events["kind"], USED_MARKS)].copy()
    events["time"] = events["entered"] = 0
    return events


def test_a_deleted_executable_is_probed_through_its_process(release: str, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    shutil.copy(build("churn", release), path)
    with running(path, "-mb", "32", "-phase", "150ms") as process:
        path.unlink()
        with (
            opened(f"/proc/{process.pid}/exe", release) as binary,
            tracing(process.pid, binary.specs(EventKind.GROW, EventKind.GC_START)) as source,
        ):
            gather(source, EventKind.GC_START)


def test_another_process_of_the_same_file_is_not_seen() -> None:
    path = build("churn", "1.25.5")
    with opened(path, "1.25.5") as binary, sleeping() as target, running(path, "-phase", "100ms"):
        for backend in ("multi", "perf", "copies"):
            with tracing(target.pid, binary.specs(EventKind.USED, EventKind.GC_START), backend) as source:
                assert not len(source.poll(1.0))
                assert not any(status.hits for status in source.probes())


def test_one_uprobe_that_the_kernel_refuses_does_not_spoil_the_others() -> None:
    path = build("churn", "1.25.5")
    with opened(path, "1.25.5") as binary, running(path, "-phase", "100ms") as process:
        good = binary.specs(EventKind.USED)
        bad = UprobeSpec("none", EventKind.FAULT, "runtime.beyond", good[0].path, 1 << 40)
        with tracing(process.pid, [bad, *good]) as source:
            assert [skipped.spec for skipped in source.skipped] == [bad]
            gather(source, EventKind.USED)
            assert [status.role for status in source.probes()][-1] == "used"


@pytest.mark.parametrize("backend", ["multi", "perf", "copies"])
def test_nothing_is_left_of_the_probes_after_stop(backend: Backend) -> None:
    before = set(os.listdir("/proc/self/fd"))
    path = build("churn", "1.25.5")
    with opened(path, "1.25.5") as binary, running(path, "-phase", "100ms") as process:
        specs = binary.specs()
        with tracing(process.pid, specs, backend):
            assert all(binary.has_breakpoint(process.pid, spec) for spec in specs)
        assert not any(binary.has_breakpoint(process.pid, spec) for spec in specs)
    assert set(os.listdir("/proc/self/fd")) <= before
