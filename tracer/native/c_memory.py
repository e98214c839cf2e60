"""Memory of C in a process: thread stacks and glibc's heap, each range proven by what stands in it.

Only what can be proven is named; the rest of the anonymous memory stays "other" (other allocators, memory that
the program mapped by hand).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, normalise, subtract
from gomem.tracer.errors import GomemError, SnapshotError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.kernel.residency import Residency
from gomem.tracer.native.thread_stacks import thread_stacks
from gomem.tracer.process.memory import Memory
from gomem.tracer.process.target import Target

# glibc, malloc/arena.c: HEAP_MAX_SIZE on 64-bit systems; heaps of all arenas but the main one are so aligned.
_ARENA_HEAP = 64 << 20
# heap_info begins with ar_ptr, prev, size, mprotect_size; the arena of its first heap follows it (glibc 2.10 to 2.42).
_HEAP_INFO, _MOST_HEAP_INFO = 32, 64
# glibc, malloc/malloc.c: IS_MMAPPED; the other two low bits are clear in such a chunk.
_IS_MMAPPED, _CHUNK_FLAGS = 2, 7
_OS_PAGE = 4096
_MOST_THREADS = 1 << 16
_MOST_LOOKS = 1 << 16


class NativeRange(Struct, frozen=True):
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
    anonymous = _without_name(mappings) & (mappings.inode == 0) & ~mappings.shared
    usable = anonymous & mappings.writable
    left = subtract(Ranges(mappings.start[usable], mappings.end[usable]), owned)
    none = normalise(mappings.start[anonymous & ~mappings.readable], mappings.end[anonymous & ~mappings.readable])
    proven = thread_stacks(left, none, residency.resident(), stack_pointers, memory)
    stacks = [NativeRange(start, end, "thread_stack") for start, end in proven]
    rest = _without(left, stacks)
    touched = residency.rss_in(rest.start, rest.start + np.uint64(_OS_PAGE)) > 0
    heap = list(_malloc(Ranges(rest.start[touched], rest.end[touched]), none, memory))
    found: list[NativeRange] = []
    for candidate in sorted(stacks + heap, key=lambda native: native.start):
        if not found or candidate.start >= found[-1].end:
            found.append(candidate)
    return found


def _without_name(mappings: Mappings) -> NDArray[np.bool_]:
    # Up to Linux 4.4 the kernel called each mapping that a stack pointer was in "[stack:TID]".
    return np.array([not name or name.startswith("[stack:") for name in mappings.name], np.bool_)


def _without(ranges: Ranges, natives: list[NativeRange]) -> Ranges:
    return subtract(ranges, normalise([n.start for n in natives], [n.end for n in natives]))


def _malloc(left: Ranges, none: Ranges, memory: Memory) -> Iterator[NativeRange]:
    """Yield glibc's arena heaps and its mapped chunks."""
    aligned = {int(start) for start in left.start if int(start) % _ARENA_HEAP == 0}
    reserve_from = {int(start): int(end) for start, end in zip(none.start, none.end, strict=True)}
    for start, end in zip(left.start[:_MOST_LOOKS].tolist(), left.end[:_MOST_LOOKS].tolist(), strict=True):
        if start in aligned and _is_arena_heap(start, end, aligned, memory):
            yield NativeRange(start, min(reserve_from.get(end, end), start + _ARENA_HEAP), "c_heap")
        else:
            yield from _mapped_chunks(start, end, memory)


def _is_arena_heap(start: int, end: int, aligned: set[int], memory: Memory) -> bool:
    """Tell whether a heap_info stands at `start`: of an arena that begins such a heap, and with sizes that fit."""
    arena, previous, size, accessible = (_word(memory, start + at) for at in range(0, _HEAP_INFO, 8))
    first = arena // _ARENA_HEAP * _ARENA_HEAP
    return (
        first in aligned
        and _HEAP_INFO <= arena - first <= _MOST_HEAP_INFO
        # `prev` leads from an arena's later heaps to its first.
        and (previous == 0 if first == start else previous in aligned)
        and 0 < size <= accessible <= min(end - start, _ARENA_HEAP)
        and accessible % _OS_PAGE == 0
    )


def _mapped_chunks(start: int, end: int, memory: Memory) -> Iterator[NativeRange]:
    """Yield the leading part of a mapping that is a row of mmapped malloc chunks, which say their own size."""
    at = start
    for _ in range(_MOST_LOOKS):
        if end - at < _OS_PAGE:
            break
        before, size = _word(memory, at), _word(memory, at + 8)
        length = size & ~_CHUNK_FLAGS
        # Such a chunk has none before it: sysmalloc_mmap() clears prev_size.
        if before or size & _CHUNK_FLAGS != _IS_MMAPPED or length % _OS_PAGE or not 0 < length <= end - at:
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
