"""The sections of a report that come out of the model."""

from __future__ import annotations

from tracer.model.follower import Follower
from tracer.model.space import AddressSpaceModel
from tracer.model.states import STATE_NAMES
from tracer.report import Drift, EventLoss, GcCycleRow, IllegalTransition, StateDrift


def event_loss(follower: Follower, lost: int) -> EventLoss:
    """Return losses, resyncs and drift; the drift is None when no look was compared."""
    found = follower.found
    return EventLoss(lost, found.resyncs, found.drift if found.looks else None)


def drift(follower: Follower, start: int) -> Drift | None:
    """Return what the comparisons found, None without any. `start`: what seconds count from, CLOCK_MONOTONIC ns."""
    found, model = follower.found, follower.model
    if not found.looks:
        return None
    return Drift(
        looks=found.looks,
        exact_looks=found.exact_looks,
        mappings=found.mappings,
        states=[
            StateDrift(STATE_NAMES[ours], STATE_NAMES[theirs], size)
            for (ours, theirs), size in sorted(found.states.items())
        ],
        after_loss=found.after_loss,
        unsure=found.unsure,
        stack_growth=found.stack_growth,
        illegal_count=model.states.anomaly_counts.total(),
        illegal=illegal_transitions(model, start),
    )


def illegal_transitions(model: AddressSpaceModel, start: int) -> list[IllegalTransition]:
    """Return the first transitions that runtime/mem.go does not allow."""
    return [
        IllegalTransition(
            seconds=(anomaly.time - start) / 1e9,
            event=anomaly.kind.name.lower(),
            address=anomaly.low,
            bytes=anomaly.high - anomaly.low,
            found=list(anomaly.found),
            function=model.owner_of(anomaly),
        )
        for anomaly in model.states.anomalies
    ]


def gc_cycles(model: AddressSpaceModel, start: int) -> list[GcCycleRow]:
    """Return the last GC cycles in order of time; what came while the probes were being attached is at 0."""

    def seconds(time: int | None) -> float | None:
        return None if time is None else max(time - start, 0) / 1e9

    return [
        GcCycleRow(seconds(cycle.started), seconds(cycle.ended), cycle.goal, cycle.heap_before, cycle.heap_after)
        for cycle in model.cycles.cycles
    ]
