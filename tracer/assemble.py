"""Putting a report together from what was seen: pure, the last step before the renderers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tracer import join
from tracer.findings import find
from tracer.inspection import Look
from tracer.model import sections
from tracer.model.activity import Activity
from tracer.model.follower import Follower
from tracer.model.span_events import with_object_sizes
from tracer.report import (
    Caches,
    EventLoss,
    Heap,
    Limit,
    Overhead,
    ProcessFacts,
    Report,
    RuntimeStructure,
)
from tracer.runtime.metadata import metadata_rows
from tracer.runtime.snapshot import RuntimeSnapshot
from tracer.runtime.spans import class_rows, state_rows


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen while watching; `activity` is None when nothing was watched for."""

    backend: Literal["bpf", "strace", "procfs", "replay"]
    reason: str
    seconds: float
    activity: Activity | None
    lost: int
    overhead: Overhead
    limits: Sequence[Limit] = ()
    follower: Follower | None = None


def assemble(facts: ProcessFacts, look: Look | None, watched: Watched, taken_at: str) -> Report:
    """Return the report with its findings. `look` is None when the target ended before one could be taken."""
    report = _with_residency(_without_memory(facts, watched, taken_at), look, watched)
    if look is not None:
        report = _with_kernel(report, look)
        if look.runtime is not None:
            report = _with_runtime(report, look, look.runtime)
    return replace(report, findings=find(report))


def _without_memory(facts: ProcessFacts, watched: Watched, taken_at: str) -> Report:
    activity, follower = watched.activity, watched.follower
    log, dropped = activity.log() if activity else (None, 0)
    until = activity.start + round(watched.seconds * 1e9) if activity else 0
    return Report(
        taken_at=taken_at,
        duration_seconds=watched.seconds,
        backend=watched.backend,
        backend_reason=watched.reason,
        limits=[*watched.limits, *(sections.unseen(follower, until, watched.seconds) if follower else ())],
        consistency=None,
        process=facts,
        virtual=None,
        resident=None,
        kinds=None,
        heap=None,
        memstats=None,
        spans=None,
        span_states=None,
        caches=None,
        events=activity.events() if activity else None,
        madvise=activity.madvise() if activity else None,
        transitions=activity.transitions() if activity else None,
        event_log=log,
        event_log_dropped=dropped,
        event_loss=_event_loss(watched),
        allocations=None,
        overhead=watched.overhead,
        drift=sections.drift(follower, follower.activity.start) if follower else None,
        scavenged_by=activity.scavenged_by_source() if activity else None,
        gc_cycles=sections.gc_cycles(follower.model, follower.activity, until) if follower else None,
        span_events=activity.spans.section(until, watched.seconds) if activity else None,
    )


def _with_residency(report: Report, look: Look | None, watched: Watched) -> Report:
    if watched.activity is None:
        return report
    residency = watched.activity.residency
    return replace(
        report,
        live_resident=residency.resident(),
        page_faults=residency.page_faults(look.space if look else None, watched.seconds),
    )


def _event_loss(watched: Watched) -> EventLoss | None:
    if watched.follower is not None:
        return sections.event_loss(watched.follower, watched.lost)
    return EventLoss(watched.lost, 0, None) if watched.activity else None


def _with_kernel(report: Report, look: Look) -> Report:
    cgroup = look.kernel.cgroup
    return replace(
        report,
        taken_at=look.kernel.taken_at,
        overhead=replace(report.overhead, frozen_seconds=look.frozen_seconds),
        limits=[*look.limits, *report.limits],
        process=replace(report.process, cgroup=cgroup.cgroup if cgroup else None),
        virtual=join.virtual(look.space, runtime_known=look.runtime is not None),
        resident=look.kernel.resident(),
        kinds=join.kind_rows(look.space),
    )


def _with_runtime(report: Report, look: Look, runtime: RuntimeSnapshot) -> Report:
    skew = runtime.consistency.skew_bytes + look.kernel.virtual_skew + look.space.unmapped
    return replace(
        report,
        consistency=replace(runtime.consistency, exact=skew == 0, skew_bytes=skew),
        heap=_heap(look, runtime),
        memstats=runtime.memstats,
        spans=class_rows(runtime.spans, runtime.class_to_size),
        span_states=state_rows(runtime.spans),
        caches=Caches(runtime.caches.rows, runtime.structure.mcentral, runtime.caches.page_rows),
        accounting=join.accounting(look.space, runtime),
        span_events=with_object_sizes(report.span_events, runtime.class_to_size) if report.span_events else None,
        structure=_structure(look, runtime),
    )


def _structure(look: Look, runtime: RuntimeSnapshot) -> RuntimeStructure:
    seen = runtime.structure
    ends = ("base", "end")
    return RuntimeStructure(
        metadata=metadata_rows(runtime.regions, look.kernel.residency),
        fixed_allocs=seen.fixed_allocs,
        arena_hints=seen.arena_hints,
        current_arena=dict(zip(ends, seen.current_arena, strict=True)) if seen.current_arena else None,
        scheduler=seen.scheduler,
        threads=look.kernel.status.threads,
    )


def _heap(look: Look, runtime: RuntimeSnapshot) -> Heap:
    goal = runtime.memstats["NextGC"]
    assert isinstance(goal, int)
    return Heap(
        arenas=join.arena_rows(look.space, runtime),
        pages=join.page_states(runtime),
        resident=join.page_residency(look.space),
        goal=goal,
        live=runtime.collector.live,
        gc_percent=runtime.collector.gc_percent,
        memory_limit=runtime.collector.memory_limit,
        gc_phase=runtime.collector.phase,
    )
