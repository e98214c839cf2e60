"""Whether calls can be of one address space."""

from __future__ import annotations

from gomem.tracer.events.record import EventKind
from gomem.tracer.model.one_process import OneProcess
from tests.support.recordings import Row, events

ANONYMOUS, FIXED = 0x22, 0x10
A = 0x7F0000000000


def mmap(millisecond: int, at: int, size: int = 4096, flags: int = ANONYMOUS) -> Row:
    return millisecond, EventKind.MMAP, (0, size, 3, flags, 0, 0), at


def munmap(millisecond: int, at: int, size: int = 4096) -> Row:
    return millisecond, EventKind.MUNMAP, (at, size), 0


def contradictions(*rows: Row) -> int:
    one = OneProcess(4096)
    one.feed(events(*rows))
    return len(one.contradictions)


def test_a_mapping_where_one_is_already_is_a_contradiction() -> None:
    assert contradictions(mmap(1, A, 8192), mmap(2, A + 4096)) == 1
    assert contradictions(mmap(1, A, 4096), mmap(2, A + 4096)) == 0
    assert contradictions(mmap(1, A, 5000), mmap(2, A + 4096)) == 1, "the kernel rounds up to pages"


def test_what_may_lie_there_is_none() -> None:
    assert contradictions(mmap(1, A), munmap(2, A), mmap(3, A)) == 0
    assert contradictions(mmap(1, A), mmap(2, A, flags=ANONYMOUS | FIXED)) == 0
    assert contradictions(mmap(1, A), (2, EventKind.EXEC, (), 0), mmap(3, A)) == 0
    assert contradictions(mmap(1, A), (2, EventKind.MREMAP, (A, 4096, 8192, 1), A + (1 << 20)), mmap(3, A)) == 0
    assert contradictions((1, EventKind.MMAP, (0, 4096, 3, ANONYMOUS), -12), mmap(2, A)) == 0


def test_an_munmap_under_way_explains_it() -> None:
    one = OneProcess(4096)
    one.feed(events(mmap(1, A), mmap(5, A)))
    late = events(munmap(6, A))
    one.feed(late)
    assert len(one.contradictions) == 1, "it began after the mapping"
    late["entered"] -= 3_000_000
    one.feed(late)
    assert one.contradictions == []
