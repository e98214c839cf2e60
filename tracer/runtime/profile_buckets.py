"""The buckets of the runtime's heap profile: what each call stack has allocated, and what of it is freed.

A bucket is for one stack and one size of objects. It never moves and never goes: new ones are put before the first.
Source: bucket, memRecord, mProf_FlushLocked, mProf_PostSweep and memProfileInternal (before Go 1.23: MemProfile) in
runtime/mprof.go, Go 1.9 to 1.27.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words
from gomem.tracer.report import Limit
from gomem.tracer.runtime.numbered import Numbered, Numbers, runs
from gomem.tracer.runtime.profile_list import WORD, BucketList, Integers, Shape

# Which cycles' counts are meant: those of /debug/pprof/heap, or also what is accounted to those that are still open.
Cycle = Literal["published", "active"]

# No counter reaches this, nor does the size of an object.
MOST = 1 << 48
# Each costs some ten microseconds to be named. The largest programs have a tenth.
_MOST_ADDRESSES = 1 << 18
_AT_ONCE = 1 << 16  # addresses: for each some forty bytes are held while it gets its number
_TOO_MANY = f"its heap profile names more than {_MOST_ADDRESSES:,} places in its code: no program allocates in as many"
# A flush of all buckets takes the runtime some milliseconds, and comes once or twice in a cycle of the collector.
_ATTEMPTS = 5
_BETWEEN = 0.003  # seconds


@dataclass(frozen=True, slots=True)
class Buckets:
    """All buckets of the heap profile, the newest first: columns of shape (n,), and what could not be read."""

    object_size: Words  # bytes
    allocs: Integers  # objects that were sampled; their bytes are this times the object's size
    frees: Integers
    held: Integers  # objects in use by all cycles, also those that are still open
    first: Integers  # shape (n + 1,): stack i is addresses[which[first[i] : first[i + 1]]], the innermost call's first
    which: Numbers
    addresses: Words  # the different return addresses of all stacks
    limits: tuple[Limit, ...] = ()

    def __len__(self) -> int:
        return len(self.object_size)

    def stacks(self) -> Iterator[list[int]]:
        """Yield the stack of each bucket."""
        for low, high in pairwise(self.first.tolist()):
            yield self.addresses[self.which[low:high]].tolist()


def required_globals(layout: Layout) -> tuple[str, ...]:
    """Return the globals without which a heap profile cannot be read."""
    return ("mbuckets", "MemProfileRate", _cycle_global(layout))


def read_rate(memory: Memory, addresses: Mapping[str, int]) -> int:
    """Return MemProfileRate: a sample for so many allocated bytes on average; 0 or less: none."""
    return int.from_bytes(memory.read(addresses["MemProfileRate"], WORD), "little", signed=True)


def read_buckets(
    memory: Memory, layout: Layout, addresses: Mapping[str, int], mapped: Ranges, cycle: Cycle = "published"
) -> Buckets:
    """Read the buckets of a process whose globals are at `addresses`.

    `mapped`: where reads find memory; a bucket elsewhere is read by itself. What cannot be told becomes a limit.
    Raises SnapshotError where not even the list's head can be read, or there is no room for what the list claims.
    """
    head = int.from_bytes(memory.read(addresses["mbuckets"], WORD), "little")
    listed, began = BucketList(memory, Shape(layout), mapped), _read_cycle(memory, layout, addresses)
    listed.follow(head)
    counted = _Counted(layout, listed)
    size, first, which, called = _contents(listed, counted)
    shown, settled = _settled_counts(memory, layout, addresses, counted, began)
    limits = [*_broken(listed.broken, len(listed)), *([] if settled else [_unsettled()])]
    allocs, frees = shown["active"]
    return _plausible(Buckets(size, *shown[cycle], allocs - frees, first, which, called, tuple(limits)))


class _Counted:
    """The counts in all records: what is published, then each open cycle's, shape (n, 4, 2).

    The last axis is allocations and frees.
    """

    def __init__(self, layout: Layout, listed: BucketList) -> None:
        future, active = layout.field("memRecord", "future"), layout.offset("memRecord", "active")
        starts = [active, *(future.offset + n * future.stride for n in range(future.count))]
        fields = [layout.offset("memRecordCycle", name) for name in ("allocs", "frees")]
        self._within = np.array([(start + field) // WORD for start in starts for field in fields])
        self._record = listed.at + listed.shape.header + listed.depth
        self._listed = listed
        self.counts = self._none()  # as they were last

    def take(self, words: Words, some: Integers) -> None:
        """Take the counts of these buckets, which lie in a block of these words."""
        self.counts.reshape(len(self._record), -1)[some] = words[self._record[some, np.newaxis] + self._within]

    def read(self, memory: Memory) -> None:
        """Read all of them again."""
        before, self.counts = self.counts, self._none()
        blocks = self._listed.blocks
        room = np.empty(max((block.end - block.base for block in blocks), default=0) // WORD, np.uint64)
        try:
            for number, some in self._listed.by_block:
                block = blocks[number]
                memory.read_into(block.base, room[: (block.end - block.base) // WORD].view(np.uint8))
                self.take(room, some)
        except SnapshotError:
            self.counts = before
            raise

    def _none(self) -> Words:
        return np.empty((len(self._record), len(self._within) // 2, 2), np.uint64)


def _contents(listed: BucketList, counted: _Counted) -> tuple[Words, Integers, Numbers, Words]:
    """Return object sizes, where each bucket's stack begins and ends, and all stacks; blocks let go of their words.

    `counted` takes the counts, as they were when the blocks were read.
    """
    depth, at, shape = listed.depth, listed.at, listed.shape
    first = np.concatenate((np.zeros(1, np.int64), np.cumsum(depth)))
    size, which = np.empty(len(listed), np.uint64), np.empty(int(first[-1]), np.uint32)
    numbered = Numbered(_MOST_ADDRESSES, _TOO_MANY)
    for number, in_block in listed.by_block:
        words = listed.blocks[number].words
        size[in_block] = words[at[in_block] + shape.size]
        counted.take(words, in_block)
        for some in _pieces(in_block, depth[in_block]):
            found = numbered.of(words[runs(at[some] + shape.header, depth[some])])
            if some[-1] - some[0] == len(some) - 1:  # one behind the other in the list, as they are in memory
                which[first[some[0]] : first[some[-1] + 1]] = found
            else:
                which[runs(first[some], depth[some])] = found
        listed.let_go(number)
    return size, first, which, numbered.words()


def _pieces(buckets: Integers, depth: Integers) -> list[Integers]:
    """Return the buckets in turn, as many at once as have about _AT_ONCE addresses: forged ones lie in each other."""
    calls = np.cumsum(depth)
    return np.split(buckets, np.searchsorted(calls, np.arange(_AT_ONCE, int(calls[-1]), _AT_ONCE)))


def _settled_counts(
    memory: Memory, layout: Layout, addresses: Mapping[str, int], counted: _Counted, cycle: int
) -> tuple[dict[Cycle, tuple[Integers, Integers]], bool]:
    """Return allocations and frees of each bucket, and whether no flush was under way while they were read.

    They were `counted` once since the runtime was in `cycle`. A flush moves counts from one place to another, bucket by
    bucket. So all are read twice: if nothing went from where a flush takes it, or came where it puts it, there was none
    in between.
    """
    open_cycles = layout.field("memRecord", "future").count
    settled = False
    for attempt in range(_ATTEMPTS):
        time.sleep(_BETWEEN if attempt else 0)
        try:
            before = counted.counts
            counted.read(memory)
            began, cycle = cycle, _read_cycle(memory, layout, addresses)
        except SnapshotError:
            break  # enough was read of it
        settled = began == cycle and _undisturbed(before, counted.counts, cycle % open_cycles)
        if settled:
            break
    counts = counted.counts
    return {"published": _published(counts, cycle % open_cycles), "active": _all_cycles(counts)}, settled


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
    return replace(
        buckets,
        object_size=size[possible],
        allocs=allocs[possible],
        frees=frees[possible],
        held=buckets.held[possible],
        first=np.concatenate((np.zeros(1, np.int64), np.cumsum(depth[possible]))),
        which=buckets.which[np.repeat(possible, depth)],
        limits=(*buckets.limits, _impossible(int(np.count_nonzero(~possible)), len(buckets))),
    )


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
