"""What is made of the windows of a measurement: ratios with their uncertainty. Pure."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of paired ratios with its 95 % bootstrap interval, and of how many pairs it is."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def half_width(self) -> float:
        """Half the interval's width: an effect that is smaller cannot be told from none."""
        return (self.high - self.low) / 2

    def times(self, factor: float) -> Ratio:
        """Return the ratio with another cost on top, whose own uncertainty is left out."""
        return Ratio(self.median * factor, self.low * factor, self.high * factor, self.pairs)

    def __str__(self) -> str:
        digits = 4 if self.median > 0.9 else 3
        if self.pairs < 2:
            return f"{self.median:.{digits}f} (one pair)"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def ratio(ratios: Sequence[float]) -> Ratio:
    """Return the median and its percentile bootstrap interval; the same ratios give the same interval."""
    median = statistics.median(ratios)
    if len(ratios) < 2:
        return Ratio(median, median, median, len(ratios))
    draw = random.Random(len(ratios))
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    low, high = medians[int(_RESAMPLES * 0.025)], medians[int(_RESAMPLES * 0.975)]
    return Ratio(median, low, high, len(ratios))


def of_twins(first_traced: Sequence[float], second_traced: Sequence[float]) -> list[float]:
    """Return what tracing does to the work of a program, from two that run side by side.

    Each figure is the work of the first by that of the second, while one of them was traced. In two of them the
    cost counts once for and once against the first, and whatever else makes the two differ falls out.
    """
    return [math.sqrt(one / other) for one, other in zip(first_traced, second_traced, strict=True)]


def of_calls(per_cpu_second: float, seconds: float) -> float:
    """Return the ratio of work when each of so many system calls takes so many seconds longer."""
    return 1 / (1 + per_cpu_second * seconds)
