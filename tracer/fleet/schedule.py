"""When to look at which process, so that all of it stays within a budget: pure, the times come from outside."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TypeVar

from gomem.tracer.machine.cpu_budget import CpuBudget

LOOK_SHARE = 0.02  # of one CPU at the most, for one process
NEAR_SHARE = 0.25  # of the interval, between looks at a process that is near its limit
HURRY_SHARE = 0.15  # of the budget, for looks that come sooner for that
_HURRY_BURST = 1.0  # seconds of CPU time for these at once
SOON = 0.05  # seconds until a look that differed from the model is repeated
OPENED = 1.0  # seconds between looks at a process that somebody looks at closely
_RETRY = 1.0  # seconds until a process that could not be followed is tried again; twice as long each time
_LONGEST_RETRY = 60.0
_MOST_STRETCH = 40.0

_MOST_PASSED_OVER = 4  # times in a row

_Who = TypeVar("_Who")


@dataclass(slots=True)
class Turns:
    """Whose turn it is of two kinds of processes that are due: those that answered last time go first.

    Each look at one of the others may cost all our patience, and they may be many. They come when nobody else is due,
    and after that many others in any case.
    """

    _passed_over: int = 0

    def choose(self, known: _Who | None, doubtful: _Who | None) -> _Who | None:
        """Return which of two to look at now; None: there is none that is due."""
        if known is not None and doubtful is not None and self._passed_over < _MOST_PASSED_OVER:
            self._passed_over += 1
            return known
        if doubtful is None:
            return known
        self._passed_over = 0
        return doubtful


@dataclass(slots=True)
class Pace:
    """How far apart the looks at each process are.

    `interval`: seconds, as it was asked for. `cpu_budget`: the share of one CPU that everything together may use;
    when it is exceeded, the looks are spread.
    """

    interval: float
    cpu_budget: float
    stretch: float = 1.0
    _random: random.Random = field(default_factory=random.Random)
    _hurry: CpuBudget = field(init=False)

    def __post_init__(self) -> None:
        self._hurry = CpuBudget(_HURRY_BURST, self.cpu_budget * HURRY_SHARE)

    @property
    def effective_interval(self) -> float:
        """Seconds between two looks at one process now."""
        return self.interval * self.stretch

    def first_gap(self) -> float:
        """Return the seconds between the first look at a process and the second: spread, lest all come at once."""
        return self.effective_interval * self._random.uniform(0.5, 1.0)

    def gap(self, cost: float, *, suspicious: bool, near: bool = False, opened: bool = False) -> float:
        """Return the seconds until the next look at a process, of which the last one took `cost` seconds.

        `near`: it is near one of its limits, so that its last moments may be few. As far as a share of the budget goes,
        which many such processes use up. `opened`: somebody looks at this one closely.
        """
        wanted = SOON if suspicious else OPENED if opened else self.effective_interval
        if near and self._hurry.is_open():
            self._hurry.spend(cost)
            wanted = min(wanted, self.effective_interval * NEAR_SHARE)
        return max(wanted, cost / LOOK_SHARE)

    def retry_gap(self, failures: int) -> float:
        """Return the seconds until a process that could not be followed `failures` times is tried again."""
        return min(_RETRY * 2.0 ** min(failures, 16), _LONGEST_RETRY)

    def adapt(self, cpu_seconds: float, seconds: float) -> None:
        """Learn what was used in the last `seconds`: spread the looks by as much as it was too much, or come back."""
        share = cpu_seconds / seconds
        if share > self.cpu_budget:
            self.stretch = min(self.stretch * min(share / self.cpu_budget, 2.0), _MOST_STRETCH)
        elif self.stretch > 1.0:
            # What the looks cost grows as they come closer: go back by less than there is room for.
            room = self.cpu_budget / max(share, 1e-9)
            self.stretch = max(self.stretch / min(max(room * 0.9, 1.0), 2.0), 1.0)
