"""The mappings of a process, rebuilt from its system calls: for every byte whether it is mapped, and how.

Not every change is a system call. A stack grows when it is touched (VM_GROWSDOWN), which the model learns from the
next look. An execve makes a new address space and lets the kernel's ELF loader fill it: then nothing is known any
more. And the kernel merges neighbouring mappings as it likes (VM_MERGE), so bytes are held here, not mappings.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter

from gomem.tracer.addresses.interval_map import IntervalMap, Piece, cut
from gomem.tracer.events.record import EventKind

# The value of a mapped byte: MAPPED with what /proc/PID/maps shows of it. 0 is an unmapped byte.
MAPPED, READABLE, WRITABLE, EXECUTABLE, SHARED, FILE, GROWSDOWN, UNKNOWN = (1 << bit for bit in range(8))
UNMAPPED = 0
ACCESS = READABLE | WRITABLE | EXECUTABLE
SHOWN = MAPPED | ACCESS | SHARED | FILE

Args = tuple[int, ...]  # the first five arguments of a system call

ADDRESS_SPACE = 1 << 57  # above are the kernel's addresses, also with five levels of page tables
_HEAP = MAPPED | READABLE | WRITABLE

# include/uapi/asm-generic/mman-common.h and mman.h.
_MAP_TYPE, _MAP_SHARED, _MAP_SHARED_VALIDATE = 0x0F, 1, 3
_MAP_FIXED, _MAP_ANONYMOUS, _MAP_GROWSDOWN = 0x10, 0x20, 0x0100
_MAP_HUGETLB, _HUGE_SHIFT, _HUGE_MASK, _MAP_FIXED_NOREPLACE = 0x40000, 26, 0x3F, 0x100000
_PROT_GROWSDOWN = 0x01000000
_MREMAP_FIXED, _MREMAP_DONTUNMAP = 2, 4
_DEFAULT_HUGE = 21

_MOST_RECENT = 64
_MOST_OVERTAKEN = 1024
_ALL_ERRNOS = -4095
_FOR_EACH_PIECE = 10  # steps of work

# What a call does to a range: map or change what the caller named, map what the kernel chose as free, unmap, move away.
_FIXED, _CHOSEN, _UNMAPS, _MOVES = 1, 2, 4, 8
_ORDERED = (_UNMAPS, _CHOSEN, _UNMAPS | _CHOSEN, _MOVES | _CHOSEN)


class MappingModel:
    """Applies system calls in the order of their exits.

    Two calls of different threads that overlap in time may have been carried out in either order. One order matters in
    practice: munmap (or mremap) takes the mapping away early and then works on, so that another thread's mmap gets the
    address and returns before. Such an mmap lands on bytes that are mapped as far as the model knows, which the kernel
    cannot do; when the munmap that was under way then ends, those bytes are spared. Any other pair that overlaps in
    time and in bytes and does not commute is counted in `unordered`, and its bytes kept in `unsure` until the next
    look. So are those of calls that failed after they may have done a part of their work.
    """

    def __init__(self, os_page: int = 4096) -> None:
        self.map = IntervalMap(UNKNOWN)
        self.unordered = 0
        self.unsure: list[tuple[int, int]] = []
        self._page = os_page
        self._break: int | None = None
        # (time, start, end, value): what a mapping that the kernel chose a place for displaced in the model.
        self._overtaken: deque[tuple[int, int, int, int]] = deque(maxlen=_MOST_OVERTAKEN)
        # (start, end, when it ended, what it did) of the last calls, in the order of their ends.
        self._recent: deque[tuple[int, int, int, int]] = deque(maxlen=_MOST_RECENT)
        self._latest = 0

    def reset(self, pieces: list[Piece], heap_end: int | None, elsewhere: int = UNMAPPED) -> None:
        """Start from the pieces of a look; `heap_end`: the break, if it is known."""
        self.map.reset(pieces, elsewhere)
        self.unsure.clear()
        self._overtaken.clear()
        self.correct_break(heap_end)

    def learn_break(self, heap_end: int | None) -> None:
        """Learn from a look where the break was when it began, unless that is known: calls tell where it went."""
        if self._break is None:
            self._break = heap_end

    def correct_break(self, heap_end: int | None) -> None:
        """Believe a look that has shown something else to be wrong."""
        if heap_end is not None and (self._break is None or self._up(self._break) != heap_end):
            self._break = heap_end

    def forget(self) -> None:
        """Know nothing any more: another program runs in the process."""
        self._break = None
        self.reset([], None, UNKNOWN)

    def apply(self, kind: int, entered: int, exited: int, args: Args, result: int) -> None:
        """Apply one call. Most that fail change nothing; those that may have are kept in `unsure`."""
        if _ALL_ERRNOS <= result < 0:
            self._failed(kind, args, -result)
            return
        do = _DONE.get(kind)
        if do is not None:
            do(self, entered, exited, args, result)

    def _up(self, size: int) -> int:
        return size + self._page - 1 & -self._page

    def _mmap(self, entered: int, exited: int, args: Args, result: int) -> None:
        value, page, fixed = mapping_of(args[2], args[3])
        page = page or self._page
        low, high = result, result + (args[1] + page - 1 & -page)
        if not 0 <= low < high <= ADDRESS_SPACE:
            return
        if fixed:
            self._order(entered, exited, low, high, _FIXED)
            self.map.exchange(low, high, value)
        else:
            self._order(entered, exited, low, high, _CHOSEN)
            self._fill(exited, low, high, value)

    def _fill(self, time: int, low: int, high: int, value: int) -> None:
        """Map what the kernel chose; note what the model still has there: another thread is unmapping it."""
        borders, values = self.map.exchange(low, high, value)
        for old in values:
            if old & MAPPED:
                self._expect_free(time, cut(low, high, borders, values))
                break

    def _expect_free(self, time: int, found: list[Piece]) -> None:
        for start, end, old in found:
            if old & MAPPED:
                self._overtaken.append((time, start, end, old))

    def _take_away(self, entered: int, low: int, high: int) -> None:
        if not 0 <= low < high <= ADDRESS_SPACE:
            return
        if self._overtaken and self._overtaken[-1][0] >= entered:
            for start, end, _ in sorted(self._displaced_since(entered, low, high)):
                if start > low:
                    self.map.exchange(low, start, UNMAPPED)
                low = max(low, end)
        self.map.exchange(low, high, UNMAPPED)

    def _displaced_since(self, entered: int, low: int, high: int) -> list[Piece]:
        """Return what was displaced in a range by calls that ended after `entered`."""
        found = []
        self.map.work.add(_FOR_EACH_PIECE * len(self._overtaken))
        for time, start, end, value in reversed(self._overtaken):
            if time < entered:
                break
            if start < high and end > low:
                found.append((max(start, low), min(end, high), value))
        return found

    def _was_displaced(self, entered: int, low: int, high: int) -> bool:
        for start, end, _ in sorted(self._displaced_since(entered, low, high)):
            if start > low:
                break
            low = max(low, end)
        return low >= high

    def _munmap(self, entered: int, exited: int, args: Args, result: int) -> None:
        low = args[0]
        high = low + self._up(args[1])
        self._order(entered, exited, low, high, _UNMAPS)
        self._take_away(entered, low, high)

    def _mprotect(self, entered: int, exited: int, args: Args, result: int) -> None:
        low, high = args[0], args[0] + self._up(args[1])
        if args[2] & _PROT_GROWSDOWN and low < ADDRESS_SPACE:
            low = min(low, self.map.piece_at(low)[0])
        self._order(entered, exited, low, high, _FIXED)
        self._protect(low, high, access(args[2]))

    def _protect(self, low: int, high: int, now: int) -> None:
        if not 0 <= low < high <= ADDRESS_SPACE:
            return
        pieces = self.map.pieces(low, high)
        self.map.work.add(_FOR_EACH_PIECE * len(pieces))
        for start, end, old in pieces:
            if old & MAPPED:
                self.map.exchange(start, end, old & ~ACCESS | now)
            elif old & UNKNOWN:
                # Still unknown, but no longer what a look saw that came before.
                self.map.exchange(start, end, old)

    def _failed(self, kind: int, args: Args, error: int) -> None:
        """Follow the calls that fail half done: do_mprotect_pkey, mremap_to and mmap_region in the kernel's mm/."""
        low, size = args[0], self._up(args[1])
        if kind == EventKind.MPROTECT and error in (errno.ENOMEM, errno.EACCES):
            if not 0 <= low < low + size <= ADDRESS_SPACE:
                return
            hole = next((start for start, _, old in self.map.pieces(low, low + size) if not old), None)
            if error == errno.ENOMEM and hole is not None:
                # It stopped at the hole; without one, some limit stopped it somewhere.
                self._protect(low, hole, access(args[2]))
            else:
                self._doubt(low, low + size)
        elif kind == EventKind.MREMAP:
            # Both come first: what is to shrink is cut, and the place to move to is cleared.
            new_size = self._up(args[2])
            self._doubt(low + new_size, low + size)
            if args[3] & _MREMAP_FIXED:
                self._doubt(args[4], args[4] + new_size)
        elif kind == EventKind.MMAP and args[3] & (_MAP_FIXED | _MAP_FIXED_NOREPLACE) == _MAP_FIXED:
            self._doubt(low, low + size)

    def _doubt(self, low: int, high: int) -> None:
        """Keep a range in which a difference to the next look would be no surprise."""
        if not 0 <= low < high <= ADDRESS_SPACE:
            return
        if len(self.unsure) >= _MOST_OVERTAKEN:
            low = min(low, *(start for start, _ in self.unsure))
            high = max(high, *(end for _, end in self.unsure))
            self.unsure.clear()
        self.unsure.append((low, high))

    def _mremap(self, entered: int, exited: int, args: Args, result: int) -> None:
        old_size, new_size = self._up(args[1]), self._up(args[2])
        old, old_end, new_end = args[0], args[0] + old_size, result + new_size
        if not (0 <= old <= old_end <= ADDRESS_SPACE and 0 <= result < new_end <= ADDRESS_SPACE):
            return
        unmaps = old_size and old != result and not args[3] & _MREMAP_DONTUNMAP
        self._order(entered, exited, old, old_end, _MOVES if unmaps else _FIXED)
        source = self._before(entered, old, max(old_end, old + 1))
        last = source[-1][2]
        if old == result:
            if new_end < old_end:
                self._take_away(entered, new_end, old_end)
            elif new_end > old_end:
                self._order(entered, exited, old_end, new_end, _CHOSEN)
                self._fill(exited, old_end, new_end, last)
            return
        chosen = not args[3] & _MREMAP_FIXED
        self._order(entered, exited, result, new_end, _CHOSEN if chosen else _FIXED)
        if chosen:
            self._expect_free(exited, self.map.pieces(result, new_end))
        moved = [
            (start - old + result, min(end - old + result, new_end), value)
            for start, end, value in source
            if value and start - old < new_size
        ]
        if new_size > old_size and last:
            moved.append((result + old_size, new_end, last))
        if unmaps:
            self._take_away(entered, old, old_end)
        for start, end, value in moved:
            self.map.exchange(start, end, value)

    def _before(self, entered: int, low: int, high: int) -> list[Piece]:
        """Return what was in a range when a call entered, before others were mapped into what it takes away."""
        now = IntervalMap()
        pieces = [*self.map.pieces(low, high), *self._displaced_since(entered, low, high)]
        self.map.work.add(_FOR_EACH_PIECE * len(pieces))
        for start, end, value in pieces:
            now.exchange(start, end, value)
        return now.pieces(low, high)

    def _brk(self, entered: int, exited: int, args: Args, result: int) -> None:
        """Move the break; the call returns where it is, moved or not."""
        end = self._up(result)
        if not 0 <= end <= ADDRESS_SPACE:
            return
        if self._break is not None:
            before = self._up(self._break)
            self._order(entered, exited, min(before, end), max(before, end), _FIXED)
            if end > before:
                self.map.exchange(before, end, _HEAP)
            elif end < before:
                self._take_away(entered, end, before)
        else:
            # The first break that is seen may be anywhere above the last mapping: where it began is not known.
            start, _, value = self.map.piece_at(max(end - 1, 0))
            if value == UNMAPPED:
                self.map.exchange(start, end, UNKNOWN)
        self._break = result

    def _order(self, entered: int, exited: int, low: int, high: int, does: int) -> None:
        """Count this call if one that overlaps it in time and bytes leads elsewhere when carried out the other way."""
        recent = self._recent
        if entered < self._latest:
            for start, end, until, done in reversed(recent):
                if until <= entered:
                    break
                if start < high and end > low and done | does not in _ORDERED:
                    both = max(start, low), min(end, high)
                    # What is done to a new mapping, while that which was there before is still being unmapped.
                    if does in (_UNMAPS, _MOVES) and self._was_displaced(entered, *both):
                        continue
                    self.unordered += 1
                    self._doubt(*both)
        recent.append((low, high, exited, does))
        if exited >= self._latest:
            self._latest = exited
        else:
            self._recent = deque(sorted(recent, key=itemgetter(2)), _MOST_RECENT)


