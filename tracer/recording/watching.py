"""What a recording says of the watching itself: how it began, what it has cost, and how it ended."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from gomem.tracer.report import GoroutineGrowth, Limit, Overhead, ProcessEnding, ProcessFacts


class Beginning(Struct, frozen=True):
    """Who is watched, how, and since when.

    `sees_states`: whether every change of a region's state is among the events. `monotonic` and `clock` are one moment:
    CLOCK_MONOTONIC ns, which events have, and ns since 1970. `started` is the moment from which seconds count, None for
    a launched program: then the first event's.
    """

    facts: ProcessFacts
    backend: Literal["bpf", "strace", "procfs"]
    reason: str
    limits: list[Limit]
    sees_states: bool
    started: int | None
    monotonic: int
    clock: int


class Progress(Struct, frozen=True):
    """What watching has cost until now, and how many events were lost."""

    overhead: Overhead
    lost: int


class Ending(Struct, frozen=True):
    """How the watching ended, and the process if that did; `limits` are all that the report of it has."""

    seconds: float
    taken_at: str  # RFC 3339
    overhead: Overhead
    lost: int
    limits: list[Limit] = field(default_factory=list)
    process: ProcessEnding | None = None
    goroutine_growth: GoroutineGrowth | None = None
