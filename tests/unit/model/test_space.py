"""The model as a whole: from a look or from nothing, in batches of any size."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.tracer.addresses.region_states import READY
from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.mappings import MAPPED, READABLE, WRITABLE
from gomem.tracer.model.model_input import Cover, ModelInput
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.model.states import STATE_MASK
from gomem.tracer.report import Virtual
from tests.support.samples.events import PAGE, batch, churn, event, mmap, munmap

BASE = 0x7F00_0000_0000
RW = MAPPED | READABLE | WRITABLE


MS = 1_000_000


def reconciler(look: ModelInput, events: EventBatch, now: int) -> Reconciler:
    """Return one that had a look, and knows all events until then."""
    activity = Activity(lambda address: None)
    one = Reconciler(activity, AddressSpaceModel(callers=activity.callers), follows_states=True)
    one.look(look)
    one.feed(events, now)
    assert not one.pending
    return one


def seen(at: int, ready: bool = True) -> ModelInput:
    """Return a look that found 8 pages mapped, the first 4 of them Ready."""
    mappings = Cover(np.array([BASE], np.uint64), np.array([BASE + 8 * PAGE], np.uint64), np.array([RW]))
    states = Cover(np.array([BASE], np.uint64), np.array([BASE + 4 * PAGE], np.uint64), np.array([READY]))
    return ModelInput(at, at, at + 100, mappings, None, states if ready else None, arenas=((BASE, 4 * PAGE),))


def test_a_look_shows_what_had_happened_before() -> None:
    one = reconciler(seen(1000 * MS), no_events(), 1200 * MS)
    assert one.model.virtual() == Virtual(8 * PAGE, 0, 0, 4 * PAGE, 4 * PAGE)
    end = BASE + 4 * PAGE
    before = batch(munmap(900 * MS, end + 4 * PAGE, 8), event(EventKind.FREE, 950 * MS, end, 4 * PAGE))
    one = reconciler(seen(1000 * MS), before, 1200 * MS)
    model = one.model
    assert model.virtual() == Virtual(8 * PAGE, 0, 0, 4 * PAGE, 4 * PAGE)
    one.feed(batch(munmap(1300 * MS, BASE + 6 * PAGE, 2), event(EventKind.UNUSED, 1400 * MS, BASE, PAGE)), 2000 * MS)
    assert model.virtual() == Virtual(6 * PAGE, 0, PAGE, 3 * PAGE, 2 * PAGE)
    assert model.time == 1400 * MS
    assert [(arena.base, arena.scavenged) for arena in model.arenas()] == [(BASE, PAGE)]


def test_without_the_runtimes_states_a_look_gives_the_mappings() -> None:
    model = reconciler(seen(1000 * MS, ready=False), no_events(), 1200 * MS).model
    assert model.virtual() == Virtual(8 * PAGE, None, None, None, None)


def test_what_fell_into_the_look_may_be_applied_again() -> None:
    meanwhile = batch(mmap(1000 * MS + 10, BASE, 8), munmap(1000 * MS + 20, BASE + 8 * PAGE, 4))
    model = reconciler(seen(1000 * MS), meanwhile, 1200 * MS).model
    assert model.virtual().total == 8 * PAGE


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 50))
def test_the_size_of_the_batches_makes_no_difference(seed: int, size: int) -> None:
    events = churn(120, np.random.default_rng(seed), slots=20)
    whole, pieces = AddressSpaceModel.empty(), AddressSpaceModel.empty()
    whole.apply(events)
    for start in range(0, len(events), size):
        pieces.apply(events[start : start + size])
    assert whole.mappings.map.pieces() == pieces.mappings.map.pieces()
    assert states(whole) == states(pieces)
    assert whole.virtual() == pieces.virtual()


def states(model: AddressSpaceModel) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, _, value in model.states.map.pieces():
        if not found or found[-1][1] != value & STATE_MASK:
            found.append((start, value & STATE_MASK))
    return found


def test_tens_of_thousands_of_pieces_keep_their_values() -> None:
    events = churn(60_000, np.random.default_rng(1))
    model = AddressSpaceModel.empty(lambda address: f"runtime.f{address:x}")
    for start in range(0, len(events), 10_000):
        model.apply(events[start : start + 10_000])
    assert len(model.mappings.map) > 10_000
    assert len(model.states.map) > 10_000
    assert sum(end - start for start, end, value in model.mappings.map.pieces() if value & MAPPED) == mapped(events)


def mapped(events: EventBatch) -> int:
    """Return how many bytes are mapped in the end, from a bitmap of the pages."""
    first = BASE // PAGE
    pages = np.zeros(20_001 * 16, np.bool_)
    for kind, address, size in zip(events["kind"], events["args"][:, 0], events["args"][:, 1], strict=True):
        if kind in (EventKind.MMAP, EventKind.MUNMAP):
            low = int(address) // PAGE - first
            pages[low : low + int(size) // PAGE] = kind == EventKind.MMAP
    return int(pages.sum()) * PAGE
