"""What is in RAM between two looks, as far as the kernel was asked to count it: roles page-faults and rss.

Pure: RSS, RSS_PEAK and PAGE_FAULTS events in, rows of the report out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from gomem.tracer.events.record import RESIDENCY_KINDS, EventBatch, EventKind
from gomem.tracer.model.batches import rows_among, table
from gomem.tracer.report import KINDS, FaultRow, LiveResident, PageFaults, ResidentSizes
from gomem.tracer.snapshot.join import AddressSpace

GRANULES = 64  # of a region
_RESIDENCY = table(*RESIDENCY_KINDS)
_MOST_REGIONS = 1 << 16
_TOP = 1 << 64
UNMAPPED = "unmapped"  # where faults were and nothing is mapped any longer


class _Region(Struct):
    faults: int = 0
    touched: int = 0  # bits, the lowest for the first granule


class LiveResidency(Struct):
    """Sums up the events of one process. A hostile recording cannot make it hold more than _MOST_REGIONS regions."""

    faults_seen: bool = False
    told_at: int = 0  # when the resident bytes were told last, CLOCK_MONOTONIC ns
    _regions: dict[tuple[int, int], _Region] = field(default_factory=dict)
    _sums: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # faults, by the kernel, writes, present
    _unplaced: int = 0
    _now: list[int] | None = None
    _peak: list[int] = field(default_factory=lambda: [0] * 5)
    _changes: int = 0

    def feed(self, batch: EventBatch) -> None:
        """Take the next events; others than those of the residency are passed over."""
        some = batch[rows_among(batch, _RESIDENCY)]
        columns = (some[name].tolist() for name in ("kind", "time", "args", "result"))
        for kind, time, args, result in zip(*columns, strict=True):
            if kind == EventKind.PAGE_FAULTS:
                self._fault(args, result)
            elif kind == EventKind.RSS:
                self._now, self.told_at = args[:4], time
                self._changes += args[4]
            else:
                self._peak = [max(pair) for pair in zip(self._peak, args[:5], strict=True)]

    def _fault(self, args: list[int], present: int) -> None:
        address, size, faults, touched, by_kernel, writes = args
        self.faults_seen = True
        self._sums = [a + b for a, b in zip(self._sums, (faults, by_kernel, writes, max(present, 0)), strict=True)]
        key = (address, size)
        if not 0 < size <= _TOP - address or size % GRANULES:
            self._unplaced += faults
            return
        region = self._regions.get(key)
        if region is None:
            if len(self._regions) >= _MOST_REGIONS:
                self._unplaced += faults
                return
            region = self._regions[key] = _Region()
        region.faults += faults
        region.touched |= touched

    def resident(self) -> LiveResident | None:
        """Return the resident bytes by the last event, and their peak; None without any."""
        if self._now is None:
            return None
        now = [sum(self._now[:3]), *self._now]
        peak = [max(pair) for pair in zip([self._peak[4], *self._peak[:4]], now, strict=True)]
        return LiveResident(ResidentSizes(*now), ResidentSizes(*peak), self._changes)

    def page_faults(self, space: AddressSpace | None, seconds: float) -> PageFaults | None:
        """Return the page faults by what is mapped now where they happened; None without any event of them.

        `space`: the address space at the last look; `seconds`: for how long faults were counted.
        """
        if not self.faults_seen:
            return None
        faults, by_kernel, writes, present = self._sums
        return PageFaults(
            count=faults,
            by_kernel=by_kernel,
            writes=writes,
            present=present,
            unplaced=self._unplaced,
            per_second=round(faults / seconds, 1) if seconds > 0 else None,
            kinds=_by_kind(self._regions, space) if space is not None else None,
        )


def _by_kind(regions: dict[tuple[int, int], _Region], space: AddressSpace) -> list[FaultRow]:
    """Divide each region's faults among the kinds of what was touched in it, by the number of granules."""
    kinds = [*KINDS, UNMAPPED]
    faults, touched = [0] * len(kinds), [0] * len(kinds)
    for (address, size), region in regions.items():
        granule = size // GRANULES
        bits = region.touched or 1
        starts = address + granule * np.flatnonzero([bits >> at & 1 for at in range(GRANULES)]).astype(np.uint64)
        found, counts = np.unique(_kinds_at(space, starts), return_counts=True)
        shares = divided(region.faults, counts.tolist())
        for kind, count, share in zip(found.tolist(), counts.tolist(), shares, strict=True):
            faults[kind] += share
            touched[kind] += granule * count if region.touched else 0
    rows = [FaultRow(*row) for row in zip(kinds, faults, touched, strict=True) if row[1]]
    return sorted(rows, key=lambda row: -row.faults)


def divided(total: int, weights: Sequence[int]) -> list[int]:
    """Divide `total` by weights into whole numbers that add up to it."""
    shares = []
    rest, weight = total, sum(weights)
    for one in weights:
        shares.append(rest * one // weight)
        rest, weight = rest - shares[-1], weight - one
    return shares


def _kinds_at(space: AddressSpace, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the index in KINDS of what is mapped at each address, len(KINDS) for nothing."""
    if not len(space.start):
        return np.full(len(addresses), len(KINDS), np.int64)
    at = np.maximum(np.searchsorted(space.start, addresses, side="right").astype(np.int64) - 1, 0)
    inside = (addresses >= space.start[at]) & (addresses < space.end[at])
    return np.where(inside, space.kind[at], len(KINDS)).astype(np.int64)
