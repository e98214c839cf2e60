"""How many buckets the runtime's own profiles have: one for each call stack that they have ever seen.

A bucket never moves and never goes, and new ones are put before the first of their list: what was counted once need not
be walked again. Source: bucket, stkbucket, MemProfile, BlockProfile and MutexProfile in runtime/mprof.go,
persistentalloc in runtime/malloc.go (Go 1.9 to 1.27).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory
from gomem.tracer.report import ProfileBuckets
from gomem.tracer.runtime.profile_list import WORD, Shape

# By what they count: the global that has the list, and the bucketType of all that is in it.
LISTS: Final = {"memory": ("mbuckets", 1), "block": ("bbuckets", 2), "mutex": ("xbuckets", 3)}
MOST: Final = 1 << 21
_BLOCK_RECORD = 16  # bytes: the smallest that follows a bucket and its stack
_PIECE = 1 << 16  # bytes that are read at once; each P puts its buckets into a chunk of its own,
_PIECES = 64  # so that so many are kept
_MOST_READS = 1 << 16


class BucketCounter:
    """Counts the buckets of one process; only those that are new since the last time are walked."""

    def __init__(self) -> None:
        """Know no bucket yet."""
        self._known: dict[str, tuple[int, int]] = {}  # the first of each list, and how many there are from it on

    def count(
        self,
        memory: Memory,
        layout: Layout,
        addresses: Mapping[str, int],
        chunks: Sequence[tuple[int, int]],
        size: int,
    ) -> ProfileBuckets:
        """Return how many buckets there are; of a list that is not among `addresses`, None.

        `chunks`: start and end of each of persistentalloc's chunks; a bucket elsewhere is read by itself. `size`: bytes
        that all buckets have together at the most. Raises SnapshotError where a list makes no sense, TargetGone.
        """
        shape, pieces = Shape(layout), _Pieces(memory, chunks)
        most = min(MOST, size // (shape.header * WORD + _BLOCK_RECORD))
        # What is a head by now is whole in each piece that is read from now on.
        heads = {
            kind: (number, int.from_bytes(memory.read(addresses[name], WORD), "little"))
            for kind, (name, number) in LISTS.items()
            if name in addresses
        }
        for kind, (number, head) in heads.items():
            first, known = self._known.get(kind, (0, 0))
            self._known[kind] = head, known + _walked(pieces, shape, head, first, number, most - known)
        counts = {kind: count for kind, (_, count) in self._known.items()}
        return ProfileBuckets(memory=counts.get("memory"), block=counts.get("block"), mutex=counts.get("mutex"))


class _Pieces:
    """Memory of buckets, read in pieces of which the last few are kept."""

    def __init__(self, memory: Memory, chunks: Sequence[tuple[int, int]]) -> None:
        self._memory = memory
        whole = ((start + WORD - 1 & -WORD, end & -WORD) for start, end in chunks)
        self._chunks = sorted((start, end) for start, end in whole if start < end)
        self._starts = [start for start, _ in self._chunks]
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        # Each is read once, if it is not let go of too early.
        self._left = min(_PIECES + 4 * sum((end - start) // _PIECE + 1 for start, end in self._chunks), _MOST_READS)

    def at(self, address: int, words: int) -> tuple[int, memoryview]:
        """Return where the piece begins in which there are so many words at an address, and its words."""
        base, end = self._edges(address, words * WORD)
        found = self._kept.get(base)
        if found is not None:
            self._kept.move_to_end(base)
            return base, found
        if not self._left:
            raise SnapshotError("a list of profile buckets leads to and fro")
        self._left -= 1
        room = np.empty((end - base) // WORD, np.uint64)
        self._memory.read_into(base, room.view(np.uint8))
        self._kept[base] = room.data
        if len(self._kept) > _PIECES:
            self._kept.popitem(last=False)
        return base, room.data

    def _edges(self, address: int, size: int) -> tuple[int, int]:
        row = bisect_right(self._starts, address) - 1
        if row >= 0:
            start, end = self._chunks[row]
            if address + size <= end:
                base = address - (address - start) % _PIECE
                return base, min(base + _PIECE + size - WORD, end)  # what begins in it is in it as a whole
        return address, address + size


def _walked(pieces: _Pieces, shape: Shape, head: int, known: int, number: int, most: int) -> int:
    """Return how many buckets of this kind come before the `known` one (0: none is), which the list must lead to."""
    allnext, kind = shape.allnext, shape.kind
    words = max(allnext, kind) + 1
    count, address = 0, head
    while address != known:
        if address % WORD or not address:
            raise SnapshotError("a list of profile buckets leads to what is none")
        base, piece = pieces.at(address, words)
        at, last = address - base >> 3, len(piece) - words
        assert 0 <= at <= last
        while 0 <= at <= last and address != known:
            if piece[at + kind] != number:
                raise SnapshotError(f"what is said to be a profile bucket at {address:#x} is none")
            if count == most:
                raise SnapshotError(f"more profile buckets than there can be: {count:,} were counted")
            count += 1
            address = piece[at + allnext]
            at = address - base >> 3
    return count
