"""Putting a report together from what was seen: pure, the last step before the renderers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from gomem.tracer.kernel.view import KernelView
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.model.span_events import with_object_sizes
from gomem.tracer.report import (
    AddressRange,
    Caches,
    Course,
    CpuBound,
    EventLoss,
    GoroutineGrowth,
    GoRuntime,
    Heap,
    Limit,
    LiveCourse,
    Overhead,
    ProcessEnding,
    ProcessFacts,
    Report,
    RuntimeStructure,
)
from gomem.tracer.report.findings.rules import find
from gomem.tracer.runtime.finalizers import specials
from gomem.tracer.runtime.metadata import metadata_rows
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import class_rows, state_rows
from gomem.tracer.snapshot import join
from gomem.tracer.snapshot.holders import free_runs, in_use, large_objects
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.snapshot.join import Addresses, AddressSpace
from gomem.tracer.snapshot.page_kinds import page_kinds
from gomem.tracer.snapshot.pressure import collector_work, limit_use, scavenger
from gomem.tracer.snapshot.stack_rows import thread_stacks
from gomem.tracer.watch import model_sections as sections
from gomem.tracer.watch.user_mappings import user_mappings

_OF_RUNTIME = ("heap_arena", "heap_metadata", "page_summary", "runtime_other")


class Watched(Struct, frozen=True):
    """What was seen while watching; `activity` is None when nothing was watched for."""

    backend: Literal["bpf", "strace", "procfs", "replay"]
    reason: str
    seconds: float
    activity: Activity | None
    lost: int
    overhead: Overhead
    limits: Sequence[Limit] = ()
    reconciler: Reconciler | None = None
    ending: ProcessEnding | None = None
    live_course: LiveCourse | None = None
    courses: Mapping[str, Course] | None = None
    goroutine_growth: GoroutineGrowth | None = None


def assemble(facts: ProcessFacts, look: Snapshot | None, watched: Watched, taken_at: str) -> Report:
    """Return the report with its findings. `look` is None when the target ended before one could be taken."""
    report = _with_residency(_without_memory(facts, watched, taken_at), look, watched)
    if look is not None:
        report = _with_kernel(report, look)
        if look.runtime is not None:
            report = _with_runtime(report, look, look.runtime, watched.live_course)
            seen = watched.activity.mapping_callers.ranges() if watched.activity is not None else None
            found = user_mappings(look.space, look.kernel.mappings, look.kernel.residency, seen)
            report = replace(report, user_mappings=found)
    report = replace(
        report,
        ending=watched.ending,
        courses=dict(watched.courses) if watched.courses else None,
        goroutine_growth=watched.goroutine_growth,
    )
    return replace(report, findings=find(report))


def _without_memory(facts: ProcessFacts, watched: Watched, taken_at: str) -> Report:
    activity, reconciler = watched.activity, watched.reconciler
    log, dropped = activity.log() if activity else (None, 0)
    until = activity.start + round(watched.seconds * 1e9) if activity else 0
    return Report(
        taken_at=taken_at,
        duration_seconds=watched.seconds,
        backend=watched.backend,
        backend_reason=watched.reason,
        limits=[*watched.limits, *(sections.unseen(reconciler, until, watched.seconds) if reconciler else ())],
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
        failed_calls=activity.failures.groups(until) if activity else None,
        event_loss=_event_loss(watched),
        allocations=None,
        overhead=watched.overhead,
        drift=sections.drift(reconciler, reconciler.activity.start) if reconciler else None,
        scavenged_by=activity.scavenged_by_source() if activity else None,
        gc_cycles=sections.gc_cycles(reconciler.model, reconciler.activity, until) if reconciler else None,
        span_events=activity.spans.section(until, watched.seconds) if activity else None,
    )


def _with_residency(report: Report, look: Snapshot | None, watched: Watched) -> Report:
    if watched.activity is None:
        return report
    residency = watched.activity.residency
    return replace(
        report,
        live_resident=residency.resident(),
        page_faults=residency.page_faults(look.space if look else None, watched.seconds),
    )


def _event_loss(watched: Watched) -> EventLoss | None:
    if watched.reconciler is not None:
        return sections.event_loss(watched.reconciler, watched.lost)
    return EventLoss(watched.lost, 0, None) if watched.activity else None


def _with_kernel(report: Report, look: Snapshot) -> Report:
    cgroup = look.kernel.cgroup
    return replace(
        report,
        taken_at=look.kernel.taken_at,
        overhead=replace(report.overhead, frozen_seconds=look.frozen_seconds),
        limits=[*look.limits, *report.limits],
        process=replace(report.process, cgroup=cgroup.cgroup if cgroup else None),
        virtual=join.virtual(look.space, look.kernel.mappings, runtime_known=look.runtime is not None),
        resident=look.kernel.resident(),
        kinds=join.kind_rows(look.space, *kinds_of_pages(look.space, look.kernel)),
        thread_stacks=thread_stacks(
            look.space, look.kernel.mappings, look.kernel.residency, look.kernel.status.threads, look.stack_owners
        ),
        c_heap=look.c_heap,
        files=look.kernel.files,
        address_limits=look.kernel.address_limits,
        cgroup_bills=list(look.kernel.cgroup_bills) or None,
        file_io=look.kernel.file_io,
        runtimes=_runtimes(report.process, look) if look.beside else None,
        bounds=list(look.kernel.bounds) if look.kernel.bounds is not None else None,
        cpu=look.kernel.cpu,
        settings=look.kernel.settings,
    )


def _runtimes(process: ProcessFacts, look: Snapshot) -> list[GoRuntime]:
    """Return the runtimes of the process, that which the report is of first."""
    told = look.runtime.memstats if look.runtime is not None else {}
    own = sum(row.resident or 0 for row in join.kind_rows(look.space) if row.kind in _OF_RUNTIME)

    def figure(name: str) -> int | None:
        value = told.get(name)
        return value if isinstance(value, int) else None

    reported = GoRuntime(
        module=process.module or process.exe,
        go_version=process.go_version,
        reported=True,
        heap_in_use=figure("HeapInuse"),
        heap_sys=figure("HeapSys"),
        heap_released=figure("HeapReleased"),
        stack_in_use=figure("StackInuse"),
        sys=figure("Sys"),
        resident=own if told else None,
        why_not=None if told else "see the limits",
    )
    return [reported, *look.beside]


def kinds_of_pages(space: AddressSpace, kernel: KernelView) -> tuple[Addresses | None, Addresses | None]:
    """Return the anonymous bytes of each piece of `space`, and those of shared memory; None where it is not told."""
    return page_kinds(space, kernel.mappings, kernel.residency, kernel.shmem_devices, kernel.status.rss_shmem)


def _with_runtime(report: Report, look: Snapshot, runtime: RuntimeSnapshot, live_course: LiveCourse | None) -> Report:
    skew = runtime.consistency.skew_bytes + look.kernel.virtual_skew + look.space.unmapped
    return replace(
        report,
        consistency=replace(runtime.consistency, exact=skew == 0, skew_bytes=skew),
        heap=replace(_heap(look, runtime, report), live_course=live_course),
        memstats=runtime.memstats,
        spans=class_rows(runtime.spans, runtime.class_to_size),
        span_states=state_rows(runtime.spans),
        caches=Caches(runtime.caches.rows, runtime.structure.mcentral, runtime.caches.page_rows),
        accounting=join.accounting(look.space, runtime),
        span_events=with_object_sizes(report.span_events, runtime.class_to_size) if report.span_events else None,
        structure=_structure(look, runtime),
        cpu=_cpu(look, runtime),
    )


def _cpu(look: Snapshot, runtime: RuntimeSnapshot) -> CpuBound | None:
    scheduler = runtime.structure.scheduler
    return replace(look.kernel.cpu, gomaxprocs=scheduler.ps) if look.kernel.cpu and scheduler else look.kernel.cpu


def _structure(look: Snapshot, runtime: RuntimeSnapshot) -> RuntimeStructure:
    seen = runtime.structure
    current = seen.current_arena
    return RuntimeStructure(
        metadata=metadata_rows(runtime.regions, look.kernel.residency),
        fixed_allocs=seen.fixed_allocs,
        arena_hints=seen.arena_hints,
        current_arena=AddressRange(base=current[0], end=current[1]) if current else None,
        scheduler=seen.scheduler,
        threads=look.kernel.status.threads,
        timers=runtime.timers,
        specials=specials(seen.fixed_allocs) if seen.fixed_allocs is not None else None,
        queued=seen.queued,
        profile_buckets=runtime.profile_buckets,
    )


def _heap(look: Snapshot, runtime: RuntimeSnapshot, report: Report) -> Heap:
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
        collector=collector_work(
            runtime.pace,
            runtime.collector.phase,
            report.gc_cycles,
            report.duration_seconds,
            forced if isinstance(forced := runtime.memstats["NumForcedGC"], int) else None,
        ),
        limit_use=limit_use(runtime.memstats, runtime.collector.live, runtime.collector.memory_limit),
        scavenger=scavenger(
            runtime.pace,
            runtime.memstats,
            runtime.collector.mapped_ready,
            runtime.collector.gc_percent,
            (report.scavenged_by or {}).get("background"),
            report.duration_seconds,
        ),
        large_objects=large_objects(runtime, look.kernel.residency),
        free_runs=free_runs(runtime),
        in_use=in_use(runtime, look.space, look.kernel.residency),
    )
