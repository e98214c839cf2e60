"""Goroutines by what they have in common: how many, their stacks, how long they wait, and which groups only grow. Pure.

A goroutine has its number (goid) for life, and no other gets it: so it is told which of an earlier look's are still
there at a later one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.process.memory import Words
from gomem.tracer.report.goroutines import GoroutineGroup, GoroutineLook, Place

Integers = NDArray[np.int64]

# With fewer looks a group grows in all of them by chance.
LEAST_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Key:
    """What the goroutines of a group have in common: one of these, none of them for the group of all others."""

    creator: Place | None = None
    start: Place | None = None
    reason: str | None = None
    stack: tuple[Place, ...] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """The program's goroutines at one look; shape (n,) each."""

    goid: Words
    group: Integers  # which of the keys
    reason: Integers  # which of the names of what they wait for or do
    stack: Integers  # bytes
    resident: Integers | None  # of these in RAM
    wait: NDArray[np.float64]  # seconds, NaN where it is not known


class History:
    """How the groups change from look to look: how many goroutines they have, and since which look each is there."""

    def __init__(self) -> None:
        self._counts: list[Integers] = []
        self._goid = np.empty(0, np.uint64)  # of the last look, ascending
        self._first = np.empty(0, np.int64)  # the look that saw each first
        self._group = np.empty(0, np.int64)

    def add(self, seen: Seen) -> None:
        """Take the next look."""
        order = np.argsort(seen.goid, kind="stable")
        goid = seen.goid[order]
        first = np.full(len(goid), len(self._counts), np.int64)
        if len(self._goid):
            at = np.minimum(np.searchsorted(self._goid, goid), len(self._goid) - 1)
            first = np.where(self._goid[at] == goid, self._first[at], first)
        self._goid, self._first, self._group = goid, first, seen.group[order]
        self._counts.append(np.bincount(seen.group))

    def forget(self, look: int) -> None:
        """Forget a look that is not the last: who was first seen then counts as seen by the next."""
        del self._counts[look]
        self._first -= self._first > look

    def counts(self, groups: int) -> Integers:
        """Return how many goroutines each of so many groups had at each look, shape (groups, looks)."""
        return np.stack([np.pad(count, (0, groups - len(count))) for count in self._counts], axis=1)

    def stayed(self, groups: int) -> Integers:
        """Return how many of those are in the group at the last look, shape (groups, looks)."""
        looks = len(self._counts)
        first = np.bincount(self._group * looks + self._first, minlength=groups * looks)
        return np.cumsum(first.reshape(groups, looks), axis=1)


def only_grows(at_looks: Sequence[int], stayed: Sequence[int], looks: Sequence[GoroutineLook]) -> bool | None:
    """Tell whether a group was larger at each look than at the one before, while the program collected garbage.

    Some of those that each look was first to see must have stayed: where all come and go, more of them are no leak.
    None where there are too few looks, or it is not known whether a collection went by: what it frees may be all that
    a group waits for.
    """
    first, last = looks[0].gc_cycles, looks[-1].gc_cycles
    if len(looks) < LEAST_LOOKS or first is None or last is None:
        return None
    rises = all(np.diff(at_looks) > 0) and all(np.diff(stayed) > 0)
    return bool(rises and last > first)


def groups_of(
    seen: Seen, history: History, keys: Sequence[Key], reasons: Sequence[str], looks: Sequence[GoroutineLook]
) -> list[GoroutineGroup]:
    """Return the groups of the last look, and those that earlier ones saw; `seen` is in `history` already."""
    count = len(keys)
    at_looks, stayed = history.counts(count).tolist(), history.stayed(count).tolist()
    stack = _sums(seen.group, seen.stack, count)
    resident = None if seen.resident is None else _sums(seen.group, seen.resident, count)
    known = ~np.isnan(seen.wait)
    longest = np.zeros(count)
    np.maximum.at(longest, seen.group[known], seen.wait[known])
    waits_known = np.bincount(seen.group[known], minlength=count).tolist()
    told = _reasons(seen, reasons, count)
    return [
        GoroutineGroup(
            creator=key.creator,
            start=key.start,
            reason=key.reason,
            stack=None if key.stack is None else list(key.stack),
            goroutines=at_looks[at][-1],
            stack_bytes=stack[at],
            stack_resident=None if resident is None else resident[at],
            reasons=told[at],
            longest_wait=float(longest[at]) if waits_known[at] else None,
            waits_known=waits_known[at],
            at_looks=at_looks[at],
            stayed=stayed[at],
            only_grows=only_grows(at_looks[at], stayed[at], looks),
        )
        for at, key in enumerate(keys)
        if any(at_looks[at])
    ]


def _sums(group: Integers, value: Integers, count: int) -> list[int]:
    sums = np.zeros(count, np.int64)
    np.add.at(sums, group, value)
    found: list[int] = sums.tolist()
    return found


def _reasons(seen: Seen, reasons: Sequence[str], count: int) -> list[dict[str, int]]:
    """Return for each group what its goroutines wait for or do, and how many of them, the most first."""
    pairs, counts = np.unique(seen.group * len(reasons) + seen.reason, return_counts=True)
    told: list[dict[str, int]] = [{} for _ in range(count)]
    for at in np.argsort(-counts, kind="stable").tolist():
        group, reason = divmod(int(pairs[at]), len(reasons))
        told[group][reasons[reason]] = int(counts[at])
    return told
