"""What is made of the windows of a measurement: ratios with their uncertainty, and how quiet the machine was. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_RESAMPLES = 4000
QUIET_OTHERS = 0.05  # of one core, that processes outside of the measurement may use
QUIET_STEAL = 0.02  # of the machine, that its host may take away


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


@dataclass(frozen=True, slots=True)
class Moment:
    """The machine at one moment, in CPU seconds since its start, and in seconds (time.monotonic)."""

    at: float
    busy: float  # of all CPUs, without what the host stole
    steal: float
    known: float  # of the processes that are part of the measurement

    def until(self, later: Moment) -> Noise:
        """Return what disturbed between this moment and a later one."""
        seconds = max(later.at - self.at, 1e-3)
        others = later.busy - self.busy - (later.known - self.known)
        return Noise(max(others, 0.0) / seconds, (later.steal - self.steal) / seconds)


@dataclass(frozen=True, slots=True)
class Noise:
    """CPU seconds per second that others used, and that the host took away."""

    others: float
    steal: float


def quietness(noises: Sequence[Noise], cpus: int) -> tuple[bool, str]:
    """Return whether the machine was quiet, and a sentence that says how it was."""
    others = statistics.median(noise.others for noise in noises)
    worst = max(noise.others for noise in noises)
    steal = statistics.fmean(noise.steal for noise in noises) / cpus
    quiet = others <= QUIET_OTHERS and steal <= QUIET_STEAL
    verdict = "The machine was quiet" if quiet else "THE MACHINE WAS NOT QUIET, so the figures are rough"
    sentence = (
        f"{verdict}: other processes used {100 * others:.1f} % of one core (median of the windows; at worst"
        f" {100 * worst:.0f} %), its host took {100 * steal:.1f} % of {cpus} cores"
    )
    return quiet, sentence
