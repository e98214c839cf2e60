"""The free chunks of one glibc arena, out of its lists, as mallinfo2 counts them.

The lists are in memory that the target writes: each pointer, size and back link is checked, and steps are counted. A
list that another thread changes meanwhile breaks a check or does not end where it began.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct, field

from gomem.tracer.errors import SnapshotError
from gomem.tracer.native.glibc_layout import (
    BEFORE_FD,
    BINS,
    CHUNK_ALIGNED,
    CHUNK_FD,
    CHUNK_FLAGS,
    LEAST_CHUNK,
    WORD,
    StateLayout,
)

MOVED = "its lists of free chunks changed while they were read"
# Unsorted chunks may be large, and large bins are sorted by size. What would take too long is the small ones.
_ORDER = (0, *range(BINS - 1, 0, -1))


class Chunks(Protocol):
    """Where chunks are read from."""

    def chunk(self, address: int) -> tuple[int, int, int]:
        """Return size (with its flags), fd and bk of a chunk. Raises SnapshotError if it may or can not be read."""


class FreeChunks(Struct):
    """Chunks of the bins by address and size, and those of fast bins in sum; `broken` says why it is not all."""

    chunks: list[tuple[int, int]] = field(default_factory=list)
    fast_chunks: int = 0
    fast_bytes: int = 0
    broken: str | None = None

    @property
    def bytes(self) -> int:
        """Return the size of all."""
        return self.fast_bytes + sum(size for _, size in self.chunks)


def free_chunks(state: bytes, at: int, layout: StateLayout, chunks: Chunks, most: int) -> FreeChunks:
    """Return the free chunks of the arena at `at`, whose struct is `state`; none has more than `most` bytes."""
    found = FreeChunks()
    try:
        for number in _ORDER:
            _bin(found, state, at, layout.bins + number * 2 * WORD, chunks, most)
        found.fast_chunks, found.fast_bytes = _fast_bins(state, layout, chunks)
    except SnapshotError as error:
        found.broken = error.what
    return found


def _bin(found: FreeChunks, state: bytes, at: int, offset: int, chunks: Chunks, most: int) -> None:
    """Go through one bin from its last chunk on, as glibc does, and see that each points back."""
    header = before = at + offset - BEFORE_FD
    chunk = _in(state, offset + WORD)
    while chunk != header:
        size, after, following = chunks.chunk(chunk)
        size &= ~CHUNK_FLAGS
        if after != before or not LEAST_CHUNK <= size <= most or size % CHUNK_ALIGNED:
            raise SnapshotError(MOVED)
        found.chunks.append((chunk, size))
        before, chunk = chunk, following


def _fast_bins(state: bytes, layout: StateLayout, chunks: Chunks) -> tuple[int, int]:
    """Return the number and the size of the chunks in fast bins.

    glibc 2.32 and later mask each `fd` by where it stands: that such a list leads anywhere tells that it is masked.
    """
    try:
        return _fast_chunks(state, layout, chunks, masked=True)
    except SnapshotError:
        return _fast_chunks(state, layout, chunks, masked=False)


def _fast_chunks(state: bytes, layout: StateLayout, chunks: Chunks, *, masked: bool) -> tuple[int, int]:
    count = total = 0
    for number in range(layout.fast_bins):
        expected = (number + 2) * CHUNK_ALIGNED
        chunk = _in(state, layout.fast + number * WORD)
        while chunk:
            size, pointer, _ = chunks.chunk(chunk)
            if size & ~CHUNK_FLAGS != expected:
                raise SnapshotError(MOVED)
            count, total = count + 1, total + expected
            chunk = pointer ^ (chunk + CHUNK_FD) >> 12 if masked else pointer
    return count, total


def _in(state: bytes, offset: int) -> int:
    return int.from_bytes(state[offset : offset + WORD], "little")
