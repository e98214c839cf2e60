"""Allocations that were counted in bursts, and what follows from them for the whole time.

A burst is a cluster: its allocations come from the same few loops, so thousands of them say little more than one. Of a
burst only shares are used, never rates: while probes are on, a target is slower. Its weight is what the runtime itself
has counted shortly before, in, and after it, when the target was at its usual speed: of busy moments there is more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.events.allocations import ROW_TINY, ROW_ZERO, AllocationCounts, no_allocations
from gomem.tracer.report import AllocationClass, Allocations, AllocationType, Estimate
from gomem.tracer.runtime.allocated import Allocated
from gomem.tracer.runtime.size_classes import SizeClasses

TOP_TYPES = 50
_MOST_SHARES = 1 << 17  # that are remembered over all bursts
# Student's t for 95 %, by degrees of freedom less one; beyond, it is near to the normal distribution's.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.96


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


@dataclass(slots=True)
class _Share:
    """Sums over bursts, each of weight w, of which something had the share p: of w p, w^2 p and w^2 p^2."""

    first: float = 0.0
    crossed: float = 0.0
    squared: float = 0.0


@dataclass(slots=True)
class _Shares:
    """How a whole divides, by bursts that each saw some of it. `weights` and `squares` are sums over all bursts."""

    bursts: int = 0
    weights: float = 0.0
    squares: float = 0.0
    of: dict[int, _Share] = field(default_factory=dict)

    def add(self, weight: float, shares: Mapping[int, float], most: int) -> None:
        """Take a burst: how much there was around it, and how that was divided among those that it saw."""
        self.bursts += 1
        self.weights += weight
        self.squares += weight**2
        for key, share in shares.items():
            if key not in self.of and len(self.of) >= most:
                continue
            sums = self.of.setdefault(key, _Share())
            sums.first += weight * share
            sums.crossed += weight**2 * share
            sums.squared += (weight * share) ** 2

    def part(self, key: int) -> tuple[float, float | None]:
        """Return the share of the whole, and how far off it may be; None with one burst.

        A ratio estimator: its variance is that of the residuals w (p - P), and bursts of unequal weight count as fewer.
        """
        sums = self.of.get(key, _Share())
        share = sums.first / self.weights
        if self.bursts < 2:
            return share, None
        residuals = max(sums.squared - 2 * share * sums.crossed + share**2 * self.squares, 0.0)
        variance = residuals / self.weights**2 * self.bursts / (self.bursts - 1)
        freedom = max(round(self.weights**2 / self.squares) - 1, 1)
        return share, float(np.sqrt(variance)) * (_STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL)


@dataclass(slots=True)
class _Sum:
    """A sum of estimates, with their reaches added up: nobody knows how much they go together."""

    value: float = 0.0
    reach: float | None = 0.0

    def add(self, whole: float, part: tuple[float, float | None], factor: float = 1.0) -> None:
        share, reach = part
        self.value += whole * share * factor
        self.reach = None if reach is None or self.reach is None else self.reach + whole * reach * factor

    def estimate(self) -> Estimate:
        if self.reach is None:
            return Estimate(self.value, None, None)
        return Estimate(self.value, max(self.value - self.reach, 0.0), self.value + self.reach)


class AllocationEstimates:
    """Takes burst after burst; each with what the runtime has counted shortly before, in, and after it."""

    def __init__(self, sizes: SizeClasses) -> None:
        self._sizes = sizes
        self._classes = _Shares()  # of all objects
        self._types = [_Shares() for _ in sizes.sizes]  # of the objects of each size class, by type << 8 | row
        self._large = _Shares()  # of the bytes of large objects, by the same

    def add(self, seen: AllocationCounts, around: Allocated) -> None:
        """Take a burst, and what there was around it."""
        weights = around.objects(self._sizes.tiny_class)
        objects = _objects_by_class(seen, self._sizes)
        if not objects.sum() or not weights.sum():
            return
        shares = {int(at): float(objects[at] / objects.sum()) for at in np.flatnonzero(objects)}
        self._classes.add(float(weights.sum()), shares, len(self._sizes.sizes))
        by_class: dict[int, dict[int, float]] = defaultdict(dict)
        for (address, row), (count, _, pages) in seen.types.items():
            if row == ROW_ZERO:
                continue
            by_class[class_of(row, self._sizes)][address << 8 | row] = float(count)
            if row < 2:
                by_class[_LARGE_BYTES][address << 8 | row] = float(pages)
        for number, counts in by_class.items():
            whole = sum(counts.values())
            of_large = number == _LARGE_BYTES
            weight = around.large_bytes if of_large else int(weights[number])
            into = self._large if of_large else self._types[number]
            into.add(float(max(weight, whole)), {key: count / whole for key, count in counts.items()}, _MOST_SHARES)

    def of_class(self, number: int, runtime: Allocated) -> Estimate | None:
        """Return how many objects a size class had in the whole time, by its share of bursts; None if none saw any."""
        if number not in self._classes.of:
            return None
        found = _Sum()
        found.add(float(runtime.objects(self._sizes.tiny_class).sum()), self._classes.part(number))
        return found.estimate()

    def of_type(
        self, address: int, rows: Mapping[int, tuple[int, int, int]], runtime: Allocated
    ) -> tuple[Estimate, Estimate] | None:
        """Return the objects and the bytes of a type in the whole time; None without any burst.

        `rows`: what was seen of it, by row.
        """
        if not self._classes.bursts:
            return None
        counted = runtime.objects(self._sizes.tiny_class)
        objects, held = _Sum(), _Sum()
        for row, sums in rows.items():
            number, key = class_of(row, self._sizes), address << 8 | row
            shares = self._types[number]
            if not shares.bursts:
                continue
            part, whole = shares.part(key), float(counted[number])
            objects.add(whole, part)
            if row < 2:
                held.add(float(runtime.large_bytes), self._large.part(key))
            else:
                held.add(whole, part, slot_bytes(row, sums, self._sizes) / sums[0])
        return objects.estimate(), held.estimate()

    def unseen(self, runtime: Allocated) -> int:
        """Return the objects of size classes of which no burst saw any."""
        counted = runtime.objects(self._sizes.tiny_class)
        return sum(int(counted[at]) for at, shares in enumerate(self._types) if not shares.bursts)


_LARGE_BYTES = -1


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

    def section(self, watch: Watch, seconds: float, name: Callable[[int], str | None]) -> Allocations:
        """Return the report's section; `seconds`: the whole time of watching; `name` finds the name of a type."""
        seen, sizes = self._seen, self.sizes
        runtime = self._runtime(complete=watch.complete)
        counted = runtime.objects(sizes.tiny_class) if runtime is not None else None
        rows = seen.rows
        objects = int(rows["count"].sum() - rows["count"][ROW_ZERO])
        runtime_objects = int(counted.sum()) if counted is not None else None
        types, more = self._types(None if watch.complete else runtime, name)
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
        found: dict[int, dict[int, tuple[int, int, int]]] = defaultdict(dict)
        for (address, row), sums in self._seen.types.items():
            if row != ROW_ZERO:
                found[address][row] = sums
        rows = [self._type(address, by_row, runtime) for address, by_row in found.items()]
        rows.sort(key=_weight, reverse=True)
        top = [_named(row, name) for row in rows[:TOP_TYPES]]
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
            bytes=sum(slot_bytes(row, sums, self.sizes) for row, sums in by_row.items()),
            estimated_objects=estimates[0] if estimates else None,
            estimated_bytes=estimates[1] if estimates else None,
        )


