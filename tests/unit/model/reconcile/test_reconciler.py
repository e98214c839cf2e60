"""The Reconciler: events held until they are in order, looks compared at the right time, losses, resyncs."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.tracer.addresses.region_states import NONE, PREPARED, READY, RESERVED
from gomem.tracer.addresses.region_states import UNKNOWN as UNKNOWN_STATE
from gomem.tracer.events.record import EventKind, no_events
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.batches import joined
from gomem.tracer.model.mappings import GROWSDOWN as GROWSDOWN_BIT
from gomem.tracer.model.mappings import MAPPED, READABLE, UNKNOWN, WRITABLE
from gomem.tracer.model.model_input import Cover, ModelInput
from gomem.tracer.model.reconcile import held
from gomem.tracer.model.reconcile.reconciler import HOLD, SLACK, Reconciler
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.model.states import STATE_MASK
from tests.support.samples.events import (
    ANONYMOUS,
    GROWSDOWN,
    PAGE,
    PRIVATE,
    READ,
    batch,
    event,
    mmap,
    mprotect,
    mremap,
    munmap,
)

MS = 1_000_000
BASE = 0x7F00_0000_0000
HEAP = 0xC0_0000_0000
RW = MAPPED | READABLE | WRITABLE
SETTLED = 100 * MS
Row = tuple[int, int, int]


def cover(rows: Sequence[Row]) -> Cover:
    starts, ends, values = ([row[column] for row in sorted(rows)] for column in range(3))
    return Cover(np.array(starts, np.uint64), np.array(ends, np.uint64), np.array(values, np.int64))


def model_input(
    at: int, mappings: Sequence[Row], states: Sequence[Row] | None = (), heap_end: int | None = None
) -> ModelInput:
    """Return a look that took from `at` for one ms."""
    return ModelInput(at, at, at + MS, cover(mappings), heap_end, None if states is None else cover(states))


def rows(*ranges: tuple[int, int, int]) -> list[Row]:
    """Return (first page, pages, value) as rows of addresses."""
    return [(BASE + first * PAGE, BASE + (first + count) * PAGE, value) for first, count, value in ranges]


def reconciler(*, states: bool = True) -> Reconciler:
    activity = Activity(lambda address: None)
    return Reconciler(activity, AddressSpaceModel(callers=activity.callers), follows_states=states)


def looked(one: Reconciler, look: ModelInput, *events: np.void, lost: int = 0) -> Reconciler:
    """Let the reconciler have a look, the events around it, and the time to compare them."""
    one.look(look)
    one.feed(batch(*events) if events else no_events(), look.ended + SETTLED, lost)
    assert not one.pending
    return one


def breaks(time: int, *ends: int) -> list[np.void]:
    """Return calls of brk from a time on, each of which moves the break to the end of a page."""
    return [
        event(EventKind.BRK, time + at, BASE + end * PAGE, result=BASE + end * PAGE) for at, end in enumerate(ends, 10)
    ]


def test_the_first_look_is_what_the_model_starts_from() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW)), [(HEAP, HEAP + PAGE, READY)]))
    assert one.model.mappings.map.at(BASE) == RW
    assert one.model.virtual().total == 4 * PAGE
    assert one.model.states.map.at(HEAP) == READY
    assert (one.found.looks, one.found.exact_looks, one.found.drift, one.found.resyncs) == (1, 1, 0, 0)
    assert not one.suspicious


def test_the_model_follows_events_between_looks() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    one.feed(batch(munmap(300 * MS, BASE, 1), mprotect(301 * MS, BASE + PAGE, 1, READ)), 400 * MS)
    looked(one, model_input(500 * MS, rows((1, 1, MAPPED | READABLE), (2, 2, RW))))
    assert (one.found.looks, one.found.drift) == (2, 0)
    assert not one.suspicious


@pytest.mark.parametrize("before", [True, False])
def test_a_call_during_a_look_may_or_may_not_be_seen(before: bool) -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    look = model_input(500 * MS, rows((0, 4, RW)) if before else rows((1, 3, RW)))
    looked(one, look, munmap(500 * MS + 500_000, BASE, 1))
    assert not one.suspicious
    assert one.model.mappings.map.at(BASE) == 0, "the last event is right, whatever was seen"


def test_a_byte_that_changes_twice_during_a_look_may_be_seen_in_between() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 1, RW))))
    calls = mprotect(500 * MS + 100, BASE, 1, READ), mprotect(500 * MS + 200, BASE, 1, 0)
    looked(one, model_input(500 * MS, rows((0, 1, MAPPED | READABLE))), *calls)
    assert not one.suspicious
    looked(one, model_input(900 * MS, rows((0, 1, MAPPED | READABLE))))
    assert one.suspicious, "now nothing changed, and it should be PROT_NONE"


def test_a_call_that_began_before_the_look_and_ended_long_after_is_waited_for() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    one.look(model_input(500 * MS, rows((1, 3, RW))))
    one.feed(no_events(), 510 * MS)
    assert one.pending
    one.feed(batch(munmap(530 * MS, BASE, 1, entered=499 * MS)), 600 * MS)
    assert not one.pending
    assert not one.suspicious


def test_calls_that_end_while_one_from_the_look_is_under_way_keep_their_order() -> None:
    one = looked(reconciler(), model_input(100 * MS, []))
    # The kernel gives the third call a place that the first two, which began after the look, have made free.
    calls = (
        mmap(520 * MS, BASE, 8, entered=519 * MS),
        munmap(522 * MS, BASE, 4, entered=521 * MS),
        mmap(523 * MS, BASE + 2 * PAGE, 2, entered=501 * MS, tid=2),
    )
    looked(one, model_input(500 * MS, []), *calls)
    one.flush()
    assert one.model.mappings.map.pieces(BASE, BASE + 8 * PAGE) == [
        (BASE, BASE + 2 * PAGE, 0), (BASE + 2 * PAGE, BASE + 8 * PAGE, RW),
    ]  # fmt: skip
    assert (one.model.mappings.unordered, one.found.drift) == (0, 0)


def test_a_call_from_a_look_that_ended_just_now_waits_for_others_of_its_time() -> None:
    one = looked(reconciler(), model_input(100 * MS, []))
    one.look(model_input(500 * MS, rows((2, 2, RW))))
    one.feed(batch(mmap(590 * MS, BASE + 2 * PAGE, 2, entered=501 * MS)), 600 * MS)
    assert one.suspicious
    one.feed(batch(mmap(588 * MS, BASE, 8, tid=2), munmap(589 * MS, BASE, 4, tid=2)), 700 * MS)
    looked(one, model_input(900 * MS, rows((2, 6, RW))))
    assert (one.found.drift, one.suspicious) == (0, False)


def test_what_happens_after_a_look_does_not_count_for_it() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    looked(one, model_input(500 * MS, rows((0, 4, RW))), munmap(501 * MS + SLACK + 10, BASE, 1))
    assert one.model.mappings.map.at(BASE) == RW
    assert not one.suspicious
    one.flush()
    assert one.model.mappings.map.at(BASE) == 0


def test_a_clock_that_is_a_little_ahead_or_behind_is_no_drift() -> None:
    for skew in (-SLACK // 2, SLACK // 2):
        one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
        seen = rows((1, 3, RW)) if skew > 0 else rows((0, 4, RW))
        edge = 501 * MS if skew > 0 else 500 * MS
        one.feed(no_events(), 495 * MS)
        looked(one, model_input(500 * MS, seen), munmap(edge + skew, BASE, 1))
        assert not one.suspicious, skew


def test_a_difference_is_drift_when_three_looks_have_it() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW)), [(HEAP, HEAP + 4 * PAGE, READY)]))
    wrong = rows((0, 3, RW)), [(HEAP, HEAP + PAGE, PREPARED), (HEAP + PAGE, HEAP + 4 * PAGE, READY)]
    looked(one, model_input(500 * MS, *wrong))
    assert one.suspicious
    assert one.found.drift == 0
    looked(one, model_input(600 * MS, *wrong))
    assert one.suspicious
    assert one.found.drift == 0
    looked(one, model_input(700 * MS, *wrong))
    assert (one.found.mappings, dict(one.found.states)) == (PAGE, {(READY, PREPARED): PAGE})
    assert one.found.drift == 2 * PAGE
    assert not one.suspicious
    looked(one, model_input(900 * MS, *wrong))
    assert one.found.drift == 2 * PAGE, "the model has taken over what was seen"
    assert one.found.resyncs == 0


def test_a_difference_that_passes_was_none() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    looked(one, model_input(500 * MS, rows((0, 3, RW))))
    assert one.suspicious
    looked(one, model_input(700 * MS, rows((0, 4, RW))))
    assert not one.suspicious
    assert one.found.drift == 0
    assert one.model.mappings.map.recording is None


def test_a_difference_that_events_fell_on_is_suspected_anew() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    looked(one, model_input(500 * MS, rows((0, 3, RW))))
    one.feed(batch(munmap(650 * MS, BASE + 3 * PAGE, 1), mmap(651 * MS, BASE + 3 * PAGE, 1)), 680 * MS)
    looked(one, model_input(700 * MS, rows((0, 3, RW))))
    assert one.found.drift == 0
    assert one.suspicious
    looked(one, model_input(800 * MS, rows((0, 3, RW))))
    assert one.found.drift == 0
    looked(one, model_input(900 * MS, rows((0, 3, RW))))
    assert one.found.drift == PAGE


def differing(one: Reconciler, *looks: Sequence[Row]) -> Reconciler:
    """Let the reconciler have looks from 500 ms on, one every 100 ms."""
    for number, seen in enumerate(looks):
        looked(one, model_input((500 + number * 100) * MS, seen))
    return one


def test_a_difference_that_grows_is_proven_in_parts() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    differing(one, rows((0, 3, RW)), rows((0, 2, RW)), rows((0, 2, RW)))
    assert one.found.drift == PAGE
    assert one.suspicious
    looked(one, model_input(900 * MS, rows((0, 2, RW))))
    assert (one.found.drift, one.suspicious) == (2 * PAGE, False)


def test_what_a_call_does_that_ends_long_after_the_looks_is_no_drift() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 8, RW))))
    differing(one, *[rows((0, 2, RW), (6, 2, RW))] * 3)
    assert one.found.drift == 4 * PAGE
    one.feed(batch(munmap(1500 * MS, BASE + 3 * PAGE, 3, entered=499 * MS)), 2000 * MS)
    assert one.found.drift == PAGE, "the page before is not explained"
    one.feed(batch(mprotect(2100 * MS, BASE + 2 * PAGE, 1, READ, entered=650 * MS)), 2200 * MS)
    assert one.found.drift == PAGE, "this call began after the first look had it"
    looked(one, model_input(2300 * MS, rows((0, 2, RW), (6, 2, RW))))
    assert (one.found.drift, one.suspicious) == (PAGE, False)


def test_a_long_mremap_explains_both_of_its_places() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    differing(one, *[rows((20, 8, RW))] * 3)
    assert one.found.drift == 12 * PAGE
    one.feed(batch(mremap(1500 * MS, BASE, 4, 8, BASE + 20 * PAGE, entered=499 * MS)), 2000 * MS)
    assert one.found.drift == 0


def test_a_call_that_failed_explains_nothing() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 1, RW))))
    differing(one, *[[]] * 3)
    one.feed(batch(munmap(1500 * MS, BASE, 1, entered=499 * MS, result=-22)), 2000 * MS)
    assert one.found.drift == PAGE


def test_a_call_with_impossible_arguments_explains_no_more_than_there_is() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 1, RW))))
    differing(one, *[[]] * 3)
    every = event(EventKind.MUNMAP, 1500 * MS, 0, (1 << 64) - 1, entered=1)
    one.feed(
        batch(every, event(EventKind.MREMAP, 1501 * MS, 1 << 63, 1 << 63, 1, entered=1, result=1 << 62)), 2000 * MS
    )
    assert one.found.drift == 0


def test_after_a_loss_the_model_takes_over_what_it_sees_and_counts_it() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW)), [(HEAP, HEAP + PAGE, READY)]))
    looked(one, model_input(500 * MS, rows((2, 2, RW)), [(HEAP, HEAP + PAGE, RESERVED)]), lost=7)
    assert (one.found.drift, one.found.after_loss, one.found.resyncs) == (3 * PAGE, 3 * PAGE, 1)
    assert one.suspicious, "a second look is to mend what the first could not"
    looked(one, model_input(600 * MS, rows((2, 2, RW)), [(HEAP, HEAP + PAGE, RESERVED)]), lost=7)
    assert not one.suspicious
    one.feed(batch(munmap(700 * MS, BASE + 2 * PAGE, 1)), 800 * MS, 7)
    looked(one, model_input(900 * MS, rows((3, 1, RW)), [(HEAP, HEAP + PAGE, RESERVED)]), lost=7)
    assert (one.found.drift, one.found.resyncs) == (3 * PAGE, 1)
    assert not one.suspicious


def test_a_lost_event_behind_one_that_fell_into_the_look_is_mended_by_the_next() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 1, RW))))
    # The unmapping of the page was seen; that it was mapped again was lost.
    looked(one, model_input(500 * MS, rows((0, 1, RW))), munmap(500 * MS + 10, BASE, 1), lost=1)
    assert one.model.mappings.map.at(BASE) == 0
    looked(one, model_input(600 * MS, rows((0, 1, RW))), lost=1)
    assert one.model.mappings.map.at(BASE) == RW
    assert (one.found.drift, one.found.after_loss, one.found.resyncs) == (PAGE, PAGE, 1)


def test_states_wait_for_an_exact_look_after_a_loss() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], [(HEAP, HEAP + PAGE, READY)]))
    looked(one, model_input(500 * MS, [], None), lost=1)
    assert (one.found.looks, one.found.exact_looks, one.found.resyncs) == (2, 1, 1)
    looked(one, model_input(900 * MS, [], [(HEAP, HEAP + PAGE, PREPARED)]), lost=1)
    assert one.found.after_loss == PAGE
    assert one.model.states.map.at(HEAP) == PREPARED


def test_states_are_not_compared_where_the_source_does_not_see_them() -> None:
    one = looked(reconciler(states=False), model_input(100 * MS, [], [(HEAP, HEAP + PAGE, READY)]))
    looked(one, model_input(500 * MS, [], [(HEAP, HEAP + PAGE, PREPARED)]))
    assert not one.suspicious
    assert (one.found.looks, one.found.exact_looks) == (2, 0)
    assert one.model.virtual().ready is None


def test_what_went_unseen_is_learned_from_the_next_look_and_is_no_drift() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], [(HEAP, HEAP + 4 * PAGE, RESERVED)]))
    one.look(model_input(495 * MS, [], [(HEAP, HEAP + 4 * PAGE, RESERVED)]))
    roles = event(EventKind.USED, 499 * MS, HEAP, PAGE), event(EventKind.MAP, 498 * MS, HEAP, PAGE)
    one.feed(batch(*roles, event(EventKind.STATES_UNSEEN, 500 * MS)), 600 * MS)
    assert not one.pending
    assert one.model.states.map.at(HEAP) == UNKNOWN_STATE, "that look is older"
    assert one.found.exact_looks == 1
    later = event(EventKind.UNUSED, 650 * MS, HEAP + PAGE, PAGE), event(EventKind.USED, 651 * MS, HEAP + 2 * PAGE, PAGE)
    one.feed(batch(*later), 690 * MS)
    ends = [HEAP + pages * PAGE for pages in (0, 1, 2, 4)]
    looked(one, model_input(700 * MS, [], list(zip(ends[:-1], ends[1:], (READY, PREPARED, READY), strict=True))))
    assert one.model.virtual().ready == 3 * PAGE
    assert (one.found.drift, one.suspicious, one.found.resyncs, one.found.exact_looks) == (0, False, 0, 2)
    assert not one.model.states.anomaly_counts
    looked(one, model_input(900 * MS, [], [(HEAP, HEAP + 4 * PAGE, READY)]))
    assert one.suspicious, "now it is known again"


def test_a_system_call_that_a_role_made_unseen_is_not_its() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], []))
    role, call = event(EventKind.RESERVE, 400 * MS, 0, 4 * PAGE), mmap(402 * MS, BASE, 4, prot=0, entered=401 * MS)
    one.feed(batch(role, call, event(EventKind.STATES_UNSEEN, 500 * MS)), 600 * MS)
    assert one.model.states.map.at(BASE) == UNKNOWN_STATE
    assert one.model.mappings.map.at(BASE) == MAPPED


def test_batches_that_come_one_after_the_other_are_joined_once_when_they_are_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied = []

    def counted(batches: Sequence[np.ndarray]) -> np.ndarray:
        copied.append(sum(map(len, batches)))
        return joined(batches)

    monkeypatch.setattr(held, "joined", counted)
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    for _ in range(2000):
        one.feed(batch(mprotect(300 * MS, BASE, 1, READ)), 300 * MS)
    one.flush()
    assert one.activity.events()["mprotect"].count == 2000
    assert sum(copied) <= 2 * 2000


def test_a_mark_of_any_time_is_survived() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], [(HEAP, HEAP + PAGE, READY)]))
    one.feed(batch(event(EventKind.STATES_UNSEEN, (1 << 64) - 1)), 200 * MS)
    looked(one, model_input(500 * MS, rows((0, 1, RW)), [(HEAP, HEAP + PAGE, READY)]))
    one.flush()
    assert (one.found.looks, one.found.exact_looks, one.found.drift) == (2, 1, 0)


def heap(states: Sequence[int]) -> list[Row]:
    """Return rows for pages of the heap, one state each."""
    return [(HEAP + page * PAGE, HEAP + (page + 1) * PAGE, state) for page, state in enumerate(states)]


def test_what_is_used_while_that_is_not_watched_for_is_learned_from_looks() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], heap([PREPARED] * 4)))
    one.feed(
        batch(event(EventKind.USED_PROBES_ON, 150 * MS, 5000), event(EventKind.USED_PROBES_OFF, 200 * MS, 1)), 300 * MS
    )
    looked(one, model_input(400 * MS, [], heap([READY, READY, PREPARED, PREPARED])))
    assert (one.found.drift, one.found.exact_looks, one.suspicious) == (0, 2, False)
    assert one.model.virtual().ready == 2 * PAGE
    # One that nobody saw being used is given back; later all of it is watched for again.
    one.feed(batch(event(EventKind.UNUSED, 450 * MS, HEAP + 2 * PAGE, PAGE)), 490 * MS)
    assert not one.model.states.anomaly_counts
    one.feed(batch(event(EventKind.USED_PROBES_ON, 500 * MS, 5000)), 600 * MS)
    looked(one, model_input(700 * MS, [], heap([READY, READY, PREPARED, READY])))
    assert (one.found.drift, one.suspicious) == (0, False)
    assert one.model.virtual().ready == 3 * PAGE
    assert one.used.watched(1000 * MS) == 550 * MS
    looked(one, model_input(900 * MS, [], heap([READY] * 4)))
    assert one.suspicious, "now it is known again"
    one.feed(batch(event(EventKind.UNUSED, 1000 * MS, HEAP + 2 * PAGE, PAGE)), 1100 * MS)
    assert one.model.states.anomaly_counts[EventKind.UNUSED] == 1


def test_what_was_used_before_that_was_watched_for_at_all_is_no_anomaly() -> None:
    one = reconciler()
    given_back = (
        event(EventKind.UNUSED, at * MS, HEAP, PAGE) for at in (50, 60)
    )  # in between, its probe was not yet on
    one.feed(batch(*given_back, event(EventKind.USED_PROBES_ON, 70 * MS, 5000)), 90 * MS)
    looked(one, model_input(100 * MS, [], heap([READY, PREPARED])))
    assert not one.model.states.anomaly_counts
    assert (one.found.drift, one.found.exact_looks, one.suspicious) == (0, 1, False)
    assert one.model.virtual().ready == PAGE
    one.feed(batch(*(event(EventKind.UNUSED, at * MS, HEAP, PAGE) for at in (200, 210))), 300 * MS)
    assert one.model.states.anomaly_counts[EventKind.UNUSED] == 1, "now it would have been seen"


def test_only_what_was_prepared_may_have_been_used_unseen() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], heap([READY, RESERVED])))
    one.feed(batch(event(EventKind.USED_PROBES_OFF, 200 * MS, 1)), 300 * MS)
    looked(one, model_input(400 * MS, [], heap([PREPARED, READY])))
    assert one.suspicious
    for at in (600, 800):
        looked(one, model_input(at * MS, [], heap([PREPARED, READY])))
    assert one.found.states == {(READY, PREPARED): PAGE, (RESERVED, READY): PAGE}


def test_what_an_event_touches_during_a_look_is_left_to_the_next() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], heap([PREPARED])))
    one.feed(
        batch(event(EventKind.USED_PROBES_OFF, 200 * MS, 1), event(EventKind.USED_PROBES_ON, 300 * MS, 5000)), 350 * MS
    )
    looked(one, model_input(400 * MS, [], heap([READY])), event(EventKind.UNUSED, 400 * MS + 500_000, HEAP, PAGE))
    assert one.model.states.map.at(HEAP) == PREPARED
    assert one.model.states.used_unseen
    looked(one, model_input(600 * MS, [], heap([PREPARED])))
    assert (one.found.drift, one.suspicious, one.model.states.used_unseen) == (0, False, False)


def test_what_is_used_unseen_right_after_an_event_is_learned_from_the_look_after_the_next() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], heap([READY])))
    one.feed(batch(event(EventKind.USED_PROBES_OFF, 314 * MS, 1)), 314 * MS)
    one.feed(batch(event(EventKind.UNUSED, 321 * MS, HEAP, PAGE)), 321 * MS)
    one.feed(batch(event(EventKind.USED_PROBES_ON, 325 * MS, 5000)), 325 * MS)
    for at in (341, 600):
        looked(one, model_input(at * MS, [], heap([READY])))
    assert one.model.states.map.at(HEAP) == READY
    assert (one.found.drift, one.suspicious, one.model.states.used_unseen) == (0, False, False)


def test_the_end_of_all_watching_hides_nothing() -> None:
    one = looked(reconciler(), model_input(100 * MS, [], heap([PREPARED])))
    one.feed(
        batch(event(EventKind.USED_PROBES_ON, 150 * MS, 5000), event(EventKind.USED_PROBES_OFF, 500 * MS, 0)), 600 * MS
    )
    looked(one, model_input(450 * MS, [], heap([READY])))
    assert one.suspicious
    assert one.used.stops == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [EventKind.USED, EventKind.UNUSED, EventKind.USED_PROBES_ON, EventKind.USED_PROBES_OFF, None]
            ),
            st.integers(0, 7),
            st.integers(1, 4),
        ),
        max_size=60,
    )
)
def test_no_order_of_watching_and_looking_makes_drift_of_what_was_used_unseen(
    steps: list[tuple[EventKind | None, int, int]],
) -> None:
    truth, watched = [PREPARED] * 12, True
    one, now = looked(reconciler(), model_input(100 * MS, [], heap(truth))), 300 * MS
    for kind, first, count in [*steps, (EventKind.USED_PROBES_ON, 0, 1), (None, 0, 1), (None, 0, 1)]:
        now += 7 * MS
        if kind is None:
            looked(one, model_input(now + SLACK, [], heap(truth)))
            now += 2 * SETTLED
        elif kind in (EventKind.USED, EventKind.UNUSED):
            becomes = READY if kind is EventKind.USED else PREPARED
            pages = range(first, first + count)
            if kind is EventKind.UNUSED and any(truth[page] != READY for page in pages):
                continue
            for page in pages:
                truth[page] = becomes
            if watched or kind is EventKind.UNUSED:
                one.feed(batch(event(kind, now, HEAP + first * PAGE, count * PAGE)), now)
        elif watched != (kind is EventKind.USED_PROBES_ON):
            watched = not watched
            one.feed(batch(event(kind, now, 5000 if watched else 1)), now)
    assert (one.found.drift, one.suspicious, one.model.states.used_unseen) == (0, False, False)
    assert not one.model.states.anomaly_counts
    assert [one.model.states.map.at(HEAP + page * PAGE) & 7 for page in range(12)] == truth


def test_a_stack_grows_without_an_event() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((4, 2, RW | GROWSDOWN_BIT))))
    looked(one, model_input(500 * MS, rows((2, 2, RW), (4, 2, RW | GROWSDOWN_BIT))))
    assert (one.found.stack_growth, one.found.drift, one.suspicious) == (2 * PAGE, 0, False)
    flags = PRIVATE | ANONYMOUS | GROWSDOWN
    one.feed(batch(mmap(700 * MS, BASE + 20 * PAGE, 1, flags=flags)), 800 * MS)
    seen = rows((2, 4, RW), (19, 2, RW))
    looked(one, model_input(900 * MS, seen))
    assert (one.found.stack_growth, one.found.drift, one.suspicious) == (3 * PAGE, 0, False)


def test_memory_above_a_stack_or_with_another_protection_is_no_growth_of_it() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((4, 2, RW | GROWSDOWN_BIT))))
    looked(one, model_input(500 * MS, rows((3, 1, MAPPED | READABLE), (4, 2, RW | GROWSDOWN_BIT), (6, 1, RW))))
    assert one.found.stack_growth == 0
    assert one.suspicious


def test_what_the_kernel_maps_for_probes_is_no_drift() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 1, RW))))
    looked(one, model_input(500 * MS, rows((0, 1, RW), (8, 1, UNKNOWN))))
    assert not one.suspicious
    looked(one, model_input(900 * MS, rows((0, 1, RW), (8, 1, UNKNOWN))))
    assert one.found.drift == 0


def test_calls_in_an_unknown_order_are_not_called_drift() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 1, RW))))
    calls = mprotect(305 * MS, BASE, 1, READ, entered=300 * MS), mprotect(306 * MS, BASE, 1, 0, entered=301 * MS, tid=2)
    one.feed(batch(*calls), 400 * MS)
    looked(one, model_input(500 * MS, rows((0, 1, MAPPED | READABLE))))
    assert (one.found.unsure, one.found.drift, one.suspicious) == (PAGE, 0, False)
    assert one.model.mappings.map.at(BASE) == MAPPED | READABLE


def test_the_break_is_known_from_the_look() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW)), heap_end=BASE + 4 * PAGE))
    one.feed(batch(*breaks(300 * MS, 6)), 400 * MS)
    looked(one, model_input(500 * MS, rows((0, 6, RW)), heap_end=BASE + 6 * PAGE))
    assert (one.found.drift, one.suspicious) == (0, False)


@pytest.mark.parametrize("later", [2, 10, 200])
def test_a_heap_that_begins_around_the_first_look_begins_where_the_break_was(later: int) -> None:
    began = BASE + 4 * PAGE
    first = model_input(100 * MS, rows((0, 4, RW)), heap_end=began)
    one = looked(reconciler(), first, *breaks((100 + later) * MS, 6, 9, 7))
    one.feed(no_events(), 400 * MS)
    assert one.model.virtual().total == 7 * PAGE
    for at in (500, 600, 700):
        looked(one, model_input(at * MS, rows((0, 7, RW)), heap_end=BASE + 7 * PAGE))
    assert (one.found.drift, one.suspicious, len(one.model.mappings.unsure)) == (0, False, 0)


@pytest.mark.parametrize("seen", [4, 6, 9, 7])
def test_a_heap_may_be_seen_at_any_moment_of_the_first_look(seen: int) -> None:
    look = model_input(100 * MS, rows((0, seen, RW)), heap_end=BASE + seen * PAGE)
    one = looked(reconciler(), look, *breaks(100 * MS, 6, 9, 7))
    one.feed(batch(*breaks(300 * MS, 5)), 400 * MS)
    for at in (500, 600, 700):
        looked(one, model_input(at * MS, rows((0, 5, RW)), heap_end=BASE + 5 * PAGE))
    assert (one.found.drift, one.suspicious) == (0, False)


def test_what_was_allocated_before_the_first_look_may_belong_to_the_runtime_only_in_the_second() -> None:
    mapped = [(HEAP, HEAP + 8 * PAGE, RW), (HEAP + 8 * PAGE, HEAP + 16 * PAGE, MAPPED)]
    one = looked(reconciler(), model_input(100 * MS, mapped))
    one.feed(batch(event(EventKind.MAP, 200 * MS, HEAP + 8 * PAGE, 8 * PAGE)), 300 * MS)
    states = [(HEAP, HEAP + PAGE, READY), (HEAP + 8 * PAGE, HEAP + 16 * PAGE, PREPARED)]
    looked(one, model_input(400 * MS, mapped, states))
    assert (one.found.drift, one.suspicious, list(one.model.states.anomalies)) == (0, False, [])
    assert [one.model.states.map.at(HEAP + page * PAGE) & STATE_MASK for page in (0, 1, 8)] == [READY, NONE, PREPARED]
    states[0] = HEAP, HEAP + 3 * PAGE, READY
    for at in (500, 600, 700):
        looked(one, model_input(at * MS, mapped, states))
    assert one.found.states == {(NONE, READY): 2 * PAGE}, "by then it would have been noted long ago"


def test_what_changed_from_unknown_during_the_first_look_may_have_been_anything() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((8, 1, RW))), mmap(100 * MS + 10, BASE, 1))
    assert not one.suspicious
    assert one.model.mappings.map.at(BASE) == RW
    assert one.model.mappings.map.at(BASE + 8 * PAGE) == RW


def test_a_protection_that_changed_right_after_the_first_look_is_not_taken_from_it() -> None:
    none = MAPPED
    one = looked(reconciler(), model_input(100 * MS, rows((0, 8, none))), mprotect(102 * MS, BASE, 2, READ))
    assert one.model.mappings.map.at(BASE) == UNKNOWN
    assert one.model.mappings.map.at(BASE + 2 * PAGE) == none
    for at in (500, 600, 700):
        looked(one, model_input(at * MS, rows((0, 2, MAPPED | READABLE), (2, 6, none))))
    assert (one.found.drift, one.suspicious) == (0, False)
    assert one.model.mappings.map.at(BASE) == MAPPED | READABLE


def test_a_look_that_comes_while_another_waits_takes_its_place() -> None:
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    one.look(model_input(500 * MS, []))
    looked(one, model_input(510 * MS, rows((0, 4, RW))))
    assert (one.found.looks, one.suspicious) == (2, False)


def test_suspicions_are_dropped_when_too_much_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gomem.tracer.model.reconcile.pending_drift._MOST_RECORDED", 10)
    one = looked(reconciler(), model_input(100 * MS, rows((0, 4, RW))))
    looked(one, model_input(500 * MS, rows((0, 3, RW))))
    calls = [mprotect(600 * MS + at, BASE, 1, at % 8) for at in range(20)]
    one.feed(batch(*calls), 650 * MS)
    assert not one.suspicious
    assert one.model.mappings.map.recording is None


def test_flushing_takes_all_that_is_held() -> None:
    one = reconciler()
    one.feed(batch(mmap(100 * MS, BASE, 1)), 100 * MS)
    assert one.activity.events() == {}
    one.look(model_input(101 * MS, rows((0, 1, RW))))
    one.flush()
    assert one.activity.events()["mmap"].count == 1
    assert (one.found.looks, one.suspicious) == (1, False)


NAMES = st.sampled_from(["mmap", "munmap", "mprotect"])
CALLS = st.lists(st.tuples(NAMES, st.integers(0, 15), st.integers(1, 4), st.integers(0, 7)), min_size=1, max_size=60)


@settings(max_examples=150)
@given(CALLS, st.integers(0, 2**32), st.integers(1, 7))
def test_events_that_come_late_from_other_cpus_lead_to_the_same(
    calls: list[tuple[str, int, int, int]], seed: int, size: int
) -> None:
    events = []
    for at, (name, first, count, prot) in enumerate(calls, start=1):
        time, address = 100 * MS + at * MS, BASE + first * PAGE
        if name == "mmap":
            events.append(mmap(time, address, count, prot, PRIVATE | ANONYMOUS | 0x10))
        elif name == "munmap":
            events.append(munmap(time, address, count))
        else:
            events.append(mprotect(time, address, count, prot))
    expected = AddressSpaceModel.empty()
    expected.apply(batch(*events))
    # Every event comes at its time, or up to half of HOLD later.
    order = random.Random(seed)
    arrivals = sorted((int(one["time"]) + order.randrange(HOLD // 2), at) for at, one in enumerate(events))
    one = reconciler()
    for start in range(0, len(arrivals), size):
        some = arrivals[start : start + size]
        # What arrives later than these happened not long before: so much is sure of what was fed.
        one.feed(batch(*(events[at] for _, at in some)), some[-1][0] - HOLD // 2)
    one.flush()
    assert one.model.mappings.map.pieces() == expected.mappings.map.pieces()
    assert sum(row.count + row.failed for row in one.activity.events().values()) == len(events)
