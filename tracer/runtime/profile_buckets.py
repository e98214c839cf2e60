"""The buckets of the runtime's heap profile: what each call stack has allocated, and what of it is freed.

A bucket is for one stack and one size of objects. It never moves and never goes: new ones are put before the first.
Source: bucket, memRecord, mProf_FlushLocked, mProf_PostSweep and memProfileInternal (before Go 1.23: MemProfile) in
runtime/mprof.go, Go 1.9 to 1.27.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from mmap import mmap
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words
from gomem.tracer.report import Limit

# Which cycles' counts are meant: those of /debug/pprof/heap, or also what is accounted to those that are still open.
Cycle = Literal["published", "active"]
Integers = NDArray[np.int64]

# maxProfStackDepth of Go 1.23 and later, where debug.profstackdepth chooses up to it; before, it was 32.
MOST_FRAMES = 1024
# No counter reaches this, nor does the size of an object.
MOST = 1 << 48
_WORD = 8
_MEM_PROFILE = 1  # bucketType of all these releases
# Buckets come from persistentalloc's chunks of 256 KB, so that those in one block are read at once.
_BLOCK_BITS = 18
# What we hold of a bucket beside its stack: where it lies while the list is followed, its columns, its record twice.
_BUCKET_HELD = 512
# Of an address in a stack: itself, where it is in the program, and both once more while they are sorted.
_ADDRESS_HELD = 48
# A flush of all buckets takes the runtime some milliseconds, and comes once or twice in a cycle of the collector.
_ATTEMPTS = 5
_RETURNS = "the list of its buckets returns to where it has been"
_BETWEEN = 0.003  # seconds


@dataclass(frozen=True, slots=True)
class Buckets:
    """All buckets of the heap profile, the newest first: columns of shape (n,), and what could not be read."""

    object_size: Words  # bytes
    allocs: Integers  # objects that were sampled; their bytes are this times the object's size
    frees: Integers
    held: Integers  # objects in use by all cycles, also those that are still open
    first: Integers  # shape (n + 1,): stack i is pcs[first[i] : first[i + 1]]
    pcs: Words  # return addresses, the innermost call's first
    limits: tuple[Limit, ...] = ()

    def __len__(self) -> int:
        return len(self.object_size)

    def stacks(self) -> Iterator[list[int]]:
        """Yield the stack of each bucket."""
        edges = self.first.tolist()
        for low, high in pairwise(edges):
            yield self.pcs[low:high].tolist()


def required_globals(layout: Layout) -> tuple[str, ...]:
    """Return the globals without which a heap profile cannot be read."""
    return ("mbuckets", "MemProfileRate", _cycle_global(layout))


def read_rate(memory: Memory, addresses: Mapping[str, int]) -> int:
    """Return MemProfileRate: a sample for so many allocated bytes on average; 0 or less: none."""
    return int.from_bytes(memory.read(addresses["MemProfileRate"], _WORD), "little", signed=True)


def read_buckets(
    memory: Memory, layout: Layout, addresses: Mapping[str, int], mapped: Ranges, cycle: Cycle = "published"
) -> Buckets:
    """Read the buckets of a process whose globals are at `addresses`.

    `mapped`: where reads find memory; a bucket elsewhere is read by itself. What cannot be told becomes a limit.
    Raises SnapshotError where not even the list's head can be read, or there is no room for what the list claims.
    """
    head = int.from_bytes(memory.read(addresses["mbuckets"], _WORD), "little")
    shape = _Shape(layout)
    walk = _Walk(memory, shape, mapped)
    walk.follow(head)
    places = walk.places()
    size, first, pcs = _stacks(walk, places)
    shown, settled = _settled_counts(memory, layout, addresses, walk, places)
    limits = [*_broken(walk.broken, len(walk)), *([] if settled else [_unsettled()])]
    allocs, frees = shown["active"]
    held = allocs - frees
    return _plausible(Buckets(size, *shown[cycle], held, first, pcs, tuple(limits)))


class _NoBucket(Exception):
    """The list of buckets makes no sense from here on."""


class _Shape:
    """Where in a bucket its parts are, in words."""

    def __init__(self, layout: Layout) -> None:
        names = ("allnext", "typ", "size", "nstk")
        self.allnext, self.kind, self.size, self.depth = (layout.offset("bucket", name) // _WORD for name in names)
        self.header = layout.size("bucket") // _WORD
        self.record = layout.size("memRecord") // _WORD
        self.largest = (self.header + MOST_FRAMES + self.record) * _WORD  # bytes

    def size_of(self, depth: int) -> int:
        """Return the words of a bucket whose stack has `depth` addresses."""
        return self.header + depth + self.record


class _Block(NamedTuple):
    """Memory that was read at once."""

    base: int
    end: int
    words: Words
    view: memoryview  # the same words: one of them is had faster here

    def holds(self, address: int, size: int) -> bool:
        """Tell whether `size` bytes at an address are in the block."""
        return self.base <= address <= self.end - size


class _Places(NamedTuple):
    """Indices of buckets in order of the blocks that they lie in, shape (n,); `first`: where each block's begin."""

    bucket: Integers
    first: Integers


