"""The mappings of the model, against a dictionary with one entry for each page, and the kernel's rules case by case."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.mappings import FILE, MAPPED, READABLE, UNKNOWN, WRITABLE
from gomem.tracer.model.mappings import SHARED as SHARED_BIT
from gomem.tracer.model.space import AddressSpaceModel
from tests.support.samples.events import (
    ANONYMOUS,
    EXEC,
    FIXED,
    GROWSDOWN,
    NOREPLACE,
    PAGE,
    PRIVATE,
    READ,
    SHARED,
    WRITE,
    batch,
    event,
    mmap,
    mprotect,
    mremap,
    munmap,
)

BASE = 0x7F00_0000_0000
PAGES = 24
RW = MAPPED | READABLE | WRITABLE
ENOMEM, EACCES = -12, -13


def model_of(*batches: EventBatch) -> AddressSpaceModel:
    model = AddressSpaceModel.empty()
    model.mappings.reset([], None)
    for one in batches:
        model.apply(one)
    return model


def pages(model: AddressSpaceModel, count: int = PAGES, base: int = BASE) -> list[int]:
    return [model.mappings.map.at(base + page * PAGE) for page in range(count)]


class Naive:
    """The rules again, page by page."""

    def __init__(self) -> None:
        self.page: dict[int, tuple[int, bool, bool]] = {}  # number: prot, shared, file

    def mmap(self, at: int, count: int, prot: int, shared: bool, file: bool) -> None:
        for page in range(at, at + count):
            self.page[page] = (prot, shared, file or shared)

    def munmap(self, at: int, count: int) -> None:
        for page in range(at, at + count):
            self.page.pop(page, None)

    def mprotect(self, at: int, count: int, prot: int) -> bool:
        """Return whether all was mapped; the kernel stops at the first hole."""
        for page in range(at, at + count):
            if page not in self.page:
                return False
            self.page[page] = (prot, *self.page[page][1:])
        return True

    def mremap(self, at: int, count: int, to: int, new: int, keep: bool) -> None:
        moved = [self.page.get(page) for page in range(at, at + count)]
        moved += [moved[-1]] * max(new - count, 0)
        if not keep:
            self.munmap(at, count)
        for page, value in zip(range(to, to + new), moved, strict=False):
            if value is not None:
                self.page[page] = value

    def value(self, page: int) -> int:
        if page not in self.page:
            return 0
        prot, shared, file = self.page[page]
        return MAPPED | prot << 1 | SHARED_BIT * shared | FILE * file


PLACE = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 8)).map(lambda one: (one[0], min(one[1], PAGES - one[0])))
PROT = st.integers(0, 7)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("mmap"), PLACE, PROT, st.booleans(), st.booleans()),
        st.tuples(st.just("munmap"), PLACE),
        st.tuples(st.just("mprotect"), PLACE, PROT),
        st.tuples(st.just("mremap"), PLACE, PLACE, st.booleans()),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(CALLS, st.integers(1, 5))
def test_calls_lead_to_what_they_lead_to_page_by_page(calls: list[tuple[object, ...]], size: int) -> None:
    naive, events = Naive(), []
    for at, call in enumerate(calls, start=1):
        match call:
            case "mmap", (int(first), int(count)), int(prot), bool(shared), bool(file):
                naive.mmap(first, count, prot, shared, file)
                kind = (SHARED if shared else PRIVATE) | FIXED | (0 if file else ANONYMOUS)
                events.append(mmap(2 * at, BASE + first * PAGE, count, prot, kind))
            case "munmap", (int(first), int(count)):
                naive.munmap(first, count)
                events.append(munmap(2 * at, BASE + first * PAGE, count))
            case "mprotect", (int(first), int(count)), int(prot):
                done = naive.mprotect(first, count, prot)
                events.append(mprotect(2 * at, BASE + first * PAGE, count, prot, result=0 if done else ENOMEM))
            case "mremap", (int(first), int(count)), (int(to), int(new)), bool(keep):
                disjoint = to + new <= first or first + count <= to
                whole = all(page in naive.page for page in range(first, first + count))
                if disjoint and whole and len({naive.page[page] for page in range(first, first + count)}) == 1:
                    new = count if keep else new
                    if to + new > PAGES or (to < first + count and first < to + new):
                        continue
                    naive.mremap(first, count, to, new, keep)
                    flags = 3 | (4 if keep else 0)
                    events.append(mremap(2 * at, BASE + first * PAGE, count, new, BASE + to * PAGE, flags))
    whole_batch = batch(*events)
    model = model_of(*(whole_batch[start : start + size] for start in range(0, len(whole_batch), size)))
    assert pages(model) == [naive.value(page) for page in range(PAGES)]
    assert model.mappings.unordered == 0


def test_sizes_are_rounded_up_to_os_pages() -> None:
    model = model_of(batch(event(EventKind.MMAP, 2, 0, 1, READ | WRITE, PRIVATE | ANONYMOUS, -1, result=BASE)))
    assert pages(model, 2) == [RW, 0]
    model.apply(batch(event(EventKind.MUNMAP, 4, BASE, 1)))
    assert pages(model, 2) == [0, 0]


def test_huge_pages_are_rounded_to_their_own_size() -> None:
    flags = PRIVATE | ANONYMOUS | 0x40000
    model = model_of(batch(event(EventKind.MMAP, 2, 0, 1, READ, flags, -1, result=BASE)))
    assert model.mappings.map.piece_at(BASE) == (BASE, BASE + (2 << 20), MAPPED | READABLE | FILE)
    model = model_of(batch(event(EventKind.MMAP, 2, 0, 1, READ, flags | 30 << 26, -1, result=BASE)))
    assert model.mappings.map.piece_at(BASE)[1] == BASE + (1 << 30)


def test_shared_anonymous_memory_is_a_file_of_the_kernels() -> None:
    model = model_of(batch(mmap(2, BASE, 1, READ, SHARED | ANONYMOUS)))
    assert pages(model, 1) == [MAPPED | READABLE | SHARED_BIT | FILE]


@pytest.mark.parametrize(
    "call",
    [
        event(EventKind.MMAP, 9, BASE, PAGE, READ, PRIVATE | ANONYMOUS, -1, result=ENOMEM),
        event(EventKind.MMAP, 9, BASE, PAGE, READ, PRIVATE | ANONYMOUS | FIXED | NOREPLACE, -1, result=-17),
        event(EventKind.MMAP, 9, BASE, PAGE, READ, PRIVATE | ANONYMOUS, -1, result=-11),
        munmap(9, BASE, 2, result=ENOMEM),
        munmap(9, BASE + 1, 2, result=-22),
        mprotect(9, BASE, 2, 0, result=ENOMEM),
        mremap(9, BASE, 2, 8, ENOMEM),
        event(EventKind.MADVISE, 9, BASE, PAGE, 4, result=-11),
    ],
)  # fmt: skip
def test_a_call_that_fails_changes_nothing(call: object) -> None:
    model = model_of(batch(mmap(2, BASE, 2)))
    model.apply(batch(call))  # type: ignore[arg-type]
    assert pages(model, 3) == [RW, RW, 0]


def test_a_protection_that_meets_a_hole_is_done_up_to_there() -> None:
    calls = mmap(2, BASE, 1), mmap(4, BASE + 2 * PAGE, 1), mprotect(6, BASE, 3, READ, result=ENOMEM)
    assert pages(model_of(batch(*calls)), 3) == [MAPPED | READABLE, 0, RW]


@pytest.mark.parametrize(
    ("call", "doubtful"),
    [
        (mprotect(9, BASE, 2, WRITE, result=EACCES), (BASE, BASE + 2 * PAGE)),
        (mremap(9, BASE, 4, 1, -22, 5), (BASE + PAGE, BASE + 4 * PAGE)),
        (event(EventKind.MREMAP, 9, BASE, 9, 9, 3, BASE + 8 * PAGE, result=ENOMEM), (BASE + 8 * PAGE, BASE + 9 * PAGE)),
        (event(EventKind.MMAP, 9, BASE, PAGE, READ, PRIVATE | FIXED, 3, result=-19), (BASE, BASE + PAGE)),
    ],
)  # fmt: skip
def test_what_a_call_that_failed_may_have_done_is_doubtful(call: object, doubtful: tuple[int, int]) -> None:
    model = model_of(batch(mmap(2, BASE, 4)), batch(call))  # type: ignore[arg-type]
    assert doubtful in model.mappings.unsure
    assert pages(model, 4) == [RW] * 4


def test_doubtful_ranges_are_bounded() -> None:
    model = AddressSpaceModel.empty()
    for at in range(5000):
        model.apply(batch(mprotect(2 * at + 2, BASE + 2 * at * PAGE, 1, 0, result=EACCES)))
    assert len(model.mappings.unsure) <= 1024
    low, high = min(model.mappings.unsure)[0], max(end for _, end in model.mappings.unsure)
    assert (low, high) == (BASE, BASE + (2 * 4999 + 1) * PAGE)


def test_growing_and_shrinking_in_place() -> None:
    model = model_of(batch(mmap(2, BASE, 2, READ), mremap(4, BASE, 2, 4, BASE)))
    assert pages(model, 5) == [MAPPED | READABLE] * 4 + [0]
    model.apply(batch(mremap(6, BASE, 4, 1, BASE)))
    assert pages(model, 3) == [MAPPED | READABLE, 0, 0]


def test_remapping_no_bytes_copies_a_shared_mapping() -> None:
    model = model_of(batch(mmap(2, BASE, 2, READ, SHARED | ANONYMOUS), mremap(4, BASE, 0, 2, BASE + 4 * PAGE)))
    value = MAPPED | READABLE | SHARED_BIT | FILE
    assert pages(model, 7) == [value, value, 0, 0, value, value, 0]


def test_several_mappings_are_moved_with_the_gaps_between_them() -> None:
    calls = mmap(2, BASE, 1), mmap(4, BASE + 2 * PAGE, 1, READ), mremap(6, BASE, 3, 3, BASE + 8 * PAGE, 3)
    assert pages(model_of(batch(*calls)), 12) == [0] * 8 + [RW, 0, MAPPED | READABLE, 0]


def test_the_break_moves_up_and_down_by_os_pages() -> None:
    heap = 0x5555_0000_0000
    model = model_of(
        batch(event(EventKind.BRK, 2, 0, result=heap), event(EventKind.BRK, 4, heap + 5000, result=heap + 5000))
    )
    assert pages(model, 4, heap) == [RW, RW, 0, 0]
    model.apply(batch(event(EventKind.BRK, 6, heap + 1, result=heap + 1)))
    assert pages(model, 4, heap) == [RW, 0, 0, 0]
    model.apply(batch(event(EventKind.BRK, 8, 1 << 60, result=heap + 1)))
    assert pages(model, 4, heap) == [RW, 0, 0, 0]


def test_a_first_break_leaves_open_where_the_heap_began() -> None:
    heap = 0x5555_0000_0000
    model = model_of(batch(mmap(2, heap - 8 * PAGE, 1)), batch(event(EventKind.BRK, 4, heap, result=heap)))
    assert pages(model, 8, heap - 8 * PAGE) == [RW] + [UNKNOWN] * 7
    assert model.mappings.map.at(heap) == 0


def test_an_exec_leaves_nothing_known() -> None:
    model = model_of(batch(mmap(2, BASE, 1), event(EventKind.EXEC, 3), mmap(5, BASE + PAGE, 1)))
    assert pages(model, 3) == [UNKNOWN, RW, UNKNOWN]


def test_what_is_not_known_stays_so_until_it_is_mapped_or_unmapped() -> None:
    model = AddressSpaceModel.empty()
    model.apply(batch(mprotect(2, BASE, 1, READ), munmap(4, BASE + PAGE, 1), mremap(6, BASE, 1, 1, BASE + 3 * PAGE)))
    assert pages(model, 4) == [0, 0, UNKNOWN, UNKNOWN]


HOSTILE = st.builds(
    event,
    st.sampled_from(
        [EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.MPROTECT, EventKind.BRK, EventKind.MADVISE]
    ),
    st.just(5), *[st.integers(0, 2**64 - 1)] * 5, result=st.integers(-(2**63), 2**63 - 1),
)  # fmt: skip


@given(st.lists(HOSTILE, max_size=8))
def test_arguments_of_any_kind_are_survived(events: list[object]) -> None:
    model = AddressSpaceModel.empty()
    model.apply(batch(*events))  # type: ignore[arg-type]
    assert model.virtual().total >= 0


# Two calls that overlap in time. The kernel carried them out in the order of the list, the events come by their ends.
A, B = BASE, BASE + 8 * PAGE
RACES = {
    "an mmap gets what another thread's munmap frees": (
        [munmap(90, A, 4, entered=10), mmap(50, A + PAGE, 1, READ, entered=20, tid=2)],
        [0, MAPPED | READABLE, 0, 0],
    ),
    "and protects it before the munmap returns": (
        [munmap(90, A, 4, entered=10), mmap(30, A, 1, READ, entered=20, tid=2),
         mprotect(50, A, 1, EXEC, entered=40, tid=2)],
        [MAPPED | EXEC << 1, 0, 0, 0],
    ),
    "an mmap gets what another thread's mremap leaves": (
        [mremap(90, A, 4, 4, B, entered=10), mmap(50, A, 2, READ, entered=20, tid=2)],
        [MAPPED | READABLE] * 2 + [0] * 6 + [RW] * 4,
    ),
    "two mmaps one after the other, with a munmap between them": (
        [munmap(90, A, 4, entered=10), mmap(30, A, 4, READ, entered=20, tid=2), munmap(80, A, 4, entered=40, tid=2),
         mmap(70, A + PAGE, 1, READ, entered=50, tid=3)],
        [0, MAPPED | READABLE, 0, 0],
    ),
    "an mremap moves where another thread's munmap is freeing": (
        [mmap(4, B, 1, READ), munmap(90, A, 4, entered=10), mremap(50, B, 1, 2, A, entered=20, tid=2)],
        [MAPPED | READABLE] * 2 + [0, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RACES)
def test_calls_that_overlap_in_time_are_put_in_the_only_order_possible(name: str) -> None:
    calls, expected = RACES[name]
    by_end = sorted(calls, key=lambda call: int(call["time"]))
    model = model_of(batch(mmap(2, A, 4)), *(batch(call) for call in by_end))
    assert pages(model, len(expected)) == expected
    assert model.mappings.unordered == 0


@pytest.mark.parametrize(
    "pair",
    [
        (mprotect(50, A, 4, READ, entered=10), mprotect(60, A, 2, EXEC, entered=20, tid=2)),
        (mmap(50, A, 4, READ, FIXED | PRIVATE | ANONYMOUS, entered=10), munmap(60, A, 1, entered=20, tid=2)),
    ],
)  # fmt: skip
def test_calls_whose_order_nobody_knows_are_counted(pair: tuple[object, object]) -> None:
    model = model_of(batch(mmap(2, A, 4)), batch(*pair))  # type: ignore[arg-type]
    assert model.mappings.unordered == 1
    assert len(model.mappings.unsure) == 1


@pytest.mark.parametrize(
    "pair",
    [
        (munmap(50, A, 4, entered=10), munmap(60, A, 2, entered=20, tid=2)),
        (mprotect(50, A, 1, READ, entered=10), mprotect(60, A + PAGE, 1, EXEC, entered=20, tid=2)),
        (mprotect(20, A, 4, READ, entered=10), mprotect(60, A, 4, EXEC, entered=20, tid=2)),
    ],
)  # fmt: skip
def test_calls_that_commute_or_do_not_overlap_are_not_counted(pair: tuple[object, object]) -> None:
    model = model_of(batch(mmap(2, A, 4)), batch(*pair))  # type: ignore[arg-type]
    assert model.mappings.unordered == 0


def test_a_stack_mapping_is_remembered_as_one() -> None:
    model = model_of(batch(mmap(2, BASE, 2, READ | WRITE, PRIVATE | ANONYMOUS | GROWSDOWN)))
    model.apply(batch(mprotect(4, BASE + PAGE, 1, READ | 0x01000000)))
    assert [value & READABLE | value & WRITABLE for value in pages(model, 2)] == [READABLE, READABLE]
