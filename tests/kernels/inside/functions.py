"""Memory calls that are seen at functions of the kernel, while no tracepoint of system calls is in use.

What is in use the kernel says: which functions have trampolines, and which links there are.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gomem.bpf import kernel_functions
from gomem.bpf.probes.call_functions import COMPAT, NATIVE
from gomem.bpf.shared_source import SharedSource
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.events.record import EventKind
from tests.live.bpf.test_bpf_syscalls import ARGUMENTS, as_calls, is_subsequence
from tests.live.bpf.test_call_tracepoints import counting, numbers, watched, without_gap
from tests.live.bpf.test_compat_calls import round_of
from tests.support.bpf.sharing import Gathered, sharing
from tests.support.bpf.tracing import tracing
from tests.support.builds import build
from tests.support.c_programs import compiled
from tests.support.command import obeys_the_rules, outcome, started
from tests.support.processes import running, wait_until

pytestmark = pytest.mark.bpf

ALL = {*NATIVE.values(), *COMPAT}
CHURN = ("-mb", "24", "-phase", "200ms", "-seconds", "600")
# Writes before and after one call that takes long: it asks for the pages of its memory at once.
POPULATING = """
import ctypes, sys, time
mmap = ctypes.CDLL(None).mmap
mmap.restype = ctypes.c_void_p
mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
print("begins", flush=True)
print(mmap(None, SIZE, 3, 0x8022, -1, 0), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Mount tracefs and debugfs where gomem does not look for them."""
    found = {kind: tmp_path_factory.mktemp(kind) for kind in ("tracefs", "debugfs")}
    for kind, at in found.items():
        subprocess.run(["mount", "-t", kind, "none", at], check=True)
    yield found
    for at in found.values():
        subprocess.run(["umount", "-l", at], check=True)


@pytest.fixture(scope="module", autouse=True)
def trampolines() -> None:
    try:
        kernel_functions.ensure_wanted()
    except BackendUnavailable as refused:
        pytest.skip(str(refused))


@pytest.fixture(scope="module")
def source() -> Iterator[SharedSource]:
    with sharing() as source:
        assert source.seen_by == "functions"
        yield source


def with_trampolines(mounted: dict[str, Path]) -> set[str]:
    """Return which of the functions have some, as the kernel says."""
    lines = (mounted["tracefs"] / "enabled_functions").read_text().splitlines()
    return {line.split()[0] for line in lines if line.strip()} & ALL


def tracepoints_of(pid: int) -> set[str]:
    """Return the raw tracepoints that a process has links to."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found |= {line.split()[1] for line in path.read_text().splitlines() if line.startswith("tp_name:")}
    return found


def test_a_trace_that_lasts_has_no_tracepoint_of_system_calls_and_misses_nothing(mounted: dict[str, Path]) -> None:
    before = with_trampolines(mounted)
    words = ("--duration", 600, "--backend", "bpf", "--format", "json")
    with (
        running(build("churn", "1.27.3"), *CHURN) as process,
        started("trace", "--pid", process.pid, *words) as trace,
    ):
        wait_until(lambda: with_trampolines(mounted) == ALL, "the programs at the functions")
        wait_until(lambda: "sys_enter" not in tracepoints_of(trace.pid), "the end of the tracepoints")
        assert "sched_process_exec" in tracepoints_of(trace.pid)
        time.sleep(3)
        trace.send_signal(signal.SIGINT)
        report = outcome(trace).report()
    assert report["event_loss"] == {"lost": 0, "resyncs": 0, "drift_bytes": 0}
    assert {probe["symbol"] for probe in report["overhead"]["probes"]} >= {"fentry:__x64_sys_madvise"}
    assert report["events"]["madvise"]["count"] > 0
    assert with_trampolines(mounted) == before
    obeys_the_rules(report)


def test_a_tracer_that_is_killed_leaves_no_trampoline(mounted: dict[str, Path]) -> None:
    before = with_trampolines(mounted)
    with running(build("churn", "1.27.3"), *CHURN) as process, started("trace", "--pid", process.pid) as trace:
        wait_until(lambda: with_trampolines(mounted) == ALL, "the programs at the functions")
        trace.kill()
        trace.wait()
        wait_until(lambda: with_trampolines(mounted) == before, "the kernel's cleaning up")
        assert process.poll() is None


def test_each_call_is_told_with_its_arguments_and_its_result(source: SharedSource) -> None:
    with running(build("mappings", "1.27.3")) as process:
        source.add(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        said = [json.loads(line) for line in iter(process.stdout.readline, b"\n")]
        events = source.poll(0.2)[process.pid]
    told = [(call["name"], tuple(call["args"][: ARGUMENTS[call["name"]]]), call["result"]) for call in said]
    assert is_subsequence(told, as_calls(events))
    assert any(result < 0 for _, _, result in told)
    assert (events["entered"] > 0).all()


def test_32_bit_calls_are_told_at_once_and_never_missed(source: SharedSource) -> None:
    with running(compiled("compat/compat.c", "-mno-red-zone")) as process:
        round_of(process)  # after which it makes no calls but those that it is asked for
        source.add(process.pid)
        said = [*round_of(process), *round_of(process)]
        seen = as_calls(source.poll(0.2)[process.pid])
        assert seen == said
        assert source.target(process.pid).limits() == []


def test_stacks_and_arguments_are_those_of_another_source_by_tracepoints(source: SharedSource) -> None:
    with counting() as pid, sharing(seen_by="all calls") as other:
        first, second = Gathered(other), Gathered(source)
        for one in (other, source):
            one.add(pid)
        first.until(lambda: len(first.of(pid)) > 300, "calls")
        second.until(lambda: len(second.of(pid)) > 300, "calls")
        batches = [first.of(pid), second.of(pid)]
    by_number = [{int(event["args"][1]): event for event in batch} for batch in batches]
    both = by_number[0].keys() & by_number[1].keys()
    assert len(both) > 100
    for number in both:
        one_way, other_way = (one[number] for one in by_number)
        for column in ("tid", "kind", "args", "result", "depth", "stack"):
            assert np.array_equal(one_way[column], other_way[column]), column


def test_no_call_is_lost_or_told_twice_when_functions_take_over() -> None:
    with counting() as pid, tracing(pid, ring_bytes=8 << 20) as source:
        events = watched(source, 500, lambda: source.seen_by == "functions")
    without_gap(numbers(events))


def test_a_call_that_began_before_is_told_but_not_when_it_began(source: SharedSource) -> None:
    size = 1 << 30
    with running(sys.executable, "-c", POPULATING.replace("SIZE", str(size))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        time.sleep(0.05)
        source.add(process.pid)
        address = int(process.stdout.readline())
        events = source.poll(0.2)[process.pid]
    (call,) = events[(events["kind"] == EventKind.MMAP) & (events["args"][:, 1] == size)]
    assert (int(call["result"]), int(call["entered"])) == (address, 0)
