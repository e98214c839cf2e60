"""Spans that came and went: by class, in the time that was watched, and for how long they lived."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.span_events import SpanChurn, with_object_sizes
from gomem.tracer.report import SpanChurnRow, SpanEvents
from tests.support.samples.events import batch, event

PAGE = 8192
HEAP, STACK, WORK_BUF = 0, 1, 2
SECOND = 1_000_000_000
Happening = tuple[EventKind, int, int, int, int, int]  # kind, time, arguments


def on(at: int, budget_ppm: int = 10_000) -> np.void:
    return event(EventKind.SPAN_PROBES_ON, at, budget_ppm)


def off(at: int, by_budget: int = 0) -> np.void:
    return event(EventKind.SPAN_PROBES_OFF, at, by_budget)


def came(at: int, address: int, pages: int = 1, span_class: int = 5, use: int = HEAP) -> np.void:
    return event(EventKind.SPAN_ALLOC, at, address, pages * PAGE, span_class, use)


def went(at: int, address: int, pages: int = 1, span_class: int = 5, use: int = HEAP) -> np.void:
    return event(EventKind.SPAN_FREE, at, address, pages * PAGE, span_class, use)


def section_of(*batches: EventBatch, until: int = 10 * SECOND, start: int = 0) -> SpanEvents | None:
    churn = SpanChurn()
    churn.mark_start(start)
    for one in batches:
        churn.feed(one)
    return churn.section(until, (until - start) / SECOND)


def row(section: SpanEvents | None, use: str = "heap", span_class: int | None = None) -> SpanChurnRow:
    assert section is not None
    of_use = [one for one in section.classes if one.use == use]
    (found,) = [one for one in of_use if span_class in (None, one.span_class)]
    return found


def test_spans_and_pages_are_counted_by_class_and_use() -> None:
    section = section_of(
        batch(
            on(0), came(1, 0x10000, 2, 42), came(2, 0x20000, 3, 42), came(3, 0x30000, 1, 43), went(4, 0x90000, 5, 42),
            came(5, 0x40000, 4, 0, STACK), went(6, 0x40000, 4, 0, STACK), came(7, 0x50000, 4, 0, WORK_BUF),
            came(8, 0x60000, 4, 0, 3),
        )
    )  # fmt: skip
    assert section is not None
    scan = row(section, span_class=42)
    assert (scan.size_class, scan.noscan, scan.allocated, scan.freed) == (21, False, 2, 1)
    assert (scan.allocated_pages, scan.freed_pages) == (5, 5)
    assert (row(section, span_class=43).noscan, row(section, span_class=43).allocated) == (True, 1)
    stacks, work = row(section, "stacks"), row(section, "work_bufs")
    assert (stacks.span_class, stacks.allocated, stacks.freed_pages) == (None, 1, 4)
    assert (work.allocated, work.allocated_pages) == (2, 8)
    assert (section.allocated, section.freed, section.allocated_pages, section.freed_pages) == (6, 2, 18, 9)


def test_nobody_watched_is_not_nothing_happened() -> None:
    assert section_of(batch(event(EventKind.GC_START, 1))) is None
    quiet = section_of(batch(on(0)))
    assert quiet is not None
    assert (quiet.allocated, quiet.classes, quiet.watched_share) == (0, [], 1.0)


def test_the_time_between_windows_is_not_watched() -> None:
    section = section_of(
        batch(on(0, 2_500), off(2 * SECOND, 1), on(6 * SECOND, 2_500), off(7 * SECOND, 1)), batch(on(9 * SECOND, 2_500))
    )
    assert section is not None
    assert section.watched_seconds == pytest.approx(4.0)
    assert section.watched_share == pytest.approx(0.4)
    assert (section.windows, section.stops, section.budget) == (3, 2, 0.0025)


def test_what_came_before_the_watching_counts_for_no_time() -> None:
    section = section_of(batch(on(1 * SECOND)), until=6 * SECOND, start=4 * SECOND)
    assert section is not None
    assert section.watched_seconds == pytest.approx(2.0)
    assert section.watched_share == 1.0


def test_no_more_time_is_watched_than_there_was() -> None:
    section = section_of(batch(on(0), off(11 * SECOND)))
    assert section is not None
    assert (section.watched_seconds, section.watched_share) == (10.0, 1.0)


def test_a_span_that_ends_as_the_one_that_began_has_lived() -> None:
    seen = row(section_of(batch(on(0), came(100, 0x10000), came(200, 0x20000), went(400, 0x10000), went(500, 0x20000))))
    assert seen.lives == 2
    assert seen.mean_life_seconds == pytest.approx(300e-9)


def test_lives_are_not_made_up_over_a_pause() -> None:
    seen = row(section_of(batch(on(0), came(100, 0x10000), off(200), on(300), went(400, 0x10000))))
    assert (seen.allocated, seen.freed, seen.lives, seen.mean_life_seconds) == (1, 1, 0, None)


def test_spans_without_an_address_have_no_lives() -> None:
    assert row(section_of(batch(on(0), came(100, 0), came(101, 0), went(400, 0x10000)))).lives == 0


def test_object_sizes_come_from_the_runtime_that_has_them() -> None:
    section = section_of(batch(on(0), came(1, 1, 1, 5), came(2, 2, 1, 200), came(3, 3, 1, 0, STACK)))
    assert section is not None
    sized = with_object_sizes(section, (0, 8, 16))
    assert [(one.span_class, one.object_size) for one in sized.classes] == [(5, 16), (200, None), (None, None)]


spans = st.tuples(
    st.sampled_from(
        [
            EventKind.SPAN_ALLOC,
            EventKind.SPAN_FREE,
            EventKind.SPAN_PROBES_ON,
            EventKind.SPAN_PROBES_OFF,
            EventKind.GC_START,
        ]
    ),
    st.integers(1, 1 << 62),
    st.integers(0, 8).map(lambda page: page * PAGE),
    st.one_of(st.integers(0, 64).map(lambda pages: pages * PAGE), st.integers(0, 2**64 - 1)),
    st.one_of(st.integers(0, 135), st.integers(0, 2**64 - 1)),
    st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1)),
)


def in_order(happened: list[Happening]) -> EventBatch:
    """Return the events in the order of their times."""
    return batch(*(event(*one) for one in sorted(happened, key=lambda one: one[1])))


@given(st.lists(spans, max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_where_batches_are_cut_makes_no_difference(happened: list[Happening], cuts: list[int]) -> None:
    whole = in_order(happened)
    pieces = np.split(whole, sorted(cuts))
    assert section_of(whole) == section_of(*pieces)


@given(st.lists(spans, max_size=40))
def test_the_classes_add_up_to_the_whole_whatever_the_target_says(happened: list[Happening]) -> None:
    section = section_of(in_order(happened))
    if section is None:
        return
    for name in ("allocated", "freed", "allocated_pages", "freed_pages"):
        assert sum(getattr(one, name) for one in section.classes) == getattr(section, name)
    assert section.allocated == sum(1 for one in happened if one[0] == EventKind.SPAN_ALLOC)
    assert 0 <= section.watched_share <= 1


def test_span_events_are_counted_by_name_and_marks_are_not() -> None:
    activity = Activity(lambda address: None)
    activity.feed(batch(on(0), came(1, 0x10000, 3), went(2, 0x10000, 3), off(3)))
    counted = activity.events()
    assert set(counted) == {"span_alloc", "span_free"}
    assert (counted["span_alloc"].count, counted["span_alloc"].bytes) == (1, 3 * PAGE)


def test_a_kind_that_nobody_knows_is_not_taken_for_the_last_one_that_is_known() -> None:
    unknown = went(1, 0x10000)
    unknown["kind"] = 60_000
    activity = Activity(lambda address: None)
    activity.feed(batch(on(0), unknown))
    assert activity.events() == {}
