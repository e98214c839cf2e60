from __future__ import annotations

import errno

import numpy as np

from gomem.tracer.events.record import EventKind
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.last_failures import MOST, MOST_GROUPS
from tests.support.samples.events import ANONYMOUS, PRIVATE, batch, event, mmap

SECOND = 1_000_000_000


def name(address: int) -> str | None:
    return "main.load" if address >> 12 == 0x500 else None


def refused(at: int, size: int, error: int = errno.ENOMEM, caller: int = 0) -> np.void:
    return event(EventKind.MMAP, at, 0, size, 3, PRIVATE | ANONYMOUS, result=-error, caller=caller)


def test_the_last_calls_in_vain_are_kept_with_errno_size_and_caller() -> None:
    activity = Activity(name)
    activity.feed(batch(mmap(SECOND, 0x10000, 4), refused(2 * SECOND, 64 << 20, caller=0x500100)))
    activity.feed(batch(event(EventKind.BRK, 3 * SECOND - SECOND // 2, 0x900000, result=0x800000)))
    first, second = activity.failures.before(3 * SECOND)
    assert (first.seconds, first.call, first.error, first.bytes) == (1.0, "mmap", "ENOMEM", 64 << 20)
    assert (first.function, first.callers) == ("main.load", ["main.load"])
    assert (second.seconds, second.call, second.error, second.bytes) == (0.5, "brk", "ENOMEM", None)


def test_what_succeeds_or_asks_for_no_memory_is_not_among_them() -> None:
    activity = Activity(name)
    activity.feed(
        batch(
            mmap(1, 0x10000, 4),
            event(EventKind.MADVISE, 2, 0x10000, 4096, 14, result=-errno.EINVAL),
            event(EventKind.MUNMAP, 3, 1, 4096, result=-errno.EINVAL),
            event(EventKind.BRK, 4, 0, result=0x800000),
            event(EventKind.BRK, 5, 0x801000, result=0x801000),
        )
    )
    assert activity.failures.before(10) == []


def test_all_that_fail_are_summed_by_call_errno_and_caller() -> None:
    activity = Activity(name)
    activity.feed(batch(mmap(1, 0x10000, 4), *(refused(at * SECOND, at << 20, caller=0x500100) for at in (1, 2, 3))))
    activity.feed(batch(
        event(EventKind.MADVISE, 4 * SECOND, 0x10000, 8192, 25, result=-errno.EINVAL),
        event(EventKind.BRK, 5 * SECOND, 0x900000, result=0x800000),
        refused(6 * SECOND, 1 << 20, errno.EAGAIN),
        refused(7 * SECOND, 5 << 20, caller=0x500200),
    ))  # fmt: skip
    first, *rest = activity.failures.groups(10 * SECOND)
    assert (first.call, first.error, first.count) == ("mmap", "ENOMEM", 4)
    assert (first.bytes, first.largest) == (11 << 20, 5 << 20)
    assert (first.function, first.callers, first.last) == ("main.load", ["main.load"], 3.0)
    assert {(one.call, one.error, one.count, one.bytes, one.function) for one in rest} == {
        ("madvise", "EINVAL", 1, 8192, None), ("brk", "ENOMEM", 1, None, None), ("mmap", "EAGAIN", 1, 1 << 20, None),
    }  # fmt: skip


def test_callers_beyond_a_bound_are_summed_without_their_names() -> None:
    activity = Activity(lambda address: f"f{address}")
    activity.feed(batch(*(refused(at, 4096, caller=at << 12) for at in range(1, 1000))))
    groups = activity.failures.groups(1000)
    assert len(groups) == MOST_GROUPS + 1
    assert sum(one.count for one in groups) == 999
    assert groups[0].function is None


def test_however_many_fail_only_the_last_are_kept() -> None:
    activity = Activity(name)
    for start in (1, 101):
        activity.feed(batch(*(refused(start + at, 4096 * (at + 1), errno.EAGAIN) for at in range(100))))
    kept = activity.failures.before(300)
    assert [call.bytes for call in kept] == [4096 * (at + 1) for at in range(100 - MOST, 100)]
    assert {call.error for call in kept} == {"EAGAIN"}
