from __future__ import annotations

import pytest

from bpf.cost import EMULATED, SINGLE_STEPPED, SYSCALL, slowdown
from bpf.uprobes import UprobeSpec
from tracer.events import Kind, ProbeStatus

GROW = UprobeSpec("grow", Kind.GROW, "runtime.(*mheap).grow", "/bin/x", 1)
ALLOC = UprobeSpec("alloc", Kind.ALLOC, "runtime.sysAllocOS", "/bin/x", 2, emulated=False)


def test_the_slowdown_of_a_busy_target_is_the_hits_times_their_price_over_its_cpu_time() -> None:
    hits = [
        ProbeStatus("grow", GROW.symbol, 100),
        ProbeStatus("alloc", ALLOC.symbol, 10),
        ProbeStatus("mmap", "mmap", 1000),
    ]
    spent = 100 * EMULATED + 10 * SINGLE_STEPPED + 1000 * SYSCALL
    assert slowdown(hits, [GROW, ALLOC], 2.0, 1.0) == pytest.approx(spent / 2)


def test_an_idle_target_is_slowed_by_the_share_of_the_time_that_was_watched() -> None:
    assert slowdown([ProbeStatus("mmap", "mmap", 5)], [], 0.0, 10.0) == pytest.approx(5 * SYSCALL / 10)


def test_without_the_targets_cpu_time_there_is_no_estimate() -> None:
    assert slowdown([], [], None, 10.0) is None
    assert slowdown([], [], 1.0, 0.0) is None


def test_the_slowdown_is_never_more_than_everything() -> None:
    assert slowdown([ProbeStatus("mmap", "mmap", 10**9)], [], 1.0, 1.0) == 1.0
