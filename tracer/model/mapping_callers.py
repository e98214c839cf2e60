"""Which function mapped what: of the mappings that were made while watching, by others than the Go runtime. Pure.

An address keeps its caller until it is unmapped or mapped anew. mprotect, madvise and page faults change nothing.
"""

from __future__ import annotations

import re
from collections import deque

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.interval_map import IntervalMap, Piece
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.batches import rows_among, table
from gomem.tracer.model.callers import Callers, Chain, is_wrapper

MOST_RANGES = 1 << 16  # a process may have that many mappings, unless vm.max_map_count was raised
NOBODY = 0  # the runtime, or who was not seen: Callers has no chain there
KINDS = frozenset(map(int, (EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.EXEC)))
_TABLE = table(EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.EXEC)
_MOST_RECENT = 64
_ADDRESS_SPACE = 1 << 57
_MREMAP_DONTUNMAP = 4
# What stands between the kernel and who wants a mapping: the packages of system calls, and the way into C.
_PASSING = re.compile(r"(syscall|golang\.org/x/sys/unix|internal/syscall/unix|runtime/cgo)\.|runtime\.cgocall$")


class MappingCallers:
    """Follows who mapped each address; takes events in the order of their ends."""

    def __init__(self, callers: Callers, os_page: int = 4096) -> None:
        self._callers, self._page = callers, os_page
        self._map = IntervalMap(NOBODY, MOST_RANGES)
        self._askers: dict[int, bool] = {}  # by position in callers.chains: whether it is none of the runtime's own
        # (when it ended, start, end, caller) of the last mappings that were made.
        self._recent: deque[tuple[int, int, int, int]] = deque(maxlen=_MOST_RECENT)

    def feed(self, batch: EventBatch, failed: NDArray[np.bool_]) -> None:
        """Take the next events; `failed` is per event."""
        rows = rows_among(batch, _TABLE)
        rows = rows[~failed[rows]]
        if not len(rows):
            return
        events = batch[rows]
        chains = self._callers.label(batch, rows).tolist()
        if len(self._map) == 1 and not any(map(self._asker, set(chains))):
            return  # nothing is anybody's, before and after
        columns = (events[name].tolist() for name in ("kind", "entered", "time", "args", "result"))
        for kind, entered, time, args, result, chain in zip(*columns, chains, strict=True):
            if kind == EventKind.MMAP:
                self._mapped(time, result, self._up(args[1]), self._asker(chain))
            elif kind == EventKind.MUNMAP:
                self._unmapped(entered, args[0], self._up(args[1]))
            elif kind == EventKind.MREMAP:
                self._moved(entered, time, args, result, self._asker(chain))
            else:
                self.forget()

    def forget(self) -> None:
        """Know nothing any more: another program runs, or events were lost."""
        self._map.reset([])
        self._recent.clear()

    def ranges(self) -> list[tuple[int, int, Chain]]:
        """Return the ranges whose callers are known, by address: start, end, callers."""
        return [(start, end, self._callers.chains[value]) for start, end, value in self._map.pieces() if value]

    def _up(self, size: int) -> int:
        return size + self._page - 1 & -self._page

    def _asker(self, chain: int) -> int:
        if chain not in self._askers:
            function = asker(self._callers.chains[chain])
            self._askers[chain] = chain != NOBODY and not (function or "").startswith("runtime.")
        return chain if self._askers[chain] else NOBODY

    def _assign(self, low: int, high: int, value: int) -> None:
        if 0 <= low < high <= _ADDRESS_SPACE and not (value == NOBODY and len(self._map) == 1):
            self._map.assign(low, high, value)

    def _mapped(self, time: int, start: int, size: int, caller: int) -> None:
        self._assign(start, start + size, caller)
        if caller != NOBODY:
            self._recent.append((time, start, start + size, caller))

    def _unmapped(self, entered: int, start: int, size: int) -> None:
        """Forget a range, but for what another thread got there while this call was still under way."""
        end = start + size
        self._assign(start, end, NOBODY)
        for time, low, high, caller in self._recent:
            if time > entered and low < end and high > start:
                self._assign(max(low, start), min(high, end), caller)

    def _moved(self, entered: int, time: int, args: list[int], result: int, caller: int) -> None:
        old, old_size, size = args[0], self._up(args[1]), self._up(args[2])
        if not 0 <= old <= old + old_size <= _ADDRESS_SPACE:
            return
        before: list[Piece] = self._map.pieces(old, old + max(old_size, 1))
        if not args[3] & _MREMAP_DONTUNMAP:
            self._unmapped(entered, old, old_size)
        whole = max((piece for piece in before if piece[2]), key=lambda piece: piece[1] - piece[0], default=None)
        self._mapped(time, result, size, whole[2] if whole is not None else caller)


def asker(chain: Chain) -> str | None:
    """Return the innermost function that wanted something of the kernel for itself; None where no address has a name.

    That is none of the packages that only make system calls, and none of the runtime's way into C.
    """
    known = [name.removesuffix(".abi0") for name in chain.callers if not name.startswith("0x")]
    return next((name for name in known if not is_wrapper(name) and not _PASSING.match(name)), chain.function)
