"""The sections of a report that come out of the model."""

from __future__ import annotations

from msgspec.structs import replace

from gomem.tracer.addresses.region_states import STATE_NAMES
from gomem.tracer.events.record import EventKind
from gomem.tracer.events.role_limits import some_unseen
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.model.timeline import Period
from gomem.tracer.model.windows import Windows
from gomem.tracer.report import Drift, EventLoss, GcCycleRow, GcCycleSpans, IllegalTransition, Limit, StateDrift


def event_loss(reconciler: Reconciler, lost: int) -> EventLoss:
    """Return losses, resyncs and drift; the drift is None when no look was compared."""
    found = reconciler.found
    return EventLoss(lost, found.resyncs, found.drift if found.looks else None)


def drift(reconciler: Reconciler, start: int) -> Drift | None:
    """Return what the comparisons found, None without any. `start`: what seconds count from, CLOCK_MONOTONIC ns."""
    found, model = reconciler.found, reconciler.model
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


def unseen(reconciler: Reconciler, until: int, seconds: float) -> list[Limit]:
    """Return a note if the probes of role used were off for a part of the time, as their budget means them to be.

    `until`: the moment of the report, CLOCK_MONOTONIC ns; `seconds`: the whole time of watching.
    """
    windows = reconciler.used
    if not windows.stops or seconds <= 0:
        return []
    on = min(windows.watched(until) / 1e9 / seconds, 1.0)
    why = (
        f"counted for {100 * on:.0f} % of the time, to cost the process no more than {100 * windows.budget:g} % of its "
        "own. Their number and bytes are too low for that; the state is not, it comes from looks"
    )
    return [replace(some_unseen(EventKind.USED, why, "a larger --budget counts more of them"), kind="note")]


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
