"""Stacks of C threads, each proven by the thread library's own record at its top.

glibc and musl keep a thread's control block (struct pthread) inside its stack, above the first frame. Its first word
points to the block itself, and further words say where the stack begins and how long it is: `stackblock` and
`stackblock_size` in glibc (nptl/descr.h), `map_base` and `map_size` in musl (src/internal/pthread_impl.h). Where these
words are differs by release; that they describe the very range that the block lies in does not, and is the proof. A
stack pointer inside a mapping proves nothing: goroutines and coroutines run on memory of all kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, distinct, normalise
from gomem.tracer.errors import SnapshotError
from gomem.tracer.process.memory import Memory, read_words

_OS_PAGE = 4096
# PTHREAD_STACK_MIN of glibc on amd64; musl asks for no less either.
_LEAST_STACK = 16 << 10
# glibc 2.36 has 2.3 KB of struct pthread behind 64-byte alignment, and `stackblock` at 1680; musl less, with 1 KB of
# thread-specific data above it. Thread-local variables lie below the block.
_TOP = 4 * _OS_PAGE
_BLOCK_WORDS = 0x900 // 8
# `tid` in struct pthread of 64-bit systems: glibc 2.2 to 2.43 behind a header padded to 704 bytes and a list, musl 1.2.
_TID_OF_GLIBC, _TID_OF_MUSL = 720, 48
# Where a stack has become one mapping with what lies above it, its block is looked for upwards: so many bytes in RAM
# are read from the guard or a stack pointer on, and so many of all.
_MOST_ABOVE = 4 << 20
_MOST_ABOVE_ALL = 32 << 20
_MOST_STACKS = 1 << 16

Stack = tuple[int, int]


def thread_stacks(left: Ranges, none: Ranges, resident: Ranges, pointers: Iterable[int], memory: Memory) -> list[Stack]:
    """Return the proven stacks as (start, end), guard included, sorted and disjoint.

    `left`: accessible anonymous mappings that may hold some; `none`: ranges without access, which may be guards;
    `resident`: the OS pages that may be read; `pointers`: stack pointers of threads that are not running.
    """
    search = _Search(resident, memory)
    guard_at = {int(end): int(start) for start, end in zip(none.start, none.end, strict=True)}
    where = distinct(np.fromiter((pointer % (1 << 64) for pointer in pointers), np.uint64))
    first, last = (np.searchsorted(where, edge, side="left").tolist() for edge in (left.start, left.end))
    found: set[Stack] = set()
    rows = zip(left.start.tolist(), left.end.tolist(), first, last, strict=True)
    for start, end, low, high in rows:
        if low == high and start not in guard_at:
            continue
        floor = guard_at.get(start, start)
        here = set(search.downwards(floor, start, end))
        for point in [*([start] if start in guard_at else []), *where[low:high].tolist()]:
            if not any(bottom <= point < top for bottom, top in here):
                here.update(search.around(point, floor, start, end))
        found |= here
        if len(found) > _MOST_STACKS:
            break
    return _disjoint(found)


def _disjoint(stacks: Iterable[Stack]) -> list[Stack]:
    kept: list[Stack] = []
    for stack in sorted(stacks):
        if not kept or stack[0] >= kept[-1][1]:
            kept.append(stack)
    return kept


class _Search:
    """Looks for control blocks in resident pages, within bounds."""

    def __init__(self, resident: Ranges, memory: Memory) -> None:
        # A block may reach over ranges that touch.
        self._resident = normalise(resident.start, resident.end)
        self._memory = memory
        self._above = _MOST_ABOVE_ALL

    def downwards(self, floor: int, start: int, end: int) -> Iterator[Stack]:
        """Yield the stack that ends near `end`, and those right below it: without guards they share one mapping."""
        top = end
        while top > start:
            stack = self._first(self._runs(max(start, top - _TOP), top, _TOP), floor, top)
            if stack is None:
                return
            yield stack
            top = stack[0]

    def around(self, point: int, floor: int, start: int, end: int) -> Iterator[Stack]:
        """Yield the stack that `point` is in, and those right below it."""
        runs = list(self._runs(point // _OS_PAGE * _OS_PAGE, end, min(_MOST_ABOVE, self._above)))
        self._above -= sum(last - first for first, last in runs)
        stack = self._first(runs, floor, end)
        if stack is not None and stack[0] <= point < stack[1]:
            yield stack
            yield from self.downwards(floor, start, stack[0])

    def _first(self, runs: Iterable[Stack], floor: int, top: int) -> Stack | None:
        """Return the stack of the lowest control block in these ranges; it must lie in [floor, top)."""
        for begin, end in runs:
            try:
                words = read_words(self._memory, begin, (end - begin) // 8)
            except SnapshotError:
                continue
            stack = stack_of_block(words, begin, floor, top)
            if stack is not None:
                return stack
        return None

    def _runs(self, low: int, high: int, most: int) -> Iterator[Stack]:
        """Yield the first `most` resident bytes of [low, high), in ranges."""
        starts, ends = self._resident.start, self._resident.end
        first = int(np.searchsorted(ends, np.uint64(low), side="right"))
        last = int(np.searchsorted(starts, np.uint64(high), side="left"))
        for at in range(first, last):
            if most <= 0:
                return
            begin = max(int(starts[at]), low)
            end = min(int(ends[at]), high, begin + most)
            most -= end - begin
            yield begin, end


def stack_of_block(words: NDArray[np.uint64], base: int, floor: int, top: int) -> Stack | None:
    """Return the stack that a control block in `words`, which were read at `base`, says it belongs to.

    That is: a word that is its own address, and behind it a page address in [floor, top) with a length that makes a
    range up to `top` at most around the block.
    """
    found = _block(words, base, floor, top)
    return found[1] if found else None


def thread_of_block(words: NDArray[np.uint64], base: int, stack: Stack) -> int | None:
    """Return the thread id that the control block of `stack` has, in the process's own PID namespace; None: no block.

    It proves nothing by itself: the caller knows which threads there are.
    """
    found = _block(words, base, *stack)
    if found is None or found[1][1] != stack[1]:
        return None
    at = (found[0] - base) // 8
    # glibc keeps a thread's own address in the third word, too (tcbhead_t.self); musl has no such word.
    glibc = at + 2 < len(words) and int(words[at + 2]) == found[0]
    word = at + (_TID_OF_GLIBC if glibc else _TID_OF_MUSL) // 8
    return int(words[word]) & 0xFFFF_FFFF if word < len(words) else None


def _block(words: NDArray[np.uint64], base: int, floor: int, top: int) -> tuple[int, Stack] | None:
    own = np.uint64(base) + np.arange(len(words), dtype=np.uint64) * np.uint64(8)
    for at in np.flatnonzero(words == own).tolist():
        block = base + 8 * at
        begins, sizes = words[at : at + _BLOCK_WORDS - 1], words[at + 1 : at + _BLOCK_WORDS]
        fits = (begins[: len(sizes)] >= np.uint64(floor)) & (begins[: len(sizes)] < np.uint64(block))
        fits &= (begins[: len(sizes)] | sizes) % np.uint64(_OS_PAGE) == 0
        fits &= (sizes >= np.uint64(_LEAST_STACK)) & (sizes <= np.uint64(top - floor))
        for pair in np.flatnonzero(fits).tolist():
            begin, size = int(begins[pair]), int(sizes[pair])
            if block < begin + size <= top:
                return block, (begin, begin + size)
    return None
