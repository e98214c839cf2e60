"""What a Go runtime's requests for address space look like, for logs that have nothing but system calls.

Recognised by size, place and order of the calls, never proven: another program may ask for the same. A live process
is never read in this way.

Source: mpagealloc_64bit.go (sysInit), malloc.go (mallocinit, heapArenaBytes, arena hints; 64-bit systems but Windows,
iOS and wasm), malloc.go (persistentalloc) of Go 1.14 to 1.27, and Go 1.11 to 1.13, which have no page summaries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.model.sizes import failed_calls

_SUMMARIES = tuple(8 << bits for bits in (14, 17, 20, 23, 26))  # 8 bytes an entry: 128 KB to 512 MB
_SCAVENGE_INDEX = (8 << 20, 512 << 20)  # Go 1.19, and from 1.20 on
_ARENA = 64 << 20
_HEAP_INDEX = 32 << 20
_PERSISTENT = 256 << 10
_PROT_NONE, _READ_WRITE = 0, 3
_FIXED, _ANONYMOUS, _PRIVATE = 0x10, 0x20, 0x02
MOST_HINTS = 10_000

By = Literal["size and order", "size and address", "size and alignment", "size"]


@dataclass(frozen=True, slots=True)
class GoHint:
    """A range that looks like one of the Go runtime's, and by what it does."""

    start: int
    size: int
    what: str
    by: By

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.start + self.size


class GoHints:
    """Looks at mmap calls in their order and remembers what they look like."""

    def __init__(self) -> None:
        self.found: list[GoHint] = []
        self._level = 0  # how many page summaries came in a row
        self.summaries_complete = False
        self._arenas = 0

    def feed(self, batch: EventBatch) -> None:
        """Take the next events."""
        some = np.isin(batch["kind"], (EventKind.MMAP, EventKind.MUNMAP)) & ~failed_calls(batch)
        columns = (batch[name][some].tolist() for name in ("kind", "args", "result"))
        for kind, args, result in zip(*columns, strict=True):
            wanted, size, prot, flags = args[:4]
            if kind == EventKind.MUNMAP:
                # An arena that the kernel put elsewhere than asked is given back, and asked for at the next hint.
                self.found = [one for one in self.found if not (wanted <= one.start and one.end <= wanted + size)]
                continue
            if flags & (_ANONYMOUS | _PRIVATE) != _ANONYMOUS | _PRIVATE or flags & _FIXED:
                continue
            hint = self._reservation(wanted, size, result) if prot == _PROT_NONE else None
            if prot == _READ_WRITE and not wanted:
                hint = self._allocation(size, result)
            if hint is not None and len(self.found) < MOST_HINTS:
                self.found.append(hint)

    def _reservation(self, wanted: int, size: int, start: int) -> GoHint | None:
        if not wanted:
            return self._summary(size, start)
        if size % _ARENA or start % _ARENA:
            return None
        self._arenas += 1
        by: By = "size and address" if _is_hint(wanted) and start == wanted else "size and alignment"
        return GoHint(start, size, "heap arena", by)

    def _summary(self, size: int, start: int) -> GoHint | None:
        if self.summaries_complete:
            if size in _SCAVENGE_INDEX and not self._arenas:
                return GoHint(start, size, "scavenge index", "size and order")
            return None
        self._level = self._level + 1 if size == _SUMMARIES[self._level] else int(size == _SUMMARIES[0])
        if not self._level:
            return None
        hint = GoHint(start, size, f"page summaries, level {self._level - 1}", "size and order")
        if self._level == len(_SUMMARIES):
            self.summaries_complete = True
        return hint

    def _allocation(self, size: int, start: int) -> GoHint | None:
        if size == _HEAP_INDEX and self._arenas:
            return GoHint(start, size, "index of the heap's arenas", "size and order")
        if size == _PERSISTENT and (self.summaries_complete or self._arenas):
            return GoHint(start, size, "runtime's own records (persistentalloc)", "size")
        return None


def _is_hint(address: int) -> bool:
    """Tell whether mallocinit of amd64 or arm64 would ask for this address first (without randomisation)."""
    step, base = divmod(address, 1 << 40)
    return step < 0x80 and any(0 <= base - hint < 1 << 36 for hint in (0x00C0 << 32, 0x0040 << 32, 0x0013 << 28))


def hint_at(hints: list[GoHint], starts: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> list[GoHint | None]:
    """Return for each address the last hint whose range holds it, or None."""
    ordered = sorted(hints, key=lambda hint: hint.start)
    bases = np.array([hint.start for hint in ordered], np.uint64)
    found: list[GoHint | None] = []
    for start, at in zip(starts.tolist(), (np.searchsorted(bases, starts, side="right") - 1).tolist(), strict=True):
        hint = ordered[at] if at >= 0 else None
        found.append(hint if hint is not None and start < hint.end else None)
    return found
