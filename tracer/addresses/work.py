"""How much work was done on maps over addresses, and when it is to stop: made-up events can ask for a lot of it."""

from __future__ import annotations

import math

from gomem.tracer.errors import GomemError


class TooMuchWork(GomemError):
    """More was asked for than there may be. What has been done until then is whole, save for the batch it came from."""


class Work:
    """Counts steps of about 100 ns of what is gone through again and again, or for each of something else."""

    def __init__(self) -> None:
        self.steps = 0
        self.most = math.inf  # how many there may be

    def add(self, steps: int) -> None:
        """Count steps that are about to be done; raises TooMuchWork instead of doing too many."""
        self.steps += steps
        if self.steps > self.most:
            raise TooMuchWork(f"more than {self.most} steps of work")
