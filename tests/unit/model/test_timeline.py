"""GC cycles one after the other: what each was about, and what happened until the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.gc_cycles import GcCycle, GcCycles
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.model.timeline import Timeline
from gomem.tracer.report import GcCycleRow
from gomem.tracer.watch.model_sections import gc_cycles
from tests.support.samples.events import batch, event

PAGE = 8192
SECOND = 1_000_000_000
Happening = tuple[EventKind, int, int, int, int, int]  # kind, time, arguments
START, DONE = EventKind.GC_START, EventKind.GC_DONE


def unused(at: int, size: int) -> np.void:
    return event(EventKind.UNUSED, at, 0xC000000000, size)


def span(kind: EventKind, at: int, pages: int = 1) -> np.void:
    return event(kind, at, 0x10000 * at, pages * PAGE, 5, 0)


def rows_of(*batches: EventBatch, until: int = 100) -> list[GcCycleRow]:
    activity = Activity(lambda address: None)
    activity.mark_start(0)
    reconciler = Reconciler(activity, AddressSpaceModel(callers=activity.callers), follows_states=False)
    for one in batches:
        reconciler.feed(one, 0)
    reconciler.flush()
    return gc_cycles(reconciler.model, activity, until)


def test_what_is_scavenged_belongs_to_the_cycle_under_way_or_the_last_one() -> None:
    rows = rows_of(
        batch(unused(1, 7), event(START, 10), unused(11, 100), unused(12, 20), event(DONE, 20), unused(25, 3),
              event(START, 30), event(DONE, 40), unused(41, 5))
    )  # fmt: skip
    assert [(row.scavenged_during, row.scavenged_after) for row in rows] == [(120, 3), (0, 5)]
    assert [row.mark_seconds for row in rows] == [pytest.approx(10e-9)] * 2
    assert [row.spans for row in rows] == [None, None]


def test_spans_belong_to_the_time_from_one_start_to_the_next() -> None:
    came, went = EventKind.SPAN_ALLOC, EventKind.SPAN_FREE
    rows = rows_of(
        batch(event(EventKind.SPAN_PROBES_ON, 0, 10_000), span(came, 5), event(START, 10), span(came, 11, 2),
              event(DONE, 20), span(went, 21, 4), span(came, 22), event(START, 30), span(went, 31), event(DONE, 40))
    )  # fmt: skip
    seen = [row.spans for row in rows]
    assert [(one.allocated, one.freed, one.allocated_pages, one.freed_pages) for one in seen if one] == [
        (2, 1, 3, 4), (0, 1, 0, 1),
    ]  # fmt: skip
    assert [one.watched_share for one in seen if one] == [1.0, 1.0]


def test_a_cycle_says_how_much_of_its_time_spans_were_watched() -> None:
    rows = rows_of(
        batch(event(START, 10), event(EventKind.SPAN_PROBES_ON, 15), event(DONE, 20), event(START, 30),
              event(EventKind.SPAN_PROBES_OFF, 40), event(DONE, 50), event(START, 60)), until=80
    )  # fmt: skip
    assert [row.spans.watched_share for row in rows if row.spans] == [pytest.approx(0.75), pytest.approx(1 / 3), 0.0]


def test_a_cycle_that_began_before_is_told_from_its_end_on() -> None:
    rows = rows_of(batch(unused(1, 7), event(DONE, 20), unused(25, 3), event(START, 30)))
    assert (rows[0].started, rows[0].mark_seconds) == (None, None)
    assert (rows[0].scavenged_during, rows[0].scavenged_after) == (None, 3)


def test_a_cycle_under_way_has_no_after() -> None:
    (row,) = rows_of(batch(event(START, 10), unused(11, 100)))
    assert (row.ended, row.scavenged_during, row.scavenged_after) == (None, 100, None)


def test_the_start_of_the_next_cycle_says_what_the_last_one_marked() -> None:
    rows = rows_of(
        batch(event(START, 10, 5_000, 1_000, 9_000), event(DONE, 20), event(START, 30, 7_000, 3_500, 8_000),
              event(DONE, 40))
    )  # fmt: skip
    assert [(row.heap_before, row.heap_after, row.goal) for row in rows] == [(5_000, 3_500, 8_000), (7_000, None, None)]


def test_events_know_better_than_looks_but_looks_than_nothing() -> None:
    cycles, ms = GcCycles(), 1_000_000
    cycles.look(5 * ms, 6 * ms, goal=9_000, allocated=4_900, marked=1_000)
    cycles.start(10 * ms)
    cycles.done(20 * ms)
    cycles.look(50 * ms, 51 * ms, goal=8_000, allocated=6_900, marked=3_400)
    cycles.start(60 * ms, 7_000, 3_500, 8_900)
    assert cycles.cycles == [
        GcCycle(10 * ms, 20 * ms, 8_900, 4_900, 3_500), GcCycle(60 * ms, None, 8_000, 7_000, None)
    ]  # fmt: skip


def test_no_goal_at_all_is_no_number() -> None:
    cycles = GcCycles()
    cycles.start(10)
    cycles.done(20)
    cycles.start(30, 2**64 - 1, 1, 2**64 - 1)  # GOGC=off
    assert cycles.cycles == [GcCycle(10, 20, None, None, 1), GcCycle(30)]


def test_only_the_last_cycles_are_kept() -> None:
    timeline = Timeline(most=3)
    timeline.feed(batch(*(event(START, at) for at in range(1, 10))))
    assert list(timeline.periods()) == [6, 7, 8, 9]


happenings = st.tuples(
    st.sampled_from(
        [
            START,
            DONE,
            EventKind.UNUSED,
            EventKind.SPAN_ALLOC,
            EventKind.SPAN_FREE,
            EventKind.SPAN_PROBES_ON,
            EventKind.MADVISE,
        ]
    ),
    st.integers(1, 1000),
    st.integers(0, 1 << 48),
    st.one_of(st.integers(0, 64).map(lambda pages: pages * PAGE), st.integers(0, 2**64 - 1)),
    st.integers(0, 135),
    st.integers(0, 3),
)


def in_order(happened: list[Happening]) -> EventBatch:
    """Return the events in the order of their times."""
    return batch(*(event(*one) for one in sorted(happened, key=lambda one: one[1])))


@given(st.lists(happenings, max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_where_batches_are_cut_makes_no_difference(happened: list[Happening], cuts: list[int]) -> None:
    whole = in_order(happened)
    one, other = Timeline(), Timeline()
    one.feed(whole)
    for piece in np.split(whole, sorted(cuts)):
        other.feed(piece)
    assert one.periods() == other.periods()


@given(st.lists(happenings, max_size=40, unique_by=lambda one: one[1]))
def test_all_that_happens_after_the_first_cycle_belongs_to_one(happened: list[Happening]) -> None:
    timeline = Timeline()
    timeline.feed(in_order(happened))
    happened.sort(key=lambda one: one[1])
    first = next((at for at, one in enumerate(happened) if one[0] in (START, DONE)), len(happened))
    rest, periods = happened[first:], timeline.periods().values()
    scavenged = sum(one[3] for one in rest if one[0] == EventKind.UNUSED)
    assert sum(sum(one.scavenged) for one in periods) == scavenged
    for at, kind in enumerate((EventKind.SPAN_ALLOC, EventKind.SPAN_FREE)):
        assert sum(one.spans[at] for one in periods) == sum(1 for one in rest if one[0] == kind)


def test_who_watches_for_weeks_keeps_the_last_cycles_only() -> None:
    activity = Activity(lambda address: None, most_cycles=3)
    model = AddressSpaceModel(callers=activity.callers, most_cycles=3)
    reconciler = Reconciler(activity, model, follows_states=False)
    for second in range(1, 50):
        reconciler.feed(batch(event(START, second * SECOND), event(DONE, second * SECOND + 1)), 0)
    reconciler.flush()
    assert [cycle.started for cycle in model.cycles.cycles] == [second * SECOND for second in (47, 48, 49)]
    assert len(activity.timeline.periods()) <= 4
    assert model.cycles.ended == 49
