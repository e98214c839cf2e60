from __future__ import annotations

import errno

import numpy as np

from gomem.tracer.events.record import EventKind
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.last_failures import MOST
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


def test_however_many_fail_only_the_last_are_kept() -> None:
    activity = Activity(name)
    for start in (1, 101):
        activity.feed(batch(*(refused(start + at, 4096 * (at + 1), errno.EAGAIN) for at in range(100))))
    kept = activity.failures.before(300)
    assert [call.bytes for call in kept] == [4096 * (at + 1) for at in range(100 - MOST, 100)]
    assert {call.error for call in kept} == {"EAGAIN"}
