"""Whatever is said of spans and calls, the parts of the pages in use sum to what is in RAM, and none is below 0."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.addresses.region_states import READY
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.profile.sites import Sites, attribute
from gomem.tracer.profile.slots import Sizes, Slots, slots_of
from gomem.tracer.report import KINDS
from gomem.tracer.runtime.pages import PAGE, PageState
from gomem.tracer.runtime.spans import IN_USE, MANUAL, Spans
from gomem.tracer.snapshot.join import AddressSpace

BASE, OS_PAGE = 0xC000000000, 4096
Row = tuple[int, int, int, int, int]  # first page, pages, slot size, slots, objects


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def spans(*rows: Row, state: int = IN_USE) -> Spans:
    first, pages, size, capacity, objects = np.array(rows, np.int64).reshape(-1, 5).T
    return Spans(
        address=np.arange(len(first), dtype=np.uint64),
        start=(BASE + first * PAGE).astype(np.uint64),
        pages=pages.astype(np.uint32),
        state=np.full(len(first), state, np.uint8),
        span_class=np.zeros(len(first), np.uint8),
        capacity=capacity.astype(np.uint32),
        objects=objects.astype(np.uint32),
        object_size=size.astype(np.uint64),
        unswept=np.zeros(len(first), np.bool_),
    )


def heap(states: list[PageState], in_ram: set[int]) -> tuple[AddressSpace, Residency]:
    """Return a heap of pages in these states, a piece for each; `in_ram`: which OS pages of it are."""
    start = np.array([BASE + at * OS_PAGE for at in sorted(in_ram)], np.uint64)
    size = np.full(len(start), OS_PAGE, np.uint64)
    flags = np.full(len(start), Page.PRESENT, np.uint8)
    residency = Residency(Ranges(start, start + size), flags, size, size - size, "pagemap_scan", exact=True)
    first = np.uint64(BASE) + np.arange(len(states), dtype=np.uint64) * np.uint64(PAGE)
    last = first + np.uint64(PAGE)
    none = np.zeros(len(states), np.int64)
    arena, page = none + KINDS.index("heap_arena"), np.array(states, np.uint8)
    resident = residency.rss_in(first, last)
    return AddressSpace(first, last, none, arena, none + READY, page, none, resident, resident - resident, 0), residency


def parts(slots: Slots) -> dict[str, tuple[int, int]]:
    """Return virtual and resident bytes by what they are."""
    named = {"objects": slots.objects, "free": slots.free, "tails": slots.tails, "no span": slots.no_span}
    return {name: sizes.total() for name, sizes in named.items()}


class TestSlots:
    def test_a_span_that_is_all_in_ram_is_told_to_the_byte(self) -> None:
        slots = slots_of(spans((0, 1, 48, 170, 100)), *heap([PageState.IN_USE], {0, 1}))
        free, tail = 70 * 48, PAGE - 170 * 48
        assert parts(slots) == {"objects": (4800, 4800), "free": (free, free), "tails": (tail, tail), "no span": (0, 0)}
        assert slots.slot_size.tolist() == [48]

    def test_of_a_span_that_is_partly_in_ram_each_has_its_share(self) -> None:
        slots = slots_of(spans((0, 1, 2048, 4, 1)), *heap([PageState.IN_USE], {0}))
        assert parts(slots) == {"objects": (2048, 1024), "free": (6144, 3072), "tails": (0, 0), "no span": (0, 0)}

    def test_a_large_object_has_all_of_its_span_that_is_in_ram(self) -> None:
        slots = slots_of(spans((0, 3, 3 * PAGE, 1, 1)), *heap([PageState.IN_USE] * 3, {1, 4, 5}))
        assert parts(slots)["objects"] == (3 * PAGE, 3 * OS_PAGE)

    def test_pages_in_use_that_no_span_is_in_are_told_apart(self) -> None:
        slots = slots_of(spans((0, 1, 8192, 1, 1)), *heap([PageState.IN_USE] * 2, {0, 1, 2}))
        assert parts(slots)["no span"] == (PAGE, OS_PAGE)

    def test_what_two_spans_claim_counts_once(self) -> None:
        slots = slots_of(spans((0, 2, 16384, 1, 1), (1, 2, 8192, 2, 2)), *heap([PageState.IN_USE] * 3, set(range(6))))
        assert parts(slots)["objects"] == (3 * PAGE, 3 * PAGE)

    def test_what_a_span_claims_of_pages_that_are_not_in_use_does_not_count(self) -> None:
        states = [PageState.IN_USE, PageState.FREE, PageState.IN_USE]
        slots = slots_of(spans((0, 3, 3 * PAGE, 1, 1)), *heap(states, set(range(6))))
        assert parts(slots)["objects"] == (2 * PAGE, 2 * PAGE)

    def test_spans_of_stacks_are_none_of_it(self) -> None:
        slots = slots_of(spans((0, 1, 0, 0, 0), state=MANUAL), *heap([PageState.STACK], {0}))
        assert parts(slots) == dict.fromkeys(("objects", "free", "tails", "no span"), (0, 0))


@st.composite
def span_rows(draw: st.DrawFn) -> Row:
    first, pages = draw(st.integers(0, 12)), draw(st.integers(0, 8))
    size = draw(st.integers(0, pages * PAGE))
    capacity = draw(st.integers(0, pages * PAGE // max(size, 1)))
    return first, pages, size, capacity, draw(st.integers(0, capacity))


@given(
    st.lists(span_rows(), max_size=6),
    st.lists(st.sampled_from(PageState), max_size=12),
    st.sets(st.integers(0, 23)),
)
def test_all_parts_sum_to_the_pages_in_use(rows: list[Row], states: list[PageState], in_ram: set[int]) -> None:
    space, residency = heap(states, in_ram & set(range(2 * len(states))))
    slots = slots_of(spans(*rows), space, residency)
    told = parts(slots)
    used = space.page == PageState.IN_USE
    assert sum(virtual for virtual, _ in told.values()) == int(space.size[used].sum())
    assert sum(resident for _, resident in told.values()) == int(space.resident[used].sum())
    for sizes in (slots.objects, slots.free, slots.tails, slots.no_span):
        assert np.all(sizes.resident >= 0)
        assert np.all(sizes.resident <= sizes.virtual)


class TestSites:
    def test_calls_get_what_they_are_said_to_have_as_far_as_it_is_in_ram(self) -> None:
        """Of 1000 bytes a half is in RAM: so it is of what each call has, and of what is of no call that is known."""
        found = attribute(ints(8), Sizes(ints(1000), ints(500)), Sites(ints(8, 8), ints(100, 300), ints(100, 300)))
        assert found.earlier.resident.tolist() == [50, 150]
        assert found.earlier.virtual.tolist() == [100, 300]
        assert found.rest.total() == (600, 300)

    def test_calls_never_get_more_than_there_is(self) -> None:
        found = attribute(ints(8), Sizes(ints(1000), ints(500)), Sites(ints(8, 8), ints(1000, 3000), ints(1000, 3000)))
        assert found.earlier.resident.tolist() == [125, 375]
        assert found.rest.total() == (0, 0)

    def test_a_call_has_no_part_in_slots_of_another_size(self) -> None:
        """A call whose objects nobody has touched has nothing in RAM, whatever it has of address space."""
        objects = Sizes(ints(1000, 1 << 30), ints(1000, 0))
        found = attribute(ints(8, 1 << 20), objects, Sites(ints(1 << 20, 8), ints(1 << 30, 400), ints(1 << 30, 400)))
        assert found.earlier.resident.tolist() == [0, 400]
        assert found.earlier.virtual.tolist() == [1 << 30, 400]

    def test_what_was_allocated_since_is_told_apart(self) -> None:
        sites = Sites(ints(8, 8), ints(100, 300), ints(150, 200))
        found = attribute(ints(8), Sizes(ints(1000), ints(1000)), sites)
        assert found.earlier.resident.tolist() == [100, 200]  # 100 of the second's were freed
        assert found.later.resident.tolist() == [50, 0]

    def test_without_any_object_there_is_nothing_to_have(self) -> None:
        found = attribute(ints(), Sizes(ints(), ints()), Sites(ints(8), ints(100), ints(100)))
        assert found.earlier.total() == found.later.total() == found.rest.total() == (0, 0)


values = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 100_000)


@given(
    st.dictionaries(st.integers(0, 6), st.tuples(st.integers(0, 1 << 44), st.integers(0, 1 << 40)), max_size=5),
    st.lists(st.tuples(st.integers(-1, 7), values, values), max_size=12),
)
def test_whatever_calls_are_said_to_have_all_sums_to_the_objects(
    objects: dict[int, tuple[int, int]], sites: list[tuple[int, int, int]]
) -> None:
    sizes = sorted(objects)
    resident = [min(objects[size]) for size in sizes]
    counted = Sizes(ints(*(objects[size][0] for size in sizes)), ints(*resident))
    found = attribute(
        ints(*sizes), counted, Sites(*(ints(*column) for column in np.array(sites, object).reshape(-1, 3).T))
    )
    for column in ("virtual", "resident"):
        each = [getattr(part, column) for part in (found.earlier, found.later, found.rest)]
        assert sum(int(part.sum()) for part in each) == int(getattr(counted, column).sum())
        assert all(np.all(part >= 0) for part in each)