class _Walk:
    """Follows the list of buckets; each block of memory is read once."""

    def __init__(self, memory: Memory, shape: _Shape, mapped: Ranges) -> None:
        self.shape = shape
        self.blocks: list[_Block] = []
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
        return np.frombuffer(self._at, np.int64) if len(self._at) else np.empty(0, np.int64)

    @property
    def depth(self) -> Integers:
        """Return how many addresses the stack of each bucket has."""
        return np.frombuffer(self._depth, np.int64) if len(self._depth) else np.empty(0, np.int64)

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

    def places(self) -> _Places:
        """Return the buckets in order of their blocks."""
        block = np.frombuffer(self._block, np.int64) if len(self) else np.empty(0, np.int64)
        bucket = np.argsort(block, kind="stable")
        return _Places(bucket, np.searchsorted(block[bucket], np.arange(len(self.blocks) + 1)))

    def _block_of(self, address: int) -> tuple[int, _Block]:
        number = self._numbers.get(address >> _BLOCK_BITS)
        if number is not None and self.blocks[number].holds(address, self.shape.header * _WORD):
            return number, self.blocks[number]
        return self._read(address)

    def _follow_within(self, address: int, number: int, block: _Block) -> int:
        """Note the buckets from an address on as long as they lie in one block; return the next one's address, or 0."""
        shape, view, base = self.shape, block.view, block.base
        allnext, kind, depth_at = shape.allnext, shape.kind, shape.depth
        most, last, ends = self._words // shape.size_of(0), len(view) - shape.header, len(view) - shape.size_of(0)
        while address:
            at = (address - base) // _WORD
            if not 0 <= at <= last:
                break
            depth: int = view[at + depth_at]
            if address % _WORD or view[at + kind] != _MEM_PROFILE or at + depth > ends or depth > MOST_FRAMES:
                raise _NoBucket(f"what is said to be a bucket at {address:#x} is none")
            if len(self._at) == most:
                raise _NoBucket(_RETURNS)
            self._block.append(number)
            self._at.append(at)
            self._depth.append(depth)
            address = view[at + allnext]
        return address

    def _read(self, address: int) -> tuple[int, _Block]:
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
        return max(low, int(self._mapped.start[row])) + _WORD - 1 & -_WORD, min(
            high, int(self._mapped.end[row])
        ) & -_WORD

    def _size_at(self, address: int) -> int:
        header = self._memory.read(address, self.shape.header * _WORD)
        at = self.shape.depth * _WORD
        depth = int.from_bytes(header[at : at + _WORD], "little")
        return self.shape.size_of(min(depth, MOST_FRAMES)) * _WORD

    def _add(self, low: int, high: int) -> tuple[int, _Block]:
        self._memory.room.take(high - low, 1, "bytes of its heap profile's buckets")
        # An allocator would keep what is let go of, and the stacks would not take its place but come on top of it.
        words = np.frombuffer(mmap(-1, high - low), np.uint64)
        self._memory.read_into(low, words.view(np.uint8))
        self._words += len(words)
        self.blocks.append(_Block(low, high, words, words.data))
        return len(self.blocks) - 1, self.blocks[-1]

    def _leave_out_repetitions(self) -> None:
        """Keep each bucket once: a list that returns to one of its own was followed for some rounds."""
        if not self.broken or not len(self):
            return
        address = np.array([self.blocks[block].base for block in self._block], np.int64) + self.at * _WORD
        once = np.sort(np.unique(address, return_index=True)[1])
        for column in ("_block", "_at", "_depth"):
            kept = np.frombuffer(getattr(self, column), np.int64)[once]
            setattr(self, column, array("q", kept.tobytes()))


def _stacks(walk: _Walk, places: _Places) -> tuple[Words, Integers, Words]:
    """Return object sizes, where each bucket's stack begins and ends, and all stacks; blocks let go of their words."""
    depth, at, shape = walk.depth, walk.at, walk.shape
    first = np.concatenate((np.zeros(1, np.int64), np.cumsum(depth)))
    size, pcs = np.empty(len(walk), np.uint64), np.empty(int(first[-1]), np.uint64)
    for number, block in enumerate(walk.blocks):
        some = places.bucket[places.first[number] : places.first[number + 1]]
        size[some] = block.words[at[some] + shape.size]
        within = np.arange(int(depth[some].sum())) - np.repeat(np.cumsum(depth[some]) - depth[some], depth[some])
        pcs[np.repeat(first[some], depth[some]) + within] = block.words[
            np.repeat(at[some] + shape.header, depth[some]) + within
        ]
        walk.blocks[number] = _Block(block.base, block.end, np.empty(0, np.uint64), memoryview(b""))
    return size, first, pcs


