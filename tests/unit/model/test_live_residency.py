from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.events.record import EventKind
from gomem.tracer.model import live_residency
from gomem.tracer.model.live_residency import UNMAPPED, LiveResidency, divided
from gomem.tracer.report import KINDS, FaultRow
from gomem.tracer.snapshot.join import AddressSpace
from tests.support.samples.events import PAGE, batch, event

REGION = 64 * PAGE
BASE = 0x7F00_0000_0000


def space(*ranges: tuple[int, int, str]) -> AddressSpace:
    """An address space of these ranges (start, end, kind), of which nothing else is known."""
    start, end = (np.array([one[at] for one in ranges], np.uint64) for at in (0, 1))
    none, zero = np.zeros(len(ranges), np.int64), np.zeros(len(ranges), np.uint64)
    kind = np.array([KINDS.index(one[2]) for one in ranges], np.int64)
    return AddressSpace(start, end, none, kind, none, none.astype(np.uint8), none, zero, zero, 0)


def faults(region: int, count: int, touched: int, by_kernel: int = 0, writes: int = 0, present: int = 0) -> np.void:
    return event(EventKind.PAGE_FAULTS, 1, region, REGION, count, touched, by_kernel, writes, result=present)


def fed(*events: np.void) -> LiveResidency:
    residency = LiveResidency()
    residency.feed(batch(*events))
    return residency


def test_without_events_there_is_nothing_to_report() -> None:
    residency = fed(event(EventKind.BRK, 1), event(EventKind.USED, 2, BASE, PAGE))
    assert residency.resident() is None
    assert residency.page_faults(space(), 1.0) is None


def test_that_there_was_no_fault_is_a_figure() -> None:
    seen = fed(event(EventKind.PAGE_FAULTS, 1)).page_faults(space(), 2.0)
    assert seen is not None
    assert (seen.count, seen.unplaced, seen.per_second, seen.kinds) == (0, 0, 0.0, [])


def test_resident_bytes_are_those_of_the_last_event_and_the_peak_is_that_of_all() -> None:
    resident = fed(
        event(EventKind.RSS, 1, 100, 10, 1, 7, 3),
        event(EventKind.RSS_PEAK, 1, 150, 10, 1, 7, 155),
        event(EventKind.RSS, 2, 50, 20, 0, 9, 4),
        event(EventKind.RSS_PEAK, 2, 60, 20, 1, 9, 75),
    ).resident()
    assert resident is not None
    assert (resident.now.total, resident.now.anonymous, resident.now.file, resident.now.shmem) == (70, 50, 20, 0)
    assert resident.now.swap == 9
    peak = resident.peak
    assert (peak.total, peak.anonymous, peak.file, peak.shmem, peak.swap) == (155, 150, 20, 1, 9)
    assert resident.changes == 7


def test_faults_belong_to_the_kind_that_is_mapped_where_they_were() -> None:
    heap, binary = BASE, BASE + 10 * REGION
    residency = fed(
        faults(heap, 30, 0b111, by_kernel=4, writes=30, present=2),
        faults(heap, 10, 0b1000),
        faults(binary, 5, 1 << 63),
        faults(BASE + 20 * REGION, 7, 1),
    )
    seen = residency.page_faults(
        space((heap, heap + REGION, "heap_arena"), (binary + REGION - PAGE, binary + REGION, "binary")), 4.0
    )
    assert seen is not None
    assert (seen.count, seen.by_kernel, seen.writes, seen.present, seen.unplaced) == (52, 4, 30, 2, 0)
    assert seen.per_second == 13.0
    assert seen.kinds == [
        FaultRow("heap_arena", 40, 4 * PAGE), FaultRow(UNMAPPED, 7, PAGE), FaultRow("binary", 5, PAGE),
    ]  # fmt: skip


def test_a_region_of_two_kinds_is_divided_by_what_was_touched_of_each() -> None:
    half = BASE + REGION // 2
    residency = fed(faults(BASE, 10, 0b111 | 1 << 32))
    seen = residency.page_faults(space((BASE, half, "file"), (half, BASE + REGION, "other")), 1.0)
    assert seen is not None
    assert seen.kinds is not None
    assert {row.kind: row.touched for row in seen.kinds} == {"file": 3 * PAGE, "other": PAGE}
    assert sum(row.faults for row in seen.kinds) == 10


@given(st.integers(0, 1 << 64), st.lists(st.integers(0, 64), min_size=1, max_size=8))
def test_shares_are_whole_and_add_up(total: int, weights: list[int]) -> None:
    if not sum(weights):
        weights = [1]
    weights = [weight for weight in weights if weight]
    shares = divided(total, weights)
    assert sum(shares) == total
    assert all(abs(share - total * one / sum(weights)) <= len(weights) + total / (1 << 50)
               for share, one in zip(shares, weights, strict=True))  # fmt: skip


words = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 64, REGION, BASE, (1 << 64) - 64]))
rows = st.builds(
    lambda kind, args, result: event(kind, 1, *args, result=result),
    st.sampled_from([EventKind.RSS, EventKind.RSS_PEAK, EventKind.PAGE_FAULTS]),
    st.tuples(*[words] * 6),
    st.integers(-(1 << 63), (1 << 63) - 1),
)


@given(st.lists(rows, max_size=20))
def test_whatever_a_recording_says_the_sums_hold(events: list[np.void]) -> None:
    residency = fed(*events)
    seen = residency.page_faults(space((BASE, BASE + REGION, "heap_arena")), 1.0)
    if seen is not None:
        assert seen.kinds is not None
        assert sum(row.faults for row in seen.kinds) + seen.unplaced == seen.count
        assert min(seen.by_kernel, seen.writes, seen.present) >= 0
    resident = residency.resident()
    if resident is not None:
        assert resident.peak.total >= resident.now.total >= 0


def test_more_regions_than_are_kept_are_not_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_residency, "_MOST_REGIONS", 10)
    seen = fed(*[faults(BASE + at * REGION, 1, 1) for at in range(25)]).page_faults(space(), 1.0)
    assert seen is not None
    assert (seen.count, seen.unplaced) == (25, 15)
