"""The sections of a report that come out of the model."""

from __future__ import annotations

from dataclasses import replace

from tracer.events import Kind
from tracer.model.activity import Activity
from tracer.model.follower import Follower
from tracer.model.space import AddressSpaceModel
from tracer.model.states import STATE_NAMES
from tracer.model.timeline import Period
from tracer.model.windows import Windows
from tracer.report import Drift, EventLoss, GcCycleRow, GcCycleSpans, IllegalTransition, Limit, StateDrift


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


def unseen(follower: Follower, until: int, seconds: float) -> list[Limit]:
    """Return a limit if the probes of role used were off for a part of the time.

    `until`: the moment of the report, CLOCK_MONOTONIC ns; `seconds`: the whole time of watching.
    """
    windows = follower.used
    if not windows.stops or seconds <= 0:
        return []
    off = max(1 - windows.watched(until) / 1e9 / seconds, 0.0)
    why = (
        f"its probes were off for {100 * off:.0f} % of the time, to cost no more than {100 * windows.budget:g} % of "
        "the target's time; meanwhile the looks told which scavenged pages were in use again"
    )
    return [Limit(all_of_role(Kind.USED), why, "allow more with --budget")]


def all_of_role(kind: Kind) -> str:
    """Return the name of the limit that says that some events of a role are not seen."""
    return f"all events of role {kind.name.lower()}"


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


def gc_cycles(model: AddressSpaceModel, activity: Activity, until: int) -> list[GcCycleRow]:
    """Return the last GC cycles in order of time; what came while the probes were being attached is at 0.

    `until`: the moment of the report, CLOCK_MONOTONIC ns.
    """
    start, periods, windows = activity.start, activity.timeline.periods(), activity.spans.windows
    rows = []
    for cycle in model.cycles.cycles:
        began, ended = (None if at is None else max(at - start, 0) / 1e9 for at in (cycle.started, cycle.ended))
        row = GcCycleRow(began, ended, cycle.goal, cycle.heap_before, cycle.heap_after)
        if cycle.started is not None and cycle.ended is not None:
            row = replace(row, mark_seconds=max(cycle.ended - cycle.started, 0) / 1e9)
        period = periods.get(cycle.started or cycle.ended or 0)
        rows.append(row if period is None else _with_period(row, period, windows, until))
    return rows


def _with_period(row: GcCycleRow, period: Period, windows: Windows, until: int) -> GcCycleRow:
    during, after = period.scavenged
    share = windows.share(period.begun, period.until or until)
    return replace(
        row,
        scavenged_during=during if row.started is not None else None,
        scavenged_after=after if row.ended is not None else None,
        spans=_spans(period, share) if windows.count else None,
    )


def _spans(period: Period, watched_share: float) -> GcCycleSpans:
    (allocated, freed), (allocated_pages, freed_pages) = period.spans, period.pages
    return GcCycleSpans(allocated, freed, allocated_pages, freed_pages, watched_share)
