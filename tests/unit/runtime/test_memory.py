from __future__ import annotations

import ctypes
import mmap
import os
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gomem.tracer.errors import SnapshotError, TargetGone
from gomem.tracer.process import memory as memory_module
from gomem.tracer.process.memory import LARGEST_READ, PIECE, READ_BUDGET, READ_FLOOR, ProcessMemory, read_words
from tests.support.image import Image

WORDS = np.arange(100_000, dtype=np.uint64)


@pytest.fixture
def own() -> Iterator[ProcessMemory]:
    with ProcessMemory(os.getpid()) as memory:
        yield memory


def test_bytes_come_as_they_are(own: ProcessMemory) -> None:
    assert own.read(WORDS.ctypes.data + 8, 16) == WORDS[1:3].tobytes()
    assert (read_words(own, WORDS.ctypes.data, len(WORDS)) == WORDS).all()
    assert own.read(WORDS.ctypes.data, 0) == b""
    assert own.bytes_read == 16 + WORDS.nbytes


@pytest.mark.parametrize("count", [0, 1, PIECE // 8 - 1, PIECE // 8, PIECE // 8 + 1, 2 * PIECE // 8 + 3])
def test_words_read_in_pieces_are_those_read_at_once(count: int) -> None:
    image = Image()
    image.reserve(0x10000, count * 8)
    for at in range(0, count, 100_000):
        image.words(0x10000 + at * 8, at + 1)
    expected = np.zeros(count, np.uint64)
    expected[::100_000] = np.arange(1, count + 1, 100_000)
    assert (read_words(image, 0x10000, count) == expected).all()


def test_what_is_claimed_and_not_there_takes_no_memory() -> None:
    image = Image()
    image.reserve(0x10000, 4096)
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError):
            read_words(image, 0x10000, 1 << 40)
        assert tracemalloc.get_traced_memory()[1] < 2 * PIECE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("address", "size"),
    [(0, 8), (-8, 8), (1 << 63, 8), (1 << 64, 8), (4096, -1), (4096, LARGEST_READ + 1), (4096, 1 << 70)],
)
def test_what_cannot_be_an_address_or_a_size_is_refused(own: ProcessMemory, address: int, size: int) -> None:
    with pytest.raises(SnapshotError, match="refused"):
        own.read(address, size)


@pytest.mark.parametrize("address", [8, 1 << 48, (1 << 63) - 4096, 0x00007FFFFFFFF000])
def test_addresses_without_memory_are_snapshot_errors(own: ProcessMemory, address: int) -> None:
    with pytest.raises(SnapshotError, match="no memory"):
        own.read(address, 8)


def test_a_read_that_runs_into_a_hole_is_refused(own: ProcessMemory) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    page = mmap.PAGESIZE
    writable, anonymous = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, ctypes.c_size_t(3 * page), writable, anonymous, -1, ctypes.c_long(0))
    assert libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), mmap.PROT_READ) == 0
    try:
        assert own.read(address, 2 * page) == bytes(2 * page)
        assert libc.munmap(ctypes.c_void_p(address + page), ctypes.c_size_t(page)) == 0
        with pytest.raises(SnapshotError, match=f"{address + page:#x}"):
            own.read(address, 3 * page)
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(page))
        libc.munmap(ctypes.c_void_p(address + 2 * page), ctypes.c_size_t(page))


def test_one_snapshot_reads_no_more_than_a_few_times_what_the_process_holds(
    own: ProcessMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "READ_FLOOR", 1 << 20)
    monkeypatch.setattr(memory_module, "READS_OF_RESIDENT", 0)
    own.start_budget()
    address, size = WORDS.ctypes.data, WORDS.nbytes
    own.read(address, size)
    with pytest.raises(SnapshotError, match="more than it can have written"):
        own.read(address, size)
    own.start_budget()
    assert len(own.read(address, size)) == size


def test_the_budget_grows_with_the_process_up_to_a_bound(own: ProcessMemory) -> None:
    own.start_budget()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    assert READ_FLOOR + resident < own._budget <= READ_BUDGET


def test_memory_of_a_process_that_has_ended_is_gone() -> None:
    child = os.fork()
    if not child:
        signal.pause()
    memory = ProcessMemory(child)
    assert (read_words(memory, WORDS.ctypes.data, 3) == WORDS[:3]).all()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with pytest.raises(TargetGone):
        memory.read(WORDS.ctypes.data, 8)
    memory.start_budget()
    memory.close()
    memory.close()
    with pytest.raises(TargetGone):
        ProcessMemory(child)
