"""What happened while the target was watched."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from gomem.tracer.report.figures import (
    Address,
    Bytes,
    Count,
    Rate,
    RegionStateOrAny,
    Seconds,
    Share,
    SizeClass,
    SpanClass,
)


class Transition(Struct, frozen=True):
    """Bytes that went from one region state to another, and the runtime function that did it.

    `event` is the probe role (reserve, map, ...); `function` None where no stack was had.
    """

    from_state: RegionStateOrAny = field(name="from")
    to_state: RegionStateOrAny = field(name="to")
    event: str
    function: str | None
    count: Count
    bytes: Bytes


class EventCount(Struct, frozen=True):
    """Events of one name: how many succeeded with how many bytes, and how many failed."""

    count: Count
    bytes: Bytes
    failed: Count = 0


class LoggedEvent(Struct, frozen=True):
    """One rare event in the order of time; `seconds` since the first moment of watching."""

    seconds: float
    event: str
    address: Address | None
    bytes: Bytes | None
    function: str | None
    callers: list[str]


class GcCycleSpans(Struct, frozen=True):
    """Spans handed out and taken back from one cycle's start to the next one's.

    `watched_share`: for which share of that time span events were watched for; nothing is added for the rest.
    """

    allocated: Count
    freed: Count
    allocated_pages: Count
    freed_pages: Count
    watched_share: Share


class GcCycleRow(Struct, frozen=True):
    """One GC cycle; seconds since the first moment of watching. None: not seen.

    `heap_before` is what counted as live when it began, `heap_after` what it marked, `goal` the heap goal that it had.
    Where the probes cannot read them, `goal` and `heap_before` (HeapAlloc) are of the last look before the cycle, and
    `heap_after` is of the first one after it. `scavenged_during` and `scavenged_after` are what sysUnused gave back,
    bytes, until the cycle ended, and from then to the start of the next one.
    """

    started: float | None
    ended: float | None
    goal: Bytes | None
    heap_before: Bytes | None
    heap_after: Bytes | None
    mark_seconds: Seconds | None = None
    scavenged_during: Bytes | None = None
    scavenged_after: Bytes | None = None
    spans: Annotated[GcCycleSpans | None, Meta(description="null: span events were not watched for")] = None


class SpanChurnRow(Struct, frozen=True):
    """Spans of one span class, or of one other use, that came and went while span events were watched for.

    `work_bufs`: spans that are managed by hand and are no stacks. `lives`: spans of which both their beginning and
    their end were seen; their mean life is short of the truth, as those that live long do not end while one watches.
    """

    use: Literal["heap", "stacks", "work_bufs"]
    span_class: Annotated[SpanClass | None, Meta(description="null: not of the heap")]
    size_class: SizeClass | None
    object_size: Annotated[Bytes | None, Meta(description="0 for large objects")]
    noscan: bool | None
    allocated: Count
    freed: Count
    allocated_pages: Count
    freed_pages: Count
    lives: Count
    mean_life_seconds: Seconds | None


class SpanEvents(Struct, frozen=True):
    """Spans that came and went. Counts are of `watched_seconds` only, `watched_share` of the whole time of watching.

    The probes were on for `windows` stretches of time, of which `stops` ended because they had used up their `budget`
    (share of the target's time).
    """

    watched_seconds: Seconds
    watched_share: Share
    windows: Count
    stops: Count
    budget: Rate
    allocated: Count
    freed: Count
    allocated_pages: Count
    freed_pages: Count
    classes: list[SpanChurnRow]
