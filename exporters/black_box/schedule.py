"""Whose profile is to be taken next: pure, the times come from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gomem.tracer.fleet.nearness import NEAR

AT_REST = 300.0  # seconds between two profiles of a process that is near no limit
NEAR_ONE = 60.0  # of one that is
_STEP = 0.1  # of the limit: once so much more of it is used, a profile is old
_NEAR_STEP, _LEAST_STEP = 0.04, 0.005  # the same near a limit; but a quarter of what was left, if that is less
_NEVER = 2.0  # how overdue the first profile of a process is
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
            return _NEVER
        by_age = (now - self.taken) / (NEAR_ONE if near >= NEAR else AT_REST)
        return max(by_age, self.growth(near))

    def growth(self, near: float) -> float:
        """Return by how many steps a process is nearer to its limit than when the profile was taken."""
        left = max(min((1 - self.near) / 4, _NEAR_STEP), _LEAST_STEP)
        return (near - self.near) / (left if near >= NEAR else _STEP)


class Candidate(Protocol):
    """A process whose profile may be taken."""

    @property
    def near(self) -> float:
        """The share used of the limit that is nearest; 0 where nothing is known."""

    @property
    def age(self) -> ProfileAge:
        """That of its profile."""


def is_urgent(one: Candidate, now: float) -> bool:
    """Tell whether a process near a limit has come nearer since its profile: what is left of a budget is for these."""
    if one.near < NEAR or now < one.age.not_before:
        return False
    return one.age.taken is None or one.age.growth(one.near) >= 1


_One = TypeVar("_One", bound=Candidate)


def next_one(candidates: Iterable[_One], now: float) -> _One | None:
    """Return the process whose profile is most overdue, the urgent ones first; None if none is due."""
    due = [(is_urgent(one, now), one.age.urgency(one.near, now), one) for one in candidates]
    return max((row for row in due if row[1] >= 1), key=lambda row: row[:2], default=(False, 0.0, None))[2]
