from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from gomem.tracer.addresses.ranges import Ranges, normalise
from gomem.tracer.errors import SnapshotError
from gomem.tracer.machine.room import Room
from gomem.tracer.native.thread_stacks import Stack, stack_of_block, thread_stacks
from gomem.tracer.process.memory import Bytes

PAGE = 4096
BASE = 0x7F00_0000_0000


class Image:
    """Memory of some pages; only what is resident may be read."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.resident: list[tuple[int, int]] = []
        self.read_bytes = 0
        self.room = Room(1 << 30)

    def read(self, address: int, size: int) -> bytes:
        pages = range(address // PAGE * PAGE, address + size, PAGE)
        if not all(any(low <= page < high for low, high in self.resident) for page in pages):
            raise SnapshotError("a page that is not in RAM was read")
        self.read_bytes += size
        words = [self.words.get(at, 0) for at in range(address, address + size, 8)]
        return np.array(words, np.uint64).tobytes()

    def read_into(self, address: int, buffer: Bytes) -> None:
        buffer[:] = np.frombuffer(self.read(address, buffer.nbytes), np.uint8)

    def block(self, at: int, stack: int, size: int, more: Mapping[int, int] | None = None) -> None:
        """Put a control block as glibc 2.36 has it, with other words at offsets of `more`."""
        fields = {0: at, 0x10: at, 0x690: stack, 0x698: size, 0x6A0: PAGE, **(more or {})}
        self.words.update({at + offset: word for offset, word in fields.items()})

    def stacks(self, mappings: list[Stack], none: list[Stack], *pointers: int) -> list[Stack]:
        resident = Ranges(*np.array(self.resident, np.uint64).reshape(-1, 2).T)
        left, guards = (normalise([low for low, _ in some], [high for _, high in some]) for some in (mappings, none))
        return thread_stacks(left, guards, resident, pointers, self)


SIZE = 256 << 10
TOP = BASE + SIZE
BLOCK = TOP - 0x940


def one_stack() -> Image:
    image = Image()
    image.block(BLOCK, BASE, SIZE)
    image.resident = [(TOP - 2 * PAGE, TOP)]
    return image


def test_a_block_at_the_top_of_a_mapping_above_a_guard_makes_it_a_stack() -> None:
    assert one_stack().stacks([(BASE + PAGE, TOP)], [(BASE, BASE + PAGE)]) == [(BASE, TOP)]


def test_a_stack_pointer_alone_makes_no_stack() -> None:
    image = Image()
    image.resident = [(BASE, BASE + 64 * SIZE)]
    assert image.stacks([(BASE, BASE + 64 * SIZE)], [], BASE + SIZE - 64) == []
    assert image.read_bytes <= 5 << 20


def test_a_stack_is_found_in_a_larger_mapping_from_its_guard_or_its_stack_pointer() -> None:
    image = one_stack()
    image.resident = [(TOP - 2 * PAGE, TOP + 20 * PAGE)]
    larger = [(BASE + PAGE, TOP + 64 * PAGE)]
    assert image.stacks(larger, [(BASE, BASE + PAGE)]) == [(BASE, TOP)]
    below = [(BASE - 64 * PAGE, TOP + 64 * PAGE)]
    assert image.stacks(below, []) == []
    assert image.stacks(below, [], TOP - PAGE) == [(BASE, TOP)]
    assert image.stacks(below, [], TOP + PAGE) == []


def test_a_block_whose_pages_are_not_in_ram_is_not_read() -> None:
    image = one_stack()
    image.resident = []
    assert image.stacks([(BASE + PAGE, TOP)], [(BASE, BASE + PAGE)], TOP - PAGE) == []


def test_a_block_may_reach_over_two_resident_ranges_that_touch() -> None:
    image = Image()
    image.block(TOP - PAGE - 0x100, BASE, SIZE)
    image.resident = [(TOP - 2 * PAGE, TOP - PAGE), (TOP - PAGE, TOP)]
    assert image.stacks([(BASE + PAGE, TOP)], [(BASE, BASE + PAGE)]) == [(BASE, TOP)]


@pytest.mark.parametrize(
    ("stack", "size"),
    [
        (BASE - PAGE, SIZE),  # begins outside of what it could be
        (BASE, SIZE + PAGE),  # ends above the mapping
        (BASE, SIZE // 2),  # ends below the block
        (BASE + 8, SIZE - 8),  # no pages
        (BLOCK + 0x100, PAGE),  # begins above the block, and is too small
        (BASE, 1 << 63),
        (BASE, 2**64 - PAGE),
    ],
)
def test_words_that_describe_no_range_around_the_block_prove_nothing(stack: int, size: int) -> None:
    image = Image()
    image.block(BLOCK, stack, size)
    image.resident = [(TOP - 2 * PAGE, TOP)]
    assert image.stacks([(BASE + PAGE, TOP)], [(BASE, BASE + PAGE)], TOP - PAGE) == []


def test_a_neighbours_address_beside_a_thread_id_is_no_size() -> None:
    """In glibc's block the list of stacks stands right before the thread's id."""
    words = np.zeros(0x940 // 8, np.uint64)
    words[[0, 2]] = BLOCK
    words[[0x2C8 // 8, 0x2D0 // 8]] = BLOCK - 0x10000 - 0x640, 0x3FFFFF
    assert stack_of_block(words, BLOCK, BASE - 64 * SIZE, TOP + 64 * SIZE) is None
    words[[0x690 // 8, 0x698 // 8]] = BASE, SIZE
    assert stack_of_block(words, BLOCK, BASE - 64 * SIZE, TOP + 64 * SIZE) == (BASE, TOP)


def test_stacks_without_guards_are_cut_out_of_their_mapping_one_by_one() -> None:
    image = Image()
    for number in range(3):
        image.block(TOP - 0x940 + number * SIZE, BASE + number * SIZE, SIZE)
        image.resident.append((TOP - PAGE + number * SIZE, TOP + number * SIZE))
    whole = [(BASE, BASE + 3 * SIZE)]
    expected = [(BASE + number * SIZE, TOP + number * SIZE) for number in range(3)]
    assert image.stacks(whole, [], BASE + 3 * SIZE - PAGE) == expected
