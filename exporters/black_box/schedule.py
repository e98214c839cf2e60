"""Whose profile is to be taken next: pure, the times come from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gomem.tracer.fleet.nearness import NEAR

AT_REST = 300.0  # seconds between two profiles of a process that is near no limit
NEAR_ONE = 15.0  # of one that is
_STEP, _NEAR_STEP = 0.1, 0.04  # of the limit: once so much more of it is used, its profile is old
_FAILED = 30.0  # seconds until a process whose profile could not be taken is tried again
_LASTING = 600.0  # and one that keeps none


@dataclass(slots=True)
class ProfileAge:
    """When the profile of a process was taken, time.monotonic(), and how `near` it was to a limit then.

    `not_before`: it failed, and is not tried again until then.
    """

    taken: float | None = None
    near: float = 0.0
    not_before: float = float("-inf")

    def took(self, now: float, near: float) -> None:
        """Take note that it was taken."""
        self.taken, self.near = now, near

    def failed(self, now: float, *, lasting: bool) -> None:
        """Take note that it could not be taken, or never can."""
        self.not_before = now + (_LASTING if lasting else _FAILED)

    def urgency(self, near: float, now: float) -> float:
        """Return how overdue a profile is: 1 or more where it is due, by age or by what the process has grown."""
        if now < self.not_before:
            return 0.0
        if self.taken is None:
            return 1.0
        is_near = near >= NEAR
        grown = (near - self.near) / (_NEAR_STEP if is_near else _STEP)
        return max((now - self.taken) / (NEAR_ONE if is_near else AT_REST), grown)


class Candidate(Protocol):
    """A process whose profile may be taken."""

    @property
    def near(self) -> float:
        """The share used of the limit that is nearest; 0 where nothing is known."""

    @property
    def age(self) -> ProfileAge:
        """That of its profile."""


def is_urgent(one: Candidate, now: float) -> bool:
    """Tell whether a process near a limit has a profile that is old: what is left of a budget is for these."""
    return one.near >= NEAR and one.age.urgency(one.near, now) >= 1


_One = TypeVar("_One", bound=Candidate)


def next_one(candidates: Iterable[_One], now: float) -> _One | None:
    """Return the process whose profile is most overdue, those near a limit first; None if none is due."""
    due = [(one.near >= NEAR, one.age.urgency(one.near, now), one) for one in candidates]
    return max((row for row in due if row[1] >= 1), key=lambda row: row[:2], default=(False, 0.0, None))[2]
