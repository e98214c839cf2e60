"""How far a report can be trusted, and what it cost: skew, loss, drift, overhead."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Address, Bytes, Count, RegionState, RegionStateOrUnknown, Seconds


class Consistency(Struct, frozen=True):
    """How well the parts read from a moving target agree."""

    exact: bool
    attempts: Count
    skew_bytes: Bytes


class EventLoss(Struct, frozen=True):
    """Events known lost, re-synchronisations, and bytes by which model and snapshot differ (None: not compared)."""

    lost: Count
    resyncs: Count
    drift_bytes: int | None


class StateDrift(Struct, frozen=True):
    """Bytes whose region state the model had as `model` and a look as `look`."""

    model: RegionState
    look: RegionState
    bytes: Bytes


class IllegalTransition(Struct, frozen=True):
    """A transition that runtime/mem.go does not allow: what was asked for, and the states `found` in that range."""

    seconds: float
    event: str
    address: Address
    bytes: Bytes
    found: list[RegionStateOrUnknown]
    function: str | None


class Drift(Struct, frozen=True):
    """How the state rebuilt from events compared with the looks; bytes are sums over all comparisons.

    `mappings` (mapped or not, and the protection) and `states` add up to event_loss.drift_bytes; `after_loss` is a part
    of them, found after events were lost. Not in them: `unsure`, what calls in an unknown order or that failed half
    done left otherwise than assumed, and `stack_growth`, which is no event.
    """

    looks: Count
    exact_looks: Annotated[Count, Meta(description="of them, those whose region states could be compared")]
    mappings: Count
    states: list[StateDrift]
    after_loss: Bytes
    unsure: Bytes
    stack_growth: Bytes
    illegal_count: Count
    illegal: Annotated[list[IllegalTransition], Meta(description="the first of them")]


class ProbeRow(Struct, frozen=True):
    """One probe and how often it fired."""

    role: str
    symbol: str
    hits: Count


class Overhead(Struct, frozen=True):
    """What the tracing itself cost. `target_slowdown_estimate`: share of the target's time.

    `frozen_seconds`: for how long the target was stopped; None: it never was.
    """

    tracer_cpu_seconds: Seconds
    tracer_rss: Bytes
    probes: list[ProbeRow]
    target_slowdown_estimate: float | None
    frozen_seconds: Seconds | None = None
