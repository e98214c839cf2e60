"""The model as a whole: from a look or from nothing, in batches of any size."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.model.events import PAGE, batch, churn, event, mmap, munmap
from tracer.events import EventBatch, Kind
from tracer.model.mappings import MAPPED, READABLE, WRITABLE
from tracer.model.sight import Cover, Sight
from tracer.model.space import AddressSpaceModel
from tracer.model.states import READY, STATE_MASK
from tracer.report import Virtual

BASE = 0x7F00_0000_0000
RW = MAPPED | READABLE | WRITABLE


def seen(at: int, ready: bool = True) -> Sight:
    """Return a look that found 8 pages mapped, the first 4 of them Ready."""
    mappings = Cover(np.array([BASE], np.uint64), np.array([BASE + 8 * PAGE], np.uint64), np.array([RW]))
    states = Cover(np.array([BASE], np.uint64), np.array([BASE + 4 * PAGE], np.uint64), np.array([READY]))
    return Sight(at, at, at + 100, mappings, None, states if ready else None, arenas=((BASE, 4 * PAGE),))


def test_a_model_of_a_look_passes_over_what_had_happened_before() -> None:
    model = AddressSpaceModel.from_look(seen(1000))
    assert model.virtual() == Virtual(8 * PAGE, 0, 0, 4 * PAGE, 4 * PAGE)
    model.apply(batch(munmap(900, BASE, 8), event(Kind.FREE, 950, BASE, 4 * PAGE)))
    assert model.virtual() == Virtual(8 * PAGE, 0, 0, 4 * PAGE, 4 * PAGE)
    model.apply(batch(munmap(1100, BASE + 6 * PAGE, 2), event(Kind.UNUSED, 1200, BASE, PAGE)))
    assert model.virtual() == Virtual(6 * PAGE, 0, PAGE, 3 * PAGE, 2 * PAGE)
    assert model.time == 1200
    assert [(arena.base, arena.scavenged) for arena in model.arenas()] == [(BASE, PAGE)]


def test_without_the_runtimes_states_a_look_gives_the_mappings() -> None:
    model = AddressSpaceModel.from_look(seen(1000, ready=False))
    assert model.virtual() == Virtual(8 * PAGE, None, None, None, None)


def test_what_fell_into_the_look_may_be_applied_again() -> None:
    model = AddressSpaceModel.from_look(seen(1000))
    model.apply(batch(mmap(1010, BASE, 8), munmap(1020, BASE + 8 * PAGE, 4)))
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
        if kind in (Kind.MMAP, Kind.MUNMAP):
            low = int(address) // PAGE - first
            pages[low : low + int(size) // PAGE] = kind == Kind.MMAP
    return int(pages.sum()) * PAGE