def _records(memory: Memory, walk: _Walk, places: _Places) -> Words:
    """Return the memRecord of each bucket as it is now, shape (n, words of one)."""
    shape = walk.shape
    records = np.empty((len(walk), shape.record), np.uint64)
    start = walk.at + shape.header + walk.depth
    for number, block in enumerate(walk.blocks):
        some = places.bucket[places.first[number] : places.first[number + 1]]
        if len(some):
            words = np.empty((block.end - block.base) // _WORD, np.uint64)
            memory.read_into(block.base, words.view(np.uint8))
            records[some] = words[start[some, np.newaxis] + np.arange(shape.record)]
    return records


def _settled_counts(
    memory: Memory, layout: Layout, addresses: Mapping[str, int], walk: _Walk, places: _Places
) -> tuple[dict[Cycle, tuple[Integers, Integers]], bool]:
    """Return allocations and frees of each bucket, and whether no flush was under way while they were read.

    A flush moves counts from one place to another, bucket by bucket. So all are read twice: if nothing went from where
    a flush takes it, or came where it puts it, there was none in between.
    """
    open_cycles = layout.field("memRecord", "future").count
    cycle = _read_cycle(memory, layout, addresses)
    counts, settled = _counts(memory, layout, walk, places), False
    for attempt in range(_ATTEMPTS):
        time.sleep(_BETWEEN if attempt else 0)
        try:
            before, counts = counts, _counts(memory, layout, walk, places)
            began, cycle = cycle, _read_cycle(memory, layout, addresses)
        except SnapshotError:
            break  # enough was read of it
        settled = began == cycle and _undisturbed(before, counts, cycle % open_cycles)
        if settled:
            break
    return {"published": _published(counts, cycle % open_cycles), "active": _all_cycles(counts)}, settled


def _counts(memory: Memory, layout: Layout, walk: _Walk, places: _Places) -> Words:
    """Return the counts in all records as they are now: what is published, then each open cycle's, shape (n, 4, 2).

    The last axis is allocations and frees.
    """
    future = layout.field("memRecord", "future")
    starts = [layout.offset("memRecord", "active"), *(future.offset + n * future.stride for n in range(future.count))]
    fields = [layout.offset("memRecordCycle", name) for name in ("allocs", "frees")]
    return _records(memory, walk, places)[:, [[(start + field) // _WORD for field in fields] for start in starts]]


def _undisturbed(before: Words, after: Words, current: int) -> bool:
    """Tell whether no flush happened in between: open cycles have only grown, the rest is as it was."""
    still = [0, 1 + current]
    return np.array_equal(before[:, still], after[:, still]) and bool(np.all(after >= before))


def _published(counts: Words, current: int) -> tuple[Integers, Integers]:
    """Return what memProfileInternal shows: what is published, and the cycle that it would flush before it looks.

    Where that is nothing at all, no collection was yet, and it shows all cycles.
    """
    shown = counts[:, 0] + counts[:, 1 + current]
    return _columns(shown) if shown.any() else _all_cycles(counts)


def _all_cycles(counts: Words) -> tuple[Integers, Integers]:
    """Return what is counted so far, also in the cycles that are still open."""
    return _columns(counts.sum(axis=1, dtype=np.uint64))


def _columns(counts: Words) -> tuple[Integers, Integers]:
    signed = counts.astype(np.int64)
    return signed[:, 0], signed[:, 1]


def _cycle_global(layout: Layout) -> str:
    return "mProfCycle" if "mProfCycle" in layout.globals else "mProf"


def _read_cycle(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> int:
    """Return the number of the heap profile's cycle (up to Go 1.18, mProf.cycle; since, all but mProfCycle's bit 0)."""
    name = _cycle_global(layout)
    if name == "mProf":
        return int.from_bytes(memory.read(addresses[name] + layout.offset(name, "cycle"), 4), "little")
    return int.from_bytes(memory.read(addresses[name], 4), "little") >> 1


def _plausible(buckets: Buckets) -> Buckets:
    """Return the buckets without those whose counts no runtime can reach."""
    size, allocs, frees = buckets.object_size, buckets.allocs, buckets.frees
    possible = (size < MOST) & (allocs >= 0) & (allocs < MOST) & (frees >= 0) & (frees <= allocs)
    possible &= size.astype(np.float64) * allocs < float(1 << 62)
    possible &= (buckets.held >= 0) & (buckets.held < MOST)
    if possible.all():
        return buckets
    depth = np.diff(buckets.first)
    first = np.concatenate((np.zeros(1, np.int64), np.cumsum(depth[possible])))
    pcs = buckets.pcs[np.repeat(possible, depth)]
    limits = (*buckets.limits, _impossible(int(np.count_nonzero(~possible)), len(buckets)))
    return Buckets(size[possible], allocs[possible], frees[possible], buckets.held[possible], first, pcs, limits)


def _broken(why: str, count: int) -> list[Limit]:
    if not why:
        return []
    return [Limit("profile-partly", "part of the heap profile", f"{why}; the {count} buckets before it are shown", "")]


def _impossible(count: int, total: int) -> Limit:
    why = f"{count} of {total} buckets hold counts that no runtime can reach; they are left out"
    return Limit("profile-buckets", "part of the heap profile", why, "")


def _unsettled() -> Limit:
    why = f"the runtime moved its counts from cycle to cycle in each of {_ATTEMPTS} attempts to read them"
    return Limit("profile-moment", "all counts of the heap profile at one moment", why, "take the profile again")
