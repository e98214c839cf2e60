"""Allocations that were counted, all of them or in bursts, as a section of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.events.allocations import NO_SITE, ROW_TINY, ROW_ZERO, AllocationCounts, Counted, no_allocations
from gomem.tracer.model.allocation_estimates import AllocationEstimates, slot_bytes
from gomem.tracer.report import AllocationClass, Allocations, AllocationSite, AllocationType
from gomem.tracer.runtime.allocated import Allocated
from gomem.tracer.runtime.size_classes import SizeClasses

TOP_TYPES, TOP_SITES = 50, 50
Place = Callable[[int], tuple[str | None, str, int, int]]
"""Function, file, line, and address within the calling instruction, of a call site."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How allocations were watched for. `complete`: all the time; else in bursts within `budget` (a share).

    `seconds` is for how long the probes were on.
    """

    complete: bool
    bursts: int
    seconds: float
    budget: float
    hit_seconds: float | None


class AllocationSums:
    """All that was counted, and what the runtime counted in the same time."""

    def __init__(self, sizes: SizeClasses) -> None:
        self.sizes = sizes
        self._estimates = AllocationEstimates(sizes)
        self._seen = no_allocations()
        self._taken = no_allocations()  # of that, what estimates know of
        self._first: Allocated | None = None
        self._before: Allocated | None = None  # shortly before the burst that goes on
        self._last: Allocated | None = None  # what was read last
        self._now: Allocated | None = None

    def begin(self, runtime: Allocated | None) -> None:
        """Set the moment from which on everything counts."""
        self._first = self._before = self._last = self._now = runtime

    def before(self, runtime: Allocated | None) -> None:
        """Take what the runtime has counted shortly before a burst."""
        self._before = runtime

    def add(self, seen: AllocationCounts, runtime: Allocated | None) -> None:
        """Take what has been counted until now, shortly after a burst; `runtime` None: it cannot be read any more."""
        self.end(seen, runtime)
        if runtime is not None and self._before is not None:
            self._estimates.add(seen.since(self._taken), runtime.since(self._before))
        self._taken, self._before = seen, runtime

    def end(self, seen: AllocationCounts, runtime: Allocated | None) -> None:
        """Take the last counts."""
        self._seen, self._now = seen, runtime
        self._last = runtime or self._last

    def section(self, watch: Watch, seconds: float, name: Callable[[int], str | None], place: Place) -> Allocations:
        """Return the report's section; `seconds`: the whole time of watching.

        `name` finds the name of a type by its address, and `place` where the call site of a number is.
        """
        seen, sizes = self._seen, self.sizes
        runtime = self._runtime(complete=watch.complete)
        counted = runtime.objects(sizes.tiny_class) if runtime is not None else None
        rows = seen.rows
        objects = int(rows["count"].sum() - rows["count"][ROW_ZERO])
        runtime_objects = int(counted.sum()) if counted is not None else None
        types, more = self._types(None if watch.complete else runtime, name)
        sites, other = self._sites(None if watch.complete else runtime, place)
        watched = min(watch.seconds, seconds)
        return Allocations(
            complete=watch.complete,
            bursts=watch.bursts,
            watched_seconds=watched,
            watched_share=watched / seconds if seconds > 0 else 0.0,
            budget=watch.budget,
            hit_seconds=watch.hit_seconds,
            objects=objects,
            asked=int(rows["asked"].sum()),
            zero_size=int(rows["count"][ROW_ZERO]),
            runtime_objects=runtime_objects,
            runtime_bytes=int(held_bytes(runtime, sizes).sum()) if runtime is not None else None,
            coverage=min(objects / runtime_objects, 1.0) if runtime_objects else None,
            classes=self._classes(watch, runtime, counted),
            types=types,
            more_types=len(more),
            more_objects=sum(row.objects for row in more),
            more_bytes=sum(row.bytes for row in more),
            untold_objects=seen.untold[0],
            sites=sites,
            more_sites=len(other),
            more_site_objects=sum(row.objects for row in other),
            more_site_bytes=sum(row.bytes for row in other),
            unsited_objects=sum(
                sums[0] for (site, row), sums in seen.sites.items() if site == NO_SITE and row != ROW_ZERO
            ),
            unseen_classes=0 if watch.complete or runtime is None else self._estimates.unseen(runtime),
        )

    def _runtime(self, *, complete: bool) -> Allocated | None:
        """Return what the runtime has counted: to the end, or of a process that has ended, to the last burst."""
        now = self._now if self._now is not None or complete else self._last
        return now.since(self._first) if now is not None and self._first is not None else None

    def _classes(
        self, watch: Watch, runtime: Allocated | None, counted: NDArray[np.int64] | None
    ) -> list[AllocationClass]:
        sizes, rows = self.sizes, self._seen.rows
        held = held_bytes(runtime, sizes) if runtime is not None else None
        found = []
        for number, size in enumerate(sizes.sizes):
            scan, noscan = (int(rows["count"][2 * number + bit]) for bit in (0, 1))
            tiny = int(rows["count"][ROW_TINY]) if number == sizes.tiny_class else 0
            if not (scan or noscan or tiny or (counted is not None and counted[number])):
                continue
            whole = None if watch.complete else runtime
            found.append(
                AllocationClass(
                    size_class=number,
                    object_size=size,
                    scan=scan,
                    noscan=noscan,
                    tiny=tiny,
                    asked=int(rows["asked"][2 * number : 2 * number + 2].sum())
                    + (int(rows["asked"][ROW_TINY]) if tiny else 0),
                    runtime_objects=int(counted[number]) if counted is not None else None,
                    runtime_bytes=int(held[number]) if held is not None else None,
                    estimated_objects=self._estimates.of_class(number, whole) if whole is not None else None,
                )
            )
        return found

    def _types(
        self, runtime: Allocated | None, name: Callable[[int], str | None]
    ) -> tuple[list[AllocationType], list[AllocationType]]:
        """Return the types with the most bytes, with their names, and the others.

        With what the `runtime` has counted their parts of that are estimated.
        """
        rows = [self._type(address, by_row, runtime) for address, by_row in _by_row(self._seen.types).items()]
        rows.sort(key=_weight, reverse=True)
        top = [replace(row, name=name(row.address)) if row.address is not None else row for row in rows[:TOP_TYPES]]
        return top, rows[TOP_TYPES:]

    def _type(
        self, address: int, by_row: Mapping[int, tuple[int, int, int]], runtime: Allocated | None
    ) -> AllocationType:
        estimates = self._estimates.of_type(address, by_row, runtime) if runtime is not None else None
        return AllocationType(
            name=None,
            address=address or None,
            pointers=any(row != ROW_TINY and not row & 1 for row in by_row),
            objects=sum(sums[0] for sums in by_row.values()),
            bytes=self._bytes(by_row),
            estimated_objects=estimates[0] if estimates else None,
            estimated_bytes=estimates[1] if estimates else None,
        )

    def _sites(self, runtime: Allocated | None, place: Place) -> tuple[list[AllocationSite], list[AllocationSite]]:
        """Return the call sites with the most bytes, and the others."""
        found = _by_row(self._seen.sites)
        rows = [self._site(place(site), by_row, site, runtime) for site, by_row in found.items() if site != NO_SITE]
        rows.sort(key=_weight, reverse=True)
        return rows[:TOP_SITES], rows[TOP_SITES:]

    def _site(
        self,
        place: tuple[str | None, str, int, int],
        by_row: Mapping[int, tuple[int, int, int]],
        number: int,
        runtime: Allocated | None,
    ) -> AllocationSite:
        function, file, line, address = place
        estimates = self._estimates.of_site(number, by_row, runtime) if runtime is not None else None
        return AllocationSite(
            function=function,
            file=file or None,
            line=line or None,
            address=None if function is not None else address,
            objects=sum(sums[0] for sums in by_row.values()),
            bytes=self._bytes(by_row),
            estimated_objects=estimates[0] if estimates else None,
            estimated_bytes=estimates[1] if estimates else None,
        )

    def _bytes(self, by_row: Mapping[int, tuple[int, int, int]]) -> int:
        return sum(slot_bytes(row, sums, self.sizes) for row, sums in by_row.items())


def _by_row(counted: Counted) -> dict[int, dict[int, tuple[int, int, int]]]:
    found: dict[int, dict[int, tuple[int, int, int]]] = defaultdict(dict)
    for (whose, row), sums in counted.items():
        if row != ROW_ZERO:
            found[whose][row] = sums
    return found


def _weight(row: AllocationType | AllocationSite) -> tuple[float, int]:
    return (row.estimated_bytes.value if row.estimated_bytes is not None else row.bytes, row.objects)


def held_bytes(runtime: Allocated, sizes: SizeClasses) -> NDArray[np.int64]:
    """Return the bytes that the runtime counts by size class, as MemStats.TotalAlloc has them; shape (68,)."""
    held: NDArray[np.int64] = runtime.small * np.array(sizes.sizes, np.int64)
    held[0] = runtime.large_bytes
    return held
