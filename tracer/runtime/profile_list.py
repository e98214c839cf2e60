"""The list of the heap profile's buckets, followed in the memory of a process: each block of that is read once.

A bucket never moves and never goes; new ones are put before the first. Source: bucket and stkbucket in
runtime/mprof.go, persistentalloc in runtime/malloc.go.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from mmap import MAP_ANONYMOUS, MAP_POPULATE, MAP_PRIVATE, mmap
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
# Of one's own, for shared memory costs twice as much; all pages at once, for each by itself costs more than it holds.
_FRESH = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE
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
    """Memory that was read at once: from `base` to `end`. Buckets that begin before `until` are in it as a whole."""

    base: int
    until: int
    end: int
    words: Words
    view: memoryview  # the same words: one of them is had faster here

    @property
    def words_until(self) -> int:
        """How many words are before `until`."""
        return min(-(-(self.until - self.base) // WORD), len(self.view))


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
        self._address, self._block = array("Q"), array("q")  # of what may be buckets; numbers of blocks
        self._words = 0
        self._keep(*(np.zeros(0, np.int64),) * 3)

    def __len__(self) -> int:
        return len(self.at)

    def follow(self, head: int) -> None:
        """Note each bucket from `head` on, until the list ends or makes no sense."""
        try:
            while head:
                noted = len(self._address)
                head = self._follow_within(head, *self._block_of(head))
                self._memory.room.take(len(self._address) - noted, _BUCKET_HELD, "buckets of its heap profile")
        except _NoBucket as error:
            self.broken = str(error)
        except SnapshotError as error:
            self.broken = error.what
        self._check(*self._once())

    @cached_property
    def by_block(self) -> list[tuple[int, Integers]]:
        """The number of each block that has buckets, and the indices of these, ascending."""
        return self._grouped(self.block)

    def let_go(self, number: int) -> None:
        """Let go of a block's words."""
        block = self.blocks[number]
        self.blocks[number] = block._replace(words=np.empty(0, np.uint64), view=memoryview(b""))

    def _block_of(self, address: int) -> tuple[int, Block]:
        number = self._numbers.get(address >> _BLOCK_BITS)
        if number is not None:
            block = self.blocks[number]
            if block.base <= address < block.until and address <= block.end - self.shape.header * WORD:
                return number, block
        return self._read(address)

    def _follow_within(self, address: int, number: int, block: Block) -> int:
        """Note what lies in one block, from an address on; return the first that lies elsewhere, or 0."""
        view, base, allnext, noted = block.view, block.base, self.shape.allnext, len(self._address)
        last, note = min(block.words_until - 1, len(view) - self.shape.header), self._address.append
        try:
            for _ in range(self._words // self.shape.size_of(0) - noted):  # so many fit into all that was read
                at = address - base >> 3
                if not 0 <= at <= last:
                    return address
                note(address)
                address = view[at + allnext]
        finally:
            self._block.extend([number] * (len(self._address) - noted))
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
                return self._add(low, high, number + 1 << _BLOCK_BITS)
        if address in self._alone:
            raise _NoBucket(_RETURNS)
        self._alone.add(address)
        return self._add(address, address + self._size_at(address), address + WORD)

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

    def _add(self, low: int, high: int, until: int) -> tuple[int, Block]:
        self._memory.room.take(high - low, 1, "bytes of its heap profile's buckets")
        # An allocator would keep what is let go of, and what comes later would not take its place but come on top.
        words = np.frombuffer(mmap(-1, high - low, _FRESH), np.uint64)
        self._memory.read_into(low, words.view(np.uint8))
        self._words += len(words)
        self.blocks.append(Block(low, until, high, words, words.data))
        return len(self.blocks) - 1, self.blocks[-1]

    def _grouped(self, block: Integers) -> list[tuple[int, Integers]]:
        bucket = np.argsort(block, kind="stable")
        first = np.searchsorted(block[bucket], np.arange(len(self.blocks) + 1)).tolist()
        return [(number, bucket[low:high]) for number, (low, high) in enumerate(pairwise(first)) if low < high]

    def _once(self) -> tuple[Words, Integers]:
        """Return address and block of all, each once: a list that returns to one was followed for some rounds."""
        if not len(self._address):
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        address, block = np.frombuffer(self._address, np.uint64), np.frombuffer(self._block, np.int64)
        if not self.broken:
            return address, block
        once = np.sort(np.unique(address, return_index=True)[1])
        return address[once], block[once]

    def _check(self, address: Words, block: Integers) -> None:
        """Keep the buckets before the first that is none, as many as there is room for."""
        shape = self.shape
        at, depth = np.zeros(len(address), np.int64), np.zeros(len(address), np.int64)
        good = np.zeros(len(address), np.bool_)
        for number, some in self._grouped(block):
            words, base = self.blocks[number].words, np.uint64(self.blocks[number].base)
            offset = address[some] - base
            at[some] = at_some = (offset // WORD).astype(np.int64)
            found = words[at_some + shape.depth]
            depth[some] = depth_some = np.minimum(found, MOST_FRAMES).astype(np.int64)
            good[some] = (
                (offset % WORD == 0)
                & (words[at_some + shape.kind] == _MEM_PROFILE)
                & (found <= MOST_FRAMES)
                & (at_some + depth_some <= len(words) - shape.size_of(0))
            )
        end = len(address)
        if not good.all():
            end = int(np.argmin(good))
            self.broken = f"what is said to be a bucket at {int(address[end]):#x} is none"
        calls = np.cumsum(depth[:end])
        fit = int(np.searchsorted(calls, self._words, side="right"))
        if fit < end:
            end, calls, self.broken = fit, calls[:fit], "its buckets lie in each other"
        try:
            self._memory.room.take(int(calls[-1]) if end else 0, _ADDRESS_HELD, "addresses of its heap profile")
        except SnapshotError as error:
            self.broken = error.what
            end = int(np.searchsorted(calls, self._memory.room.fits(_ADDRESS_HELD), side="right"))
        self._keep(block[:end], at[:end], depth[:end])

    def _keep(self, block: Integers, at: Integers, depth: Integers) -> None:
        """Take what is known of the buckets: in which block each is, where in it, in words, and how deep its stack."""
        self.block, self.at, self.depth = block, at, depth
