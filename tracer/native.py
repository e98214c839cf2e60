"""Memory of C in a process: thread stacks and glibc's heap, each range proven by what points to it or stands in it.

Only what can be proven is named; the rest of the anonymous memory stays "other" (other allocators, memory that
the program mapped by hand).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tracer.errors import GomemError, SnapshotError
from tracer.kernel.maps import Mappings
from tracer.kernel.ranges import Ranges, normalise, subtract
from tracer.kernel.residency import Residency
from tracer.runtime.memory import Memory
from tracer.target import Target

# glibc, malloc/arena.c: HEAP_MAX_SIZE on 64-bit systems; heaps of all arenas but the main one are so aligned.
_ARENA_HEAP = 64 << 20
# glibc, malloc/malloc.c: IS_MMAPPED; the other two low bits are clear in such a chunk.
_IS_MMAPPED, _CHUNK_FLAGS = 2, 7
_OS_PAGE = 4096
# pthread_attr_setguardsize's default is one page; Go's and Java's C threads use no more than this.
_LARGEST_GUARD = 1 << 20
_MOST_THREADS = 1 << 16
_MOST_LOOKS = 1 << 16


@dataclass(frozen=True, slots=True)
class NativeRange:
    """One range of memory that C code uses; `kind` is "thread_stack" or "c_heap"."""

    start: int
    end: int
    kind: str


def native_ranges(
    mappings: Mappings, residency: Residency, owned: Ranges, stack_pointers: Iterable[int], memory: Memory
) -> list[NativeRange]:
    """Return the proven ranges outside `owned` (what the Go runtime has), sorted and disjoint.

    `stack_pointers`: where threads that are not running have their stacks now. Only pages that are resident are read:
    reading others would make the target's kernel map its zero page there.
    """
    anonymous = np.array([not name for name in mappings.name], np.bool_) & (mappings.inode == 0) & ~mappings.shared
    usable = anonymous & mappings.writable
    left = subtract(Ranges(mappings.start[usable], mappings.end[usable]), owned)
    none = normalise(mappings.start[anonymous & ~mappings.readable], mappings.end[anonymous & ~mappings.readable])
    stacks = list(_stacks(left, none, stack_pointers))
    rest = _without(left, stacks)
    touched = residency.rss_in(rest.start, rest.start + np.uint64(_OS_PAGE)) > 0
    heap = list(_malloc(Ranges(rest.start[touched], rest.end[touched]), none, memory))
    found: list[NativeRange] = []
    for candidate in sorted(stacks + heap, key=lambda native: native.start):
        if not found or candidate.start >= found[-1].end:
            found.append(candidate)
    return found


def _without(ranges: Ranges, natives: list[NativeRange]) -> Ranges:
    return subtract(ranges, normalise([n.start for n in natives], [n.end for n in natives]))


def _stacks(left: Ranges, none: Ranges, pointers: Iterable[int]) -> Iterator[NativeRange]:
    """Yield the ranges that a thread's stack pointer is in, with the guard below them."""
    guard_at = {int(end): int(start) for start, end in zip(none.start, none.end, strict=True)}
    where = np.unique(np.fromiter((pointer % (1 << 64) for pointer in pointers), np.uint64))
    index = np.unique(np.searchsorted(left.start, where, side="right").astype(np.int64) - 1)
    for position in index[index >= 0].tolist():
        start, end = int(left.start[position]), int(left.end[position])
        if not np.any((where >= np.uint64(start)) & (where < np.uint64(end))):
            continue
        guard = guard_at.get(start, start)
        yield NativeRange(guard if start - guard <= _LARGEST_GUARD else start, end, "thread_stack")


def _malloc(left: Ranges, none: Ranges, memory: Memory) -> Iterator[NativeRange]:
    """Yield glibc's arena heaps (heap_info.ar_ptr names an arena in such a heap) and its mapped chunks."""
    aligned = {int(start) for start in left.start if int(start) % _ARENA_HEAP == 0}
    reserve_from = {int(start): int(end) for start, end in zip(none.start, none.end, strict=True)}
    for start, end in zip(left.start[:_MOST_LOOKS].tolist(), left.end[:_MOST_LOOKS].tolist(), strict=True):
        if start in aligned and _word(memory, start) // _ARENA_HEAP * _ARENA_HEAP in aligned:
            yield NativeRange(start, min(reserve_from.get(end, end), start + _ARENA_HEAP), "c_heap")
        else:
            yield from _mapped_chunks(start, end, memory)


def _mapped_chunks(start: int, end: int, memory: Memory) -> Iterator[NativeRange]:
    """Yield the leading part of a mapping that is a row of mmapped malloc chunks, which say their own size."""
    at = start
    for _ in range(_MOST_LOOKS):
        if end - at < _OS_PAGE:
            break
        size = _word(memory, at + 8)
        length = size & ~_CHUNK_FLAGS
        if size & _CHUNK_FLAGS != _IS_MMAPPED or length % _OS_PAGE or not 0 < length <= end - at:
            break
        at += length
    if at > start:
        yield NativeRange(start, at, "c_heap")


def _word(memory: Memory, address: int) -> int:
    try:
        return int.from_bytes(memory.read(address, 8), "little")
    except SnapshotError:
        return 0


def stack_pointers(target: Target) -> list[int]:
    """Return the stack pointers of the threads that are not running at this moment.

    Source: /proc/PID/task/TID/syscall (proc(5)): "running", or numbers of which the last but one is the stack pointer.
    """
    try:
        tasks = os.listdir(f"/proc/{target.pid}/task")[:_MOST_THREADS]
        target.check_alive()
    except OSError:
        return []
    pointers = []
    for task in tasks:
        try:
            words = target.read(f"task/{task}/syscall").split()
        except (GomemError, OSError):
            continue
        if len(words) >= 3:
            pointers.append(int(words[-2], 16))
    return pointers
