"""What bursts say of the whole: estimates, and how far off they may be.

A burst is a cluster: its allocations come from the same few loops, so thousands of them say little more than one. Of a
burst only shares are used, never rates: while probes are on, a target is slower. Its weight is what the runtime itself
has counted shortly before, in, and after it, when the target was at its usual speed: of busy moments there is more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.events.allocations import ROW_TINY, ROW_ZERO, AllocationCounts, Counted
from gomem.tracer.report import Estimate
from gomem.tracer.runtime.allocated import Allocated
from gomem.tracer.runtime.size_classes import SizeClasses

_MOST_SHARES = 1 << 17  # that are remembered over all bursts
_LARGE_BYTES = -1  # beside the numbers of size classes
# Student's t for 95 %, by degrees of freedom less one; beyond, it is near to the normal distribution's.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.96


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


class _Parts:
    """How the objects of each size class divide among types, or call sites: among `whose` they are."""

    def __init__(self, sizes: SizeClasses) -> None:
        self._sizes = sizes
        self.classes = [_Shares() for _ in sizes.sizes]  # of the objects of each size class, by whose << 8 | row
        self._large = _Shares()  # of the bytes of large objects, by the same

    def add(self, seen: Counted, weights: NDArray[np.int64], large_bytes: int) -> None:
        """Take a burst, and what there was around it: objects by size class, and bytes of large ones."""
        by_class: dict[int, dict[int, float]] = defaultdict(dict)
        for (whose, row), (count, _, pages) in seen.items():
            if row == ROW_ZERO:
                continue
            by_class[class_of(row, self._sizes)][whose << 8 | row] = float(count)
            if row < 2:
                by_class[_LARGE_BYTES][whose << 8 | row] = float(pages)
        for number, counts in by_class.items():
            whole = sum(counts.values())
            if not whole:
                continue
            of_large = number == _LARGE_BYTES
            weight = large_bytes if of_large else int(weights[number])
            into = self._large if of_large else self.classes[number]
            into.add(float(max(weight, whole)), {key: count / whole for key, count in counts.items()}, _MOST_SHARES)

    def of(self, whose: int, rows: Mapping[int, tuple[int, int, int]], runtime: Allocated) -> tuple[Estimate, Estimate]:
        """Return the objects and the bytes in the whole time; `rows`: what was seen of them, by row."""
        counted = runtime.objects(self._sizes.tiny_class)
        objects, held = _Sum(), _Sum()
        for row, sums in rows.items():
            number, key = class_of(row, self._sizes), whose << 8 | row
            shares = self.classes[number]
            if not shares.bursts:
                continue
            part, whole = shares.part(key), float(counted[number])
            objects.add(whole, part)
            if row >= 2:
                held.add(whole, part, slot_bytes(row, sums, self._sizes) / sums[0])
            elif self._large.bursts:
                held.add(float(runtime.large_bytes), self._large.part(key))
        return objects.estimate(), held.estimate()


class AllocationEstimates:
    """Takes burst after burst; each with what the runtime has counted shortly before, in, and after it."""

    def __init__(self, sizes: SizeClasses) -> None:
        self._sizes = sizes
        self._classes = _Shares()  # of all objects
        self._types, self._sites = _Parts(sizes), _Parts(sizes)

    def add(self, seen: AllocationCounts, around: Allocated) -> None:
        """Take a burst, and what there was around it."""
        weights = around.objects(self._sizes.tiny_class)
        objects = _objects_by_class(seen, self._sizes)
        if not objects.sum() or not weights.sum():
            return
        shares = {int(at): float(objects[at] / objects.sum()) for at in np.flatnonzero(objects)}
        self._classes.add(float(weights.sum()), shares, len(self._sizes.sizes))
        self._types.add(seen.types, weights, around.large_bytes)
        self._sites.add(seen.sites, weights, around.large_bytes)

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
        return self._types.of(address, rows, runtime) if self._classes.bursts else None

    def of_site(
        self, number: int, rows: Mapping[int, tuple[int, int, int]], runtime: Allocated
    ) -> tuple[Estimate, Estimate] | None:
        """Return the same of a call site."""
        return self._sites.of(number, rows, runtime) if self._classes.bursts else None

    def unseen(self, runtime: Allocated) -> int:
        """Return the objects of size classes of which no burst saw any."""
        counted = runtime.objects(self._sizes.tiny_class)
        return sum(int(counted[at]) for at, shares in enumerate(self._types.classes) if not shares.bursts)


def class_of(row: int, sizes: SizeClasses) -> int:
    """Return the size class of a row of counts."""
    return sizes.tiny_class if row == ROW_TINY else row >> 1


def slot_bytes(row: int, sums: tuple[int, int, int], sizes: SizeClasses) -> int:
    """Return the bytes of the slots or pages of some allocations; of tiny ones what was asked for."""
    count, asked, pages = sums
    if row == ROW_TINY:
        return asked
    return count * sizes.sizes[row >> 1] if row >> 1 else pages


def _objects_by_class(seen: AllocationCounts, sizes: SizeClasses) -> NDArray[np.int64]:
    objects = np.zeros(len(sizes.sizes), np.int64)
    for row in np.flatnonzero(seen.rows["count"]).tolist():
        if row != ROW_ZERO:
            objects[class_of(row, sizes)] += int(seen.rows["count"][row])
    return objects
