"""The list of the heap profile's buckets, followed in the memory of a process: each block of that is read once.

A bucket never moves and never goes; new ones are put before the first. Source: bucket and stkbucket in
runtime/mprof.go, persistentalloc in runtime/malloc.go.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from mmap import mmap
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words

Integers = NDArray[np.int64]

# maxProfStackDepth of Go 1.23 and later, where debug.profstackdepth chooses up to it; before, it was 32.
MOST_FRAMES = 1024
WORD = 8
_MEM_PROFILE = 1  # bucketType of all these releases
# Buckets come from persistentalloc's chunks of 256 KB, so that those in one block are read at once.
_BLOCK_BITS = 18
# What we hold of a bucket beside its stack: where it lies while the list is followed, its columns, its counts twice.
_BUCKET_HELD = 384
# Of an address in a stack: its number, and that of its location.
_ADDRESS_HELD = 8
_RETURNS = "the list of its buckets returns to where it has been"


class _NoBucket(Exception):
    """The list of buckets makes no sense from here on."""


class Shape:
    """Where in a bucket its parts are, in words."""

    def __init__(self, layout: Layout) -> None:
        names = ("allnext", "typ", "size", "nstk")
        self.allnext, self.kind, self.size, self.depth = (layout.offset("bucket", name) // WORD for name in names)
        self.header = layout.size("bucket") // WORD
        self.record = layout.size("memRecord") // WORD
        self.largest = (self.header + MOST_FRAMES + self.record) * WORD  # bytes

    def size_of(self, depth: int) -> int:
        """Return the words of a bucket whose stack has `depth` addresses."""
        return self.header + depth + self.record


class Block(NamedTuple):
    """Memory that was read at once."""

    base: int
    end: int
    words: Words
    view: memoryview  # the same words: one of them is had faster here

    def holds(self, address: int, size: int) -> bool:
        """Tell whether `size` bytes at an address are in the block."""
        return self.base <= address <= self.end - size


class BucketList:
    """Follows the list of buckets; what cannot be followed ends it."""

    def __init__(self, memory: Memory, shape: Shape, mapped: Ranges) -> None:
        """Know no bucket yet. `mapped`: where reads find memory; a bucket elsewhere is read by itself."""
        self.shape = shape
        self.blocks: list[Block] = []
        self.broken = ""  # why the rest of the list is not known
        self._memory = memory
        self._mapped = mapped
        self._numbers: dict[int, int] = {}  # of the blocks, by address
        self._alone: set[int] = set()  # addresses of buckets that were read by themselves
        self._block, self._at, self._depth = array("q"), array("q"), array("q")
        self._words = 0

    def __len__(self) -> int:
        return len(self._at)

    @property
    def at(self) -> Integers:
        """Return where in its block each bucket begins, in words."""
        return _integers(self._at)

    @property
    def depth(self) -> Integers:
        """Return how many addresses the stack of each bucket has."""
        return _integers(self._depth)

    def follow(self, head: int) -> None:
        """Note each bucket from `head` on, until the list ends or makes no sense."""
        try:
            while head:
                noted = len(self._at)
                head = self._follow_within(head, *self._block_of(head))
                self._memory.room.take(len(self._at) - noted, _BUCKET_HELD, "buckets of its heap profile")
                self._memory.room.take(sum(self._depth[noted:]), _ADDRESS_HELD, "addresses of its heap profile")
        except _NoBucket as error:
            self.broken = str(error)
        except SnapshotError as error:
            self.broken = error.what
        self._leave_out_repetitions()

    @cached_property
    def by_block(self) -> list[tuple[int, Integers]]:
        """The number of each block that has buckets, and the indices of these, ascending; of the list as it ended."""
        block = _integers(self._block)
        bucket = np.argsort(block, kind="stable")
        first = np.searchsorted(block[bucket], np.arange(len(self.blocks) + 1)).tolist()
        return [(number, bucket[low:high]) for number, (low, high) in enumerate(pairwise(first)) if low < high]

    def let_go(self, number: int) -> None:
        """Let go of a block's words."""
        block = self.blocks[number]
        self.blocks[number] = Block(block.base, block.end, np.empty(0, np.uint64), memoryview(b""))

    def _block_of(self, address: int) -> tuple[int, Block]:
        number = self._numbers.get(address >> _BLOCK_BITS)
        if number is not None and self.blocks[number].holds(address, self.shape.header * WORD):
            return number, self.blocks[number]
        return self._read(address)

    def _follow_within(self, address: int, number: int, block: Block) -> int:
        """Note the buckets from an address on as long as they lie in one block; return the next one's address, or 0."""
        shape, view, base, noted = self.shape, block.view, block.base, len(self._at)
        allnext, kind, depth_at = shape.allnext, shape.kind, shape.depth
        last, ends = len(view) - shape.header, len(view) - shape.size_of(0)
        note_at, note_depth = self._at.append, self._depth.append
        try:
            for _ in range(self._words // shape.size_of(0) - noted):  # so many fit into all that was read
                at = address - base >> 3
                if not 0 <= at <= last:
                    return address
                depth: int = view[at + depth_at]
                if address & 7 or view[at + kind] != _MEM_PROFILE or at + depth > ends or depth > MOST_FRAMES:
                    raise _NoBucket(f"what is said to be a bucket at {address:#x} is none")
                note_at(at)
                note_depth(depth)
                address = view[at + allnext]
                if not address:
                    return 0
        finally:
            self._block.extend([number] * (len(self._at) - noted))
        if 0 <= address - base >> 3 <= last:
            raise _NoBucket(_RETURNS)
        return address

    def _read(self, address: int) -> tuple[int, Block]:
        """Read the block of an address, as far as memory is mapped there; where it is not known to be, one bucket."""
        number = address >> _BLOCK_BITS
        low, high = self._edges(address)
        if number not in self._numbers and low <= address < high:
            self._numbers[number] = len(self.blocks)  # or that of the bucket alone, if the rest is no longer mapped
            with suppress(SnapshotError):
                return self._add(low, high)
        if address in self._alone:
            raise _NoBucket(_RETURNS)
        self._alone.add(address)
        return self._add(address, address + self._size_at(address))

    def _edges(self, address: int) -> tuple[int, int]:
        """Return the block of an address, as far as memory is mapped there; nothing where none is known to be."""
        row = int(np.searchsorted(self._mapped.start, np.uint64(address), side="right")) - 1
        if row < 0:
            return 0, 0
        low = address >> _BLOCK_BITS << _BLOCK_BITS
        high = low + (1 << _BLOCK_BITS) + self.shape.largest
        return max(low, int(self._mapped.start[row])) + WORD - 1 & -WORD, min(high, int(self._mapped.end[row])) & -WORD

    def _size_at(self, address: int) -> int:
        header = self._memory.read(address, self.shape.header * WORD)
        at = self.shape.depth * WORD
        depth = int.from_bytes(header[at : at + WORD], "little")
        return self.shape.size_of(min(depth, MOST_FRAMES)) * WORD

    def _add(self, low: int, high: int) -> tuple[int, Block]:
        self._memory.room.take(high - low, 1, "bytes of its heap profile's buckets")
        # An allocator would keep what is let go of, and what comes later would not take its place but come on top.
        words = np.frombuffer(mmap(-1, high - low), np.uint64)
        self._memory.read_into(low, words.view(np.uint8))
        self._words += len(words)
        self.blocks.append(Block(low, high, words, words.data))
        return len(self.blocks) - 1, self.blocks[-1]

    def _leave_out_repetitions(self) -> None:
        """Keep each bucket once: a list that returns to one of its own was followed for some rounds."""
        if not self.broken or not len(self):
            return
        address = np.array([self.blocks[block].base for block in self._block], np.int64) + self.at * WORD
        once = np.sort(np.unique(address, return_index=True)[1])
        for column in ("_block", "_at", "_depth"):
            kept = np.frombuffer(getattr(self, column), np.int64)[once]
            setattr(self, column, array("q", kept.tobytes()))


def _integers(column: array[int]) -> Integers:
    return np.frombuffer(column, np.int64) if len(column) else np.empty(0, np.int64)
