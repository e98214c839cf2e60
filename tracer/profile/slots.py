"""Pages in use by what is in them: objects, free slots, and what is left behind the last slot of a span. Pure.

The runtime counts the slots of each span, and the kernel says which of its OS pages are in RAM. Where all of them are,
the bytes of objects and of free slots are exact. Where only some are, each has the share that it has of the span.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.kernel.residency import Residency
from gomem.tracer.runtime.pages import PAGE, PageState
from gomem.tracer.runtime.spans import IN_USE, Spans
from gomem.tracer.snapshot.join import Addresses, AddressSpace

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of address space and how many of them are in RAM, of many things: shape (n,) each."""

    virtual: Integers
    resident: Integers

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(self.virtual + other.virtual, self.resident + other.resident)

    def __sub__(self, other: Sizes) -> Sizes:
        return Sizes(self.virtual - other.virtual, self.resident - other.resident)

    def total(self) -> tuple[int, int]:
        """Return the sums."""
        return int(self.virtual.sum()), int(self.resident.sum())

    def at(self, some: Integers | NDArray[np.bool_]) -> Sizes:
        """Return some of them, by their indices or a mask."""
        return Sizes(self.virtual[some], self.resident[some])

    def grouped(self, which: Integers, count: int) -> Sizes:
        """Return the sums of those that `which` (shape (n,)) gives the same number below `count`."""
        sums = np.zeros((2, count), np.int64)
        np.add.at(sums[0], which, self.virtual)
        np.add.at(sums[1], which, self.resident)
        return Sizes(sums[0], sums[1])


@dataclass(frozen=True, slots=True)
class Slots:
    """What is in the pages in use. All of it sums to them."""

    slot_size: Integers  # ascending, shape (n,)
    objects: Sizes  # by the size of their slots, shape (n,)
    unswept: Sizes  # those of them that are in spans which are not swept yet
    free: Sizes  # free slots of each span, shape (m,)
    tails: Sizes  # behind the last slot of each span, shape (m,)
    no_span: Sizes  # pages in use that are in no span, shape (1,)


def slots_of(spans: Spans, space: AddressSpace, residency: Residency) -> Slots:
    """Return what is in the pages in use of `space`."""
    pages = PagesIn(space, residency, PageState.IN_USE)
    mask = np.flatnonzero(spans.with_state(IN_USE))
    mask = mask[np.argsort(spans.start[mask], kind="stable")]
    length = spans.pages[mask].astype(np.int64) * PAGE
    whole = pages.between(spans.start[mask], spans.start[mask] + length.astype(np.uint64))
    size = spans.object_size[mask].astype(np.int64)
    used = _share(whole, spans.objects[mask] * size, length)
    in_slots = _share(whole, spans.capacity[mask] * size, length)
    slot_size, which = np.unique(size, return_inverse=True)
    unswept = np.flatnonzero(spans.unswept[mask]) if spans.unswept is not None else np.zeros(0, np.int64)
    return Slots(
        slot_size,
        used.grouped(which, len(slot_size)),
        used.at(unswept).grouped(which[unswept], len(slot_size)),
        in_slots - used,
        whole - in_slots,
        pages.all() - whole.grouped(np.zeros(len(mask), np.int64), 1),
    )


class PagesIn:
    """The heap pages in one state, and what of them lies below an address."""

    def __init__(self, space: AddressSpace, residency: Residency, state: PageState) -> None:
        """Take them from a joined look."""
        mask = np.flatnonzero(space.page == state)
        self._start, self._end = space.start[mask], space.end[mask]
        self._each = Sizes((self._end - self._start).astype(np.int64), space.resident[mask].astype(np.int64))
        self._residency = residency

    def all(self) -> Sizes:
        """Return the sizes of all of them, shape (1,)."""
        return self._each.grouped(np.zeros(len(self._start), np.int64), 1)

    def between(self, start: Addresses, end: Addresses) -> Sizes:
        """Return what of them is in ranges in order of their starts; what is in two of these counts for the first."""
        if not len(start) or not len(self._start):
            return Sizes(np.zeros(len(start), np.int64), np.zeros(len(start), np.int64))
        end = np.maximum.accumulate(end)
        start = np.maximum(start, np.concatenate((start[:1], end[:-1])))
        return self._below(end) - self._below(np.minimum(start, end))

    def _below(self, point: Addresses) -> Sizes:
        at = np.maximum(np.searchsorted(self._start, point, side="right") - 1, 0)
        first = self._start[at]
        last = np.minimum(np.maximum(point, first), self._end[at])
        resident = np.minimum(self._residency.rss_in(first, last).astype(np.int64), self._each.resident[at])
        before = Sizes(*(np.cumsum(each) - each for each in (self._each.virtual, self._each.resident)))
        return Sizes(before.virtual[at] + (last - first).astype(np.int64), before.resident[at] + resident)


def _share(whole: Sizes, part: Integers, of: Integers) -> Sizes:
    """Return how much of each span in `whole` is in its first `part` bytes `of` so many; to the byte where all is."""
    share = part / np.maximum(of, 1)

    def each(size: Integers) -> Integers:
        return np.minimum(np.where(size == of, part, np.floor(size * share).astype(np.int64)), size)

    return Sizes(each(whole.virtual), each(whole.resident))
