"""The same as in functions.py by kprobes, which stand in for BPF trampolines on a kernel that was built without BTF.

The kernel says in debugfs which there are.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.bpf import kernel_functions
from gomem.bpf.probes.call_functions import are_kprobes_there
from gomem.bpf.shared_source import SharedSource
from tests.kernels.inside import functions
from tests.kernels.inside.functions import ALL, CHURN, mounted, tracepoints_of
from tests.live.bpf.test_call_tracepoints import counting, numbers, watched, without_gap
from tests.support.bpf.sharing import sharing
from tests.support.bpf.tracing import tracing
from tests.support.builds import build
from tests.support.command import obeys_the_rules, outcome, started
from tests.support.processes import running, wait_until

pytestmark = pytest.mark.bpf

__all__ = ["mounted"]
BOTH = {(kind, name) for name in ALL for kind in "kr"}


@pytest.fixture(scope="module", autouse=True)
def no_trampolines() -> Iterator[None]:
    """Make this kernel one of those: what is not there cannot be asked for."""
    if not are_kprobes_there():
        pytest.skip("the kernel has no kprobes")
    subprocess.run(["mount", "-t", "tmpfs", "none", kernel_functions.BTF.parent], check=True)
    yield
    subprocess.run(["umount", "-l", kernel_functions.BTF.parent], check=True)


@pytest.fixture(scope="module")
def source() -> Iterator[SharedSource]:
    with sharing() as source:
        assert source.seen_by == "kprobes"
        yield source


def in_place(mounted: dict[str, Path]) -> set[tuple[str, str]]:
    """Return at which functions there are kprobes: `k` at the beginning, `r` at the return."""
    lines = (mounted["debugfs"] / "kprobes" / "list").read_text().splitlines()
    probes = [(kind, place.partition("+")[0]) for _, kind, place, *_ in (line.split() for line in lines if line)]
    return {probe for probe in probes if probe in BOTH}


def test_a_trace_that_lasts_has_no_tracepoint_of_system_calls_and_misses_nothing(mounted: dict[str, Path]) -> None:
    words = ("--duration", 600, "--backend", "bpf", "--format", "json")
    with (
        running(build("churn", "1.27.3"), *CHURN) as process,
        started("trace", "--pid", process.pid, *words) as trace,
    ):
        wait_until(lambda: in_place(mounted) == BOTH, "the kprobes", 60)
        wait_until(lambda: not {"sys_enter", "sys_exit"} & tracepoints_of(trace.pid), "the end of the tracepoints")
        assert "sched_process_exec" in tracepoints_of(trace.pid)
        time.sleep(3)
        trace.send_signal(signal.SIGINT)
        report = outcome(trace).report()
    assert report["event_loss"] == {"lost": 0, "resyncs": 0, "drift_bytes": 0}
    assert {probe["symbol"] for probe in report["overhead"]["probes"]} >= {"kprobe:__x64_sys_madvise"}
    assert report["events"]["madvise"]["count"] > 0
    assert not in_place(mounted)
    obeys_the_rules(report)


def test_a_tracer_that_is_killed_leaves_no_kprobe(mounted: dict[str, Path]) -> None:
    with running(build("churn", "1.27.3"), *CHURN) as process, started("trace", "--pid", process.pid) as trace:
        wait_until(lambda: in_place(mounted) == BOTH, "the kprobes", 60)
        trace.kill()
        trace.wait()
        wait_until(lambda: not in_place(mounted), "the kernel's cleaning up")
        assert process.poll() is None


def test_no_call_is_lost_or_told_twice_when_kprobes_take_over() -> None:
    with counting() as pid, tracing(pid, ring_bytes=8 << 20) as source:
        events = watched(source, 500, lambda: source.seen_by == "kprobes")
    without_gap(numbers(events))


test_each_call = functions.test_each_call_is_told_with_its_arguments_and_its_result
test_32_bit_calls = functions.test_32_bit_calls_are_told_at_once_and_never_missed
test_stacks_and_arguments = functions.test_stacks_and_arguments_are_those_of_another_source_by_tracepoints
