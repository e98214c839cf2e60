"""glibc's arenas and their lists as bytes, sound ones and those that no allocator would write."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.errors import SnapshotError
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.machine.room import Room
from gomem.tracer.native import glibc_layout as glibc
from gomem.tracer.native.glibc_heap import find_main_arena, read_heap
from gomem.tracer.native.glibc_layout import STATES, StateLayout
from gomem.tracer.process.memory import Bytes
from gomem.tracer.report import CHeap

PAGE, KB, MB = 4096, 1 << 10, 1 << 20
DATA = 0x7F00_0000_0000
MAIN = DATA + 0xC80
BRK = 0x5555_0000_0000
SECOND = 0x7F11_0000_0000  # a heap of another arena
SYSTEM = 1 * MB
TOP = 64 * KB


class Image:
    """Memory of some pages, each word 0 until it is set; with one arena of which nothing is free but the top."""

    def __init__(self, layout: StateLayout = STATES[0]) -> None:
        self.layout = layout
        self.room = Room(1 << 30)
        self.words: dict[int, int] = {}
        self.mapped = [(DATA, DATA + 2 * PAGE), (BRK, BRK + SYSTEM)]
        self.swapped: list[tuple[int, int]] = []
        self.arena(MAIN, MAIN, BRK + SYSTEM - TOP)

    def arena(self, at: int, following: int, top: int) -> None:
        for bin in range(glibc.BINS):
            header = self.header(at, bin)
            self.words[header + 16] = self.words[header + 24] = header
        behind = at + self.layout.bins
        self.words |= {behind + glibc.NEXT: following, behind + glibc.ATTACHED: 1, behind + glibc.SYSTEM: SYSTEM}
        self.words |= {at + self.layout.top: top, top + 8: TOP | 1}

    def header(self, at: int, bin: int) -> int:
        return at + self.layout.bins + bin * 16 - 16

    def free(self, bin: int, *chunks: tuple[int, int], at: int = MAIN) -> None:
        """Put chunks (address, size) into a bin."""
        header = self.header(at, bin)
        row = [header, *(chunk for chunk, _ in chunks), header]
        for before, chunk in pairwise(row):
            self.words[before + 24] = chunk
            self.words[chunk + 16] = before
        self.words |= {chunk + 8: size | 1 for chunk, size in chunks}

    def read(self, address: int, size: int) -> bytes:
        if not any(low <= address and address + size <= high for low, high in self.mapped):
            raise SnapshotError("nothing is mapped there")
        words = [self.words.get(at, 0) for at in range(address, address + size, 8)]
        return np.array(words, np.uint64).tobytes()

    def read_into(self, address: int, buffer: Bytes) -> None:
        buffer[:] = np.frombuffer(self.read(address, buffer.nbytes), np.uint8)

    def heap(self) -> tuple[CHeap, str]:
        place = find_main_arena(_ranges([(DATA, DATA + 2 * PAGE)]), self)
        assert place is not None
        assert place.main == MAIN
        return read_heap(place, (BRK, BRK + SYSTEM), self.residency(), self)

    def residency(self) -> Residency:
        ranges = sorted(
            [*((low, high, 1) for low, high in self.mapped), *((low, high, 0) for low, high in self.swapped)]
        )
        start, end, here = (np.array(column, np.uint64) for column in zip(*ranges, strict=True))
        size, flags = end - start, np.full(len(start), Page.PRESENT, np.uint8)
        return Residency(Ranges(start, end), flags, size * here, size * (1 - here), "pagemap", True)


def _ranges(pairs: list[tuple[int, int]]) -> Ranges:
    return Ranges(*np.array(pairs, np.uint64).reshape(-1, 2).T)


@pytest.mark.parametrize("layout", STATES, ids=[layout.releases for layout in STATES])
def test_free_chunks_and_the_top_are_free_and_the_rest_is_in_use(layout: StateLayout) -> None:
    image = Image(layout)
    image.free(0, (BRK + 0x10000, 0x3000), (BRK + 0x20FF0, 96 * KB))
    image.free(40, (BRK + 0x100, 0x2A0))
    heap, why = image.heap()
    assert why == ""
    assert heap.exact
    assert heap.free == TOP + 0x3000 + 96 * KB + 0x2A0
    assert (heap.system, heap.in_use) == (SYSTEM, SYSTEM - heap.free)
    assert heap.arenas is not None
    assert heap.arenas[0].free_chunks == 4
    # Whole pages behind the chunk's header: two of 0x3000, 22 of 96 KB from 0x20ff0 on, and 15 of the top.
    assert heap.free_resident == (2 + 22 + 15) * PAGE


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("base", [BRK, 0x1_2300_0000 - 0x1_2300_0000 % PAGE])
def test_fast_bins_are_read_masked_or_not(masked: bool, base: int) -> None:
    image = Image()
    image.mapped.append((base, base + SYSTEM)) if base != BRK else None
    chunks = [base + 0x400 + 0x40 * at for at in range(3)]
    image.words[MAIN + image.layout.fast + 8] = chunks[0]
    for chunk, following in zip(chunks, [*chunks[1:], 0], strict=True):
        image.words |= {chunk + 8: 0x31, chunk + 16: following ^ ((chunk + 16) >> 12 if masked else 0)}
    heap, why = image.heap()
    assert (why, heap.free) == ("", TOP + 3 * 0x30)


def test_arenas_of_the_ring_are_those_whose_heaps_name_them() -> None:
    image = Image()
    image.mapped.append((SECOND, SECOND + SYSTEM))
    image.words[SECOND] = SECOND + 0x30
    image.words[MAIN + image.layout.bins + glibc.NEXT] = SECOND + 0x30
    image.arena(SECOND + 0x30, MAIN, SECOND + SYSTEM - TOP)
    heap, why = image.heap()
    assert why == ""
    assert [(arena.main, arena.system, arena.free) for arena in heap.arenas or []] == [
        (True, SYSTEM, TOP), (False, SYSTEM, TOP)
    ]  # fmt: skip
    # Only of the main arena is the top given back.
    assert [arena.trimmable > 0 for arena in heap.arenas or []] == [True, False]
    image.words[SECOND] = MAIN
    assert find_main_arena(_ranges([(DATA, DATA + 2 * PAGE)]), image) is None


def circle(image: Image) -> None:
    image.words[BRK + 0x10000 + 24] = BRK + 0x10000
    image.words[BRK + 0x10000 + 16] = BRK + 0x10000


def swapped_out(image: Image) -> None:
    image.mapped[1] = (BRK, BRK + 0x10000)
    image.swapped = [(BRK + 0x10000, BRK + SYSTEM)]


HOSTILE: dict[str, Callable[[Image], object]] = {
    "a list that never ends": circle,
    "a chunk that does not point back": lambda image: image.words.update({BRK + 0x10000 + 16: BRK}),
    "a chunk larger than all": lambda image: image.words.update({BRK + 0x10008: 1 << 40}),
    "a chunk of no size": lambda image: image.words.update({BRK + 0x10008: 1}),
    "a pointer to nowhere": lambda image: image.words.update({image.header(MAIN, 3) + 24: 0xDEAD_0000}),
    "a pointer into the middle": lambda image: image.words.update({image.header(MAIN, 3) + 24: BRK + 0x10001}),
    "chunks that are more than there is": lambda image: image.words.update({BRK + 0x10008: SYSTEM | 1}),
    "a top that is none": lambda image: image.words.update({MAIN + image.layout.top: 1 << 63}),
    "a fast bin in a circle": lambda image: image.words.update(
        {MAIN + image.layout.fast: BRK, BRK + 8: 0x21, BRK + 16: BRK}),
    "memory in swap": swapped_out,
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_allocator_writes_makes_a_figure_that_says_it_is_not_all(what: str) -> None:
    image = Image()
    image.free(3, (BRK + 0x10000, 0x3000))
    HOSTILE[what](image)
    heap, why = image.heap()
    assert why
    assert not heap.exact
    assert heap.arenas is not None
    assert not heap.arenas[0].complete
    assert heap.free is not None
    assert 0 <= heap.free <= SYSTEM


def test_more_chunks_than_are_counted_in_one_look_are_said_to_be_so() -> None:
    image = Image()
    image.mapped[1] = (BRK, BRK + 64 * MB)
    image.words[MAIN + image.layout.bins + glibc.SYSTEM] = 64 * MB
    image.free(3, *((BRK + 0x100 + 0x200 * at, 0x40) for at in range(100_000)))
    heap, why = image.heap()
    assert "more free chunks than" in why
    assert 0x40 * 10_000 < (heap.free or 0) < 0x40 * 100_000
