"""Region states, arenas and GC cycles, from the runtime's own functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.addresses.region_states import NONE, PREPARED, READY, RESERVED, UNKNOWN
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model import states as states_module
from gomem.tracer.model.gc_cycles import GcCycle, GcCycles
from gomem.tracer.model.space import AddressSpaceModel, ArenaState
from gomem.tracer.model.states import STATE_BITS, STATE_MASK
from tests.support.samples.events import ANONYMOUS, FIXED, PAGE, PRIVATE, READ, WRITE, batch, event, mmap, munmap

HEAP = 0xC0_0000_0000
ARENA = 64 << 20
MB = 1 << 20
NAMES = {1: "runtime.(*mheap).sysAlloc", 2: "runtime.(*mheap).grow", 3: "runtime.(*mheap).allocSpan",
         4: "runtime.persistentalloc1", 5: "runtime.sysMap"}  # fmt: skip


def symbolize(address: int) -> str | None:
    return NAMES.get((address + 1) // 0x1000)


def role(kind: EventKind, at: int, address: int, size: int, caller: int = 3, tid: int = 1) -> np.void:
    return event(kind, at, address, size, caller=caller * 0x1000, tid=tid)


def reserved(at: int, address: int, size: int, hint: int | None = None, result: int | None = None) -> list[np.void]:
    """Return a reservation and its mmap, which gets `address` or `result`."""
    asked = address if hint is None else hint
    return [
        role(EventKind.RESERVE, at, asked, size, caller=1),
        event(
            EventKind.MMAP,
            at + 2,
            asked,
            size,
            0,
            PRIVATE | ANONYMOUS,
            -1,
            result=address if result is None else result,
        ),
    ]


def mapped(at: int, address: int, size: int, result: int | None = None) -> list[np.void]:
    flags = PRIVATE | ANONYMOUS | FIXED
    got = address if result is None else result
    return [
        role(EventKind.MAP, at, address, size, caller=2),
        event(EventKind.MMAP, at + 2, address, size, READ | WRITE, flags, -1, result=got),
    ]


def model_of(*batches: EventBatch) -> AddressSpaceModel:
    model = AddressSpaceModel.empty(symbolize)
    model.mappings.reset([], None)
    model.states.reset([])
    for one in batches:
        model.apply(one)
    return model


def state(model: AddressSpaceModel, address: int) -> int:
    return model.states.map.at(address) & STATE_MASK


def owner(model: AddressSpaceModel, address: int) -> str | None:
    """Return the function that brought a byte into its state."""
    return model._callers.chains[model.states.map.at(address) >> STATE_BITS].function


def test_a_heap_grows_is_used_and_scavenged() -> None:
    model = model_of(batch(*reserved(10, HEAP, ARENA), *mapped(20, HEAP, 4 * MB)))
    assert [state(model, HEAP + at) for at in (0, 4 * MB - 1, 4 * MB, ARENA)] == [PREPARED, PREPARED, RESERVED, NONE]
    model.apply(batch(role(EventKind.USED, 30, HEAP, MB), role(EventKind.UNUSED, 40, HEAP, 8192)))
    assert [state(model, HEAP + at) for at in (0, 8192, MB)] == [PREPARED, READY, PREPARED]
    assert owner(model, HEAP + 8192) == "runtime.(*mheap).allocSpan"
    assert owner(model, HEAP + 8 * MB) == "runtime.(*mheap).sysAlloc"
    virtual = model.virtual()
    assert (virtual.total, virtual.reserved) == (ARENA, ARENA - 4 * MB)
    assert (virtual.ready, virtual.unmanaged) == (MB - 8192, 0)
    assert model.arenas() == [ArenaState(HEAP, ARENA, ARENA - 4 * MB, 3 * MB + 8192, MB - 8192)]
    assert not model.states.anomaly_counts


def test_a_reservation_is_where_the_kernel_put_it() -> None:
    model = model_of(batch(*reserved(10, HEAP + ARENA, ARENA, hint=HEAP)))
    assert (state(model, HEAP), state(model, HEAP + ARENA)) == (NONE, RESERVED)
    assert [arena.base for arena in model.arenas()] == [HEAP + ARENA]
    model.apply(batch(role(EventKind.FREE, 20, HEAP + ARENA, ARENA), munmap(22, HEAP + ARENA, ARENA // PAGE)))
    assert model.arenas() == []
    assert model.virtual().total == 0


def test_the_call_of_a_role_may_come_in_the_next_batch() -> None:
    one, other = reserved(10, HEAP, ARENA)
    model = model_of(batch(one))
    assert state(model, HEAP) == NONE
    model.apply(batch(other))
    assert state(model, HEAP) == RESERVED


@pytest.mark.parametrize("error", [-12, -11, -17])
def test_a_role_whose_call_failed_changed_nothing(error: int) -> None:
    model = model_of(batch(*reserved(10, HEAP, ARENA, result=error)))
    assert state(model, HEAP) == NONE
    model.apply(batch(*reserved(20, HEAP, ARENA), *mapped(30, HEAP, MB, result=error)))
    assert state(model, HEAP) == RESERVED
    assert model.mappings.map.at(HEAP) & 6 == 0
    assert not model.states.anomaly_counts


def test_regions_are_whole_os_pages() -> None:
    model = model_of(
        batch(
            role(EventKind.ALLOC, 10, 0, 5000, caller=4), event(EventKind.MMAP, 12, 0, 5000, 3, 0x22, -1, result=HEAP)
        )
    )
    assert [state(model, HEAP + at) for at in (0, 2 * PAGE - 1, 2 * PAGE)] == [READY, READY, NONE]


ILLEGAL = [
    (EventKind.MAP, [], ("None",)),
    (EventKind.USED, [], ("Reserved",)),
    (EventKind.UNUSED, [EventKind.MAP], ("Prepared",)),
    (EventKind.FAULT, [], ("Reserved",)),
    (EventKind.RESERVE, [EventKind.MAP, EventKind.USED], ("Ready",)),
]


@pytest.mark.parametrize(("kind", "before", "found"), ILLEGAL, ids=lambda one: getattr(one, "name", None))
def test_a_transition_that_the_runtime_forbids_is_kept_with_its_event(
    kind: EventKind, before: list[EventKind], found: tuple[str, ...]
) -> None:
    model = model_of(batch(*([] if kind is EventKind.MAP else reserved(10, HEAP, ARENA))))
    for at, one in enumerate(before):
        model.apply(batch(role(one, 20 + at, HEAP, MB)))
    if kind is EventKind.RESERVE:
        model.apply(batch(*reserved(30, HEAP, MB)))
    else:
        model.apply(batch(role(kind, 30, HEAP, MB)))
    (anomaly,) = model.states.anomalies
    assert (anomaly.kind, anomaly.low, anomaly.high, anomaly.found) == (kind, HEAP, HEAP + MB, found)
    assert model.states.anomaly_counts[kind] == 1
    assert model.owner_of(anomaly) == ("runtime.(*mheap).sysAlloc" if kind is EventKind.RESERVE else NAMES[3])


def test_anomalies_are_counted_beyond_those_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "MOST_ANOMALIES", 5)
    model = model_of(batch(*(role(EventKind.USED, 10 + at, HEAP + 2 * at * PAGE, PAGE) for at in range(50))))
    assert len(model.states.anomalies) == 5
    assert model.states.anomaly_counts[EventKind.USED] == 50


def test_used_ranges_may_be_ready_in_part() -> None:
    model = model_of(batch(*reserved(10, HEAP, ARENA), *mapped(20, HEAP, MB), role(EventKind.USED, 30, HEAP, PAGE)))
    model.apply(batch(role(EventKind.USED, 40, HEAP, MB)))
    assert model.states.map.piece_at(HEAP)[1] == HEAP + MB
    assert not model.states.anomaly_counts


def test_what_is_not_known_is_no_anomaly() -> None:
    model = AddressSpaceModel.empty(symbolize)
    assert model.virtual().ready is None
    model.apply(batch(role(EventKind.USED, 10, HEAP, MB), role(EventKind.UNUSED, 20, HEAP + MB, MB)))
    assert [state(model, HEAP + at) for at in (0, MB, 2 * MB)] == [READY, PREPARED, UNKNOWN]
    assert not model.states.anomaly_counts


STEPS = st.lists(
    st.tuples(
        st.sampled_from([EventKind.MAP, EventKind.USED, EventKind.UNUSED, EventKind.FAULT, EventKind.FREE]),
        st.integers(0, 15),
              st.integers(1, 8)), max_size=40,
)  # fmt: skip
TO = {
    EventKind.MAP: PREPARED,
    EventKind.USED: READY,
    EventKind.UNUSED: PREPARED,
    EventKind.FAULT: RESERVED,
    EventKind.FREE: NONE,
}
FROM = {
    EventKind.MAP: {RESERVED}, EventKind.USED: {PREPARED, READY}, EventKind.UNUSED: {READY},
    EventKind.FAULT: {READY, PREPARED},
    EventKind.FREE: {NONE, RESERVED, PREPARED, READY},
}  # fmt: skip


@given(STEPS, st.integers(1, 7))
def test_transitions_lead_to_what_they_lead_to_page_by_page(
    transitions: list[tuple[EventKind, int, int]], size: int
) -> None:
    plain, illegal = [RESERVED] * 24, 0
    events = reserved(10, HEAP, 24 * PAGE)
    for at, (kind, first, count) in enumerate(transitions):
        illegal += bool(set(plain[first : first + count]) - FROM[kind])
        plain[first : first + count] = [TO[kind]] * count
        events.append(role(kind, 20 + at, HEAP + first * PAGE, count * PAGE))
    together = batch(*events)
    model = model_of(*(together[start : start + size] for start in range(0, len(together), size)))
    assert [state(model, HEAP + page * PAGE) for page in range(24)] == plain
    assert model.states.anomaly_counts.total() == illegal
    arena = model.arenas()
    if set(plain) != {NONE}:
        sizes = [plain.count(one) * PAGE for one in (RESERVED, PREPARED, READY)]
        assert [arena[0].reserved, arena[0].scavenged, arena[0].ready] == sizes


@given(st.lists(st.tuples(st.integers(60, 80), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=10))
def test_roles_with_any_arguments_are_survived(roles: list[tuple[int, int, int]]) -> None:
    model = AddressSpaceModel.empty()
    for at, (kind, address, size) in enumerate(roles, start=1):
        row = event(EventKind.MAP, at, address, size)
        row["kind"] = kind
        model.apply(batch(row, mmap(at, address % 2**63, 1)))
    assert all(start < end for start, end, _ in model.states.map.pieces())


MS = 1_000_000


def cycles(*kinds_at: tuple[EventKind, int]) -> GcCycles:
    """Return the cycles of events, given as kinds and ms."""
    model = AddressSpaceModel.empty()
    model.apply(batch(*(event(kind, at * MS) for kind, at in kinds_at)))
    return model.cycles


def test_cycles_pair_their_starts_with_their_ends() -> None:
    kinds = [
        EventKind.GC_DONE,
        EventKind.GC_START,
        EventKind.GC_DONE,
        EventKind.GC_START,
        EventKind.GC_START,
        EventKind.GC_DONE,
        EventKind.GC_START,
    ]
    found = cycles(*((kind, at) for at, kind in enumerate(kinds, start=1)))
    assert found.cycles == [
        GcCycle(None, MS), GcCycle(2 * MS, 3 * MS), GcCycle(4 * MS, None), GcCycle(5 * MS, 6 * MS), GcCycle(7 * MS),
    ]  # fmt: skip
    assert found.ended == 3


def test_a_look_between_two_cycles_tells_what_the_one_left_and_the_next_finds() -> None:
    found = cycles((EventKind.GC_START, 100), (EventKind.GC_DONE, 110))
    found.look(200 * MS, 201 * MS, goal=100, allocated=70, marked=50)
    found.look(300 * MS, 301 * MS, goal=100, allocated=80, marked=50)
    found.start(400 * MS)
    assert found.cycles == [GcCycle(100 * MS, 110 * MS, heap_after=50), GcCycle(400 * MS, None, 100, 80)]


def test_a_look_that_is_learned_of_behind_later_events_goes_where_it_belongs() -> None:
    rows = (
        (EventKind.GC_START, 100),
        (EventKind.GC_DONE, 110),
        (EventKind.GC_START, 205),
        (EventKind.GC_DONE, 206),
        (EventKind.GC_START, 209),
    )
    found = cycles(*rows)
    found.look(200 * MS, 201 * MS, goal=100, allocated=70, marked=50)
    assert found.cycles == [
        GcCycle(100 * MS, 110 * MS, heap_after=50), GcCycle(205 * MS, 206 * MS, 100, 70), GcCycle(209 * MS),
    ]  # fmt: skip
    found.done(210 * MS)
    found.start(500 * MS)
    assert found.cycles[-1] == GcCycle(500 * MS)


def test_a_look_before_the_first_cycle_tells_what_that_finds() -> None:
    found = cycles((EventKind.GC_START, 205))
    found.look(200 * MS, 201 * MS, goal=100, allocated=70, marked=0)
    assert found.cycles == [GcCycle(205 * MS, None, 100, 70)]


@pytest.mark.parametrize("start", [100, 195, 200, 201])
def test_a_look_into_which_a_cycle_fell_tells_nothing(start: int) -> None:
    found = cycles((EventKind.GC_START, start), (EventKind.GC_DONE, start + 4), (EventKind.GC_START, 300))
    found.look((start + 1) * MS, 201 * MS, goal=100, allocated=70, marked=50)
    assert found.cycles == [GcCycle(start * MS, (start + 4) * MS), GcCycle(300 * MS)]


def test_right_after_the_end_of_a_cycle_a_look_may_still_see_what_the_one_before_marked() -> None:
    found = cycles((EventKind.GC_START, 100), (EventKind.GC_DONE, 110))
    found.look(111 * MS, 112 * MS, goal=100, allocated=70, marked=50)
    assert found.cycles == [GcCycle(100 * MS, 110 * MS)]
