"""What is empty is told by samples of what is in huge pages, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.errors import SnapshotError
from gomem.tracer.kernel.residency import Method, Page, Residency
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import OS_PAGE, Bytes
from gomem.tracer.runtime.large_spans import LargeSpan
from gomem.tracer.snapshot.emptiness import HUGE_PAGE, SAMPLES, with_zeros

START, SIZE = 0xC000000000, 64 * HUGE_PAGE
SPAN = LargeSpan(START, SIZE, True)


class Object:
    """Memory of which one OS page in so many is written; it notes what was read."""

    def __init__(self, every: int, gone: bool = False) -> None:
        self.room = Room(1 << 20)
        self.asked: list[int] = []
        self._every, self._gone = every, gone

    def read(self, address: int, size: int) -> bytes:
        self.asked.append(address)
        if self._gone:
            raise SnapshotError("freed")
        written = self._every and (address - START) // OS_PAGE % self._every == 0
        return bytes([0] * (size - 1) + [1 if written else 0])

    def read_into(self, address: int, buffer: Bytes) -> None:
        raise NotImplementedError


def residency(huge_bytes: int, method: Method = "pagemap_scan", flags: int = Page.HUGE) -> Residency:
    edges = np.array([START, START + huge_bytes, START + SIZE], np.uint64)
    ranges = Ranges(edges[:-1], edges[1:])
    bits = np.array([Page.PRESENT | flags, Page.PRESENT], np.uint8)
    return Residency(ranges, bits, ranges.sizes(), np.zeros(2, np.uint64), method, True)


@pytest.mark.parametrize(("every", "least", "most"), [(1, 0, 0), (0, 64, 64), (512, 58, 64), (2, 16, 48)])
def test_the_share_of_zeros_is_about_what_it_is(every: int, least: int, most: int) -> None:
    (found,) = with_zeros([SPAN], residency(32 * HUGE_PAGE), Object(every))
    assert found.sampled == SAMPLES
    assert least <= found.zeros <= most


def test_only_huge_pages_are_looked_at_each_part_of_them_alike() -> None:
    memory = Object(1)
    with_zeros([SPAN], residency(32 * HUGE_PAGE), memory)
    pieces = [(address - START) * SAMPLES // (32 * HUGE_PAGE) for address in memory.asked]
    assert pieces == list(range(SAMPLES))
    assert all(address % OS_PAGE == 0 for address in memory.asked)


@pytest.mark.parametrize("seen", [
    residency(4 * HUGE_PAGE), residency(32 * HUGE_PAGE, "pagemap"), residency(32 * HUGE_PAGE, flags=0),
    residency(32 * HUGE_PAGE, flags=Page.HUGE | Page.FILE),
])  # fmt: skip
def test_without_huge_pages_nothing_is_read(seen: Residency) -> None:
    memory = Object(1)
    assert with_zeros([SPAN], seen, memory) == [SPAN]
    assert memory.asked == []


def test_what_was_freed_meanwhile_is_no_sample() -> None:
    assert with_zeros([SPAN], residency(32 * HUGE_PAGE), Object(1, gone=True)) == [SPAN]
