"""The course of the live heap, from looks and from collections."""

from __future__ import annotations

import random

from gomem.tracer.model.gc_cycles import GcCycle
from gomem.tracer.model.live_heap import LONGEST, MOST, LiveHeap
from gomem.tracer.report import LiveCourse, LiveThird

SECOND = 10**9
HOUR = 3600 * SECOND


def looked(*live: int | None, every: int = SECOND) -> LiveHeap:
    heap = LiveHeap()
    for number, size in enumerate(live):
        heap.note((1 + number) * every, size)
    return heap


def test_it_is_what_collections_marked_in_each_third_of_the_time() -> None:
    found = looked(None, 0, 5, 6, 7, 20, 21, 22, 40, 43, 41).course()
    assert found == LiveCourse(8.0, [LiveThird(3, 5, 6, 7), LiveThird(3, 20, 21, 22), LiveThird(3, 40, 41, 43)])


def test_many_looks_at_one_collection_are_one() -> None:
    assert looked(*[5] * 10, *[6] * 10, *[7] * 10).course() is None
    assert looked(5, 5, 6, 7, 7, 8, 9, 9, 10).course() is not None


def test_what_rests_is_not_known_to_grow() -> None:
    heap = looked(*range(1, 20))
    assert heap.course() is not None
    heap.reach(100 * SECOND)
    assert heap.course() is None


def test_collections_tell_of_themselves_what_no_look_saw() -> None:
    cycles = [GcCycle(ended=at * SECOND, heap_after=10 * at) for at in range(1, 10)]
    heap = LiveHeap()
    heap.note(int(5.5 * SECOND), 50)
    heap.reach(9 * SECOND)
    course = heap.course([GcCycle(started=1), *cycles, GcCycle(ended=9 * SECOND)])
    assert course is not None
    assert [third.cycles for third in course.thirds] == [3, 3, 3]
    assert [third.median for third in course.thirds] == [20, 50, 80]


def test_what_is_kept_is_bounded_and_of_the_last_hours() -> None:
    chance = random.Random(1)
    heap = LiveHeap()
    for number in range(20_000):
        heap.note(number * HOUR // 500, chance.randrange(1, 1 << 30))
        assert len(heap._times) == len(heap._live) <= MOST
    course = heap.course()
    assert course is not None
    assert 0.9 * LONGEST / 1e9 <= course.seconds <= LONGEST / 1e9
    assert min(third.cycles for third in course.thirds) > 20


def test_what_no_heap_can_be_is_not_taken() -> None:
    heap = looked(*range(1, 7), 1 << 57, 1 << 63, (1 << 64) - 1, *range(7, 13))
    course = heap.course()
    assert course is not None
    assert [third.highest for third in course.thirds] == [5, 7, 12]


def test_a_clock_that_stands_or_goes_back_adds_nothing() -> None:
    heap = looked(*range(1, 10))
    before = heap.course()
    heap.note(5 * SECOND, 100)
    heap.note(9 * SECOND, 101)
    assert heap.course() == before