# Not bound to a model: it would be in a circle of references with itself, and outlive its process for a while.
_DONE: dict[int, Callable[[MappingModel, int, int, Args, int], None]] = {
    EventKind.MMAP: MappingModel._mmap,
    EventKind.MUNMAP: MappingModel._munmap,
    EventKind.MPROTECT: MappingModel._mprotect,
    EventKind.MREMAP: MappingModel._mremap,
    EventKind.BRK: MappingModel._brk,
}


@lru_cache(1024)
def mapping_of(prot: int, flags: int) -> tuple[int, int, bool]:
    """Return what an mmap makes: a byte's value, the size of its pages or 0 for that of the OS, is its place fixed."""
    page = 0
    if flags & _MAP_HUGETLB and flags & _MAP_ANONYMOUS:
        page = 1 << (flags >> _HUGE_SHIFT & _HUGE_MASK or _DEFAULT_HUGE)
    shared = flags & _MAP_TYPE in (_MAP_SHARED, _MAP_SHARED_VALIDATE)
    value = MAPPED | access(prot)
    if shared:
        value |= SHARED
    # Shared anonymous memory and huge pages are files of the kernel's own (/dev/zero, /anon_hugepage).
    if not flags & _MAP_ANONYMOUS or shared or flags & _MAP_HUGETLB:
        value |= FILE
    if flags & _MAP_GROWSDOWN:
        value |= GROWSDOWN
    return value, page, flags & (_MAP_FIXED | _MAP_FIXED_NOREPLACE) == _MAP_FIXED


def access(prot: int) -> int:
    """Return the bits of a byte's value for the PROT_ bits of a system call."""
    return (prot & 7) << 1
