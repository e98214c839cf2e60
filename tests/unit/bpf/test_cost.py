from __future__ import annotations

import pytest

from bpf.cost import EMULATED, SINGLE_STEPPED, SYSCALL, slowdown
from bpf.uprobes import UprobeSpec
from tracer.events import Kind, ProbeStatus

GROW = UprobeSpec("grow", Kind.GROW, "runtime.(*mheap).grow", "/bin/x", 1)
ALLOC = UprobeSpec("alloc", Kind.ALLOC, "runtime.sysAllocOS", "/bin/x", 2, emulated=False)


def test_the_slowdown_is_the_hits_times_their_price_over_the_targets_cpu_time() -> None:
    hits = [
        ProbeStatus("grow", GROW.symbol, 100),
        ProbeStatus("alloc", ALLOC.symbol, 10),
        ProbeStatus("mmap", "mmap", 1000),
    ]
    spent = 100 * EMULATED + 10 * SINGLE_STEPPED + 1000 * SYSCALL
    assert slowdown(hits, [GROW, ALLOC], 2.0) == pytest.approx(spent / 2)


def test_a_target_that_used_no_cpu_time_has_no_slowdown() -> None:
    assert slowdown([ProbeStatus("mmap", "mmap", 5)], [], 0.0) is None
    assert slowdown([], [], None) is None


def test_the_slowdown_is_never_more_than_everything() -> None:
    assert slowdown([ProbeStatus("mmap", "mmap", 10**9)], [], 1.0) == 1.0