def _weight(row: AllocationType) -> tuple[float, int]:
    return (row.estimated_bytes.value if row.estimated_bytes is not None else row.bytes, row.objects)


def _named(row: AllocationType, name: Callable[[int], str | None]) -> AllocationType:
    return replace(row, name=name(row.address)) if row.address is not None else row


def class_of(row: int, sizes: SizeClasses) -> int:
    """Return the size class of a row of counts."""
    return sizes.tiny_class if row == ROW_TINY else row >> 1


def slot_bytes(row: int, sums: tuple[int, int, int], sizes: SizeClasses) -> int:
    """Return the bytes of the slots or pages of some allocations; of tiny ones what was asked for."""
    count, asked, pages = sums
    if row == ROW_TINY:
        return asked
    return count * sizes.sizes[row >> 1] if row >> 1 else pages


def held_bytes(runtime: Allocated, sizes: SizeClasses) -> NDArray[np.int64]:
    """Return the bytes that the runtime counts by size class, as MemStats.TotalAlloc has them; shape (68,)."""
    held: NDArray[np.int64] = runtime.small * np.array(sizes.sizes, np.int64)
    held[0] = runtime.large_bytes
    return held


def _objects_by_class(seen: AllocationCounts, sizes: SizeClasses) -> NDArray[np.int64]:
    objects = np.zeros(len(sizes.sizes), np.int64)
    for row in np.flatnonzero(seen.rows["count"]).tolist():
        if row != ROW_ZERO:
            objects[class_of(row, sizes)] += int(seen.rows["count"][row])
    return objects
