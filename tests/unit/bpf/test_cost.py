from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.bpf.cost import EMULATED, SINGLE_STEPPED, SYSCALL, slowdown
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.events.source import ProbeStatus

GROW = UprobeSpec("grow", EventKind.GROW, "runtime.(*mheap).grow", "/bin/x", 1)
ALLOC = UprobeSpec("alloc", EventKind.ALLOC, "runtime.sysAllocOS", "/bin/x", 2, emulated=False)


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


@pytest.mark.parametrize("hits", [0, 1, 100, 10_000])
@pytest.mark.parametrize("seconds", [1e-9, 0.002, 0.005])
def test_a_time_that_is_too_short_gives_no_estimate(hits: int, seconds: float) -> None:
    assert slowdown([ProbeStatus("mmap", "mmap", hits)], [], 0.0, seconds) is None


@settings(max_examples=300, deadline=None)
@given(
    share=st.floats(0, 0.5), seconds=st.floats(0.0001, 20), early=st.floats(0, 0.01), ticks=st.floats(-0.01, 0.01)
)  # fmt: skip
def test_what_is_estimated_is_near_what_the_hits_took(share: float, seconds: float, early: float, ticks: float) -> None:
    """Hits that come evenly, of which those of the time before the watch are counted too; CPU time to a tick."""
    hits = round(share * (seconds + early) / SYSCALL)
    said = slowdown([ProbeStatus("mmap", "mmap", hits)], [], max(seconds + ticks, 0.0), seconds)
    if said is not None:
        assert abs(said - share) <= max(0.001, 0.5 * max(said, share))


def test_the_slowdown_is_never_more_than_everything() -> None:
    assert slowdown([ProbeStatus("mmap", "mmap", 10**9)], [], 1.0, 1.0) == 1.0
