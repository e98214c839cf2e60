"""One tracing session: choose the event source that works, watch the target, and put the report together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from bpf.cost import slowdown
from bpf.governor import DEFAULT_BUDGET, OF_USED, SPANS, GovernedUprobes, used_apart
from bpf.placing import place
from bpf.source import BpfSource
from bpf.uprobes import SkippedUprobe, UprobeSpec
from tracer import usage
from tracer.assemble import Watched, assemble
from tracer.errors import BackendUnavailable, BinaryError, LayoutError, NotPermitted
from tracer.events import RARE_ROLES, SPAN_MARKS, USED_MARKS, EventBatch, EventSource, Kind, no_events
from tracer.inspection import Inspector, Look
from tracer.layout.layout import Layout
from tracer.layout.roles import resolve_roles
from tracer.model.activity import Activity
from tracer.model.follower import Follower
from tracer.model.sections import all_of_role
from tracer.model.space import AddressSpaceModel
from tracer.optional_roles import RESIDENCY_ROLES, OptionalRole, not_seen
from tracer.plugins import Plugins, naming
from tracer.program import GoProgram
from tracer.recording.contents import Beginning, Ending
from tracer.recording.recorder import Recorder
from tracer.report import Limit, Overhead, ProbeRow, ProcessFacts, Report
from tracer.sources.launch import AfterExec, Launched
from tracer.sources.strace import StraceSource
from tracer.span_probes import WHAT, governed_spans, layout_for_probes
from tracer.watch import Watch

Backend = Literal["bpf", "strace", "procfs"]
Choice = Literal["auto", "bpf", "strace", "procfs"]

_NO_EVENTS = Limit(
    "what happened while watching",
    "the procfs backend sees states, not events",
    "use --backend bpf, or --backend strace (which stops the target at each of its system calls)",
)

# A runtime that never gives address space back to Reserved may have no sysFault.
_STATE_ROLES = frozenset((Kind.RESERVE, Kind.MAP, Kind.USED, Kind.UNUSED, Kind.FREE, Kind.ALLOC))
_ON = (SPAN_MARKS[0], USED_MARKS[0])


@dataclass(slots=True)
class Plan:
    """The event source that was chosen, started, and why; `source` is None for procfs."""

    backend: Backend
    reason: str
    source: EventSource | None
    uprobes: Sequence[UprobeSpec] = ()
    limits: list[Limit] = field(default_factory=list)
    sees_states: bool = False  # every transition between region states is an event


def uprobes_for(program: GoProgram, limits: list[Limit], layout: Layout | None = None) -> list[UprobeSpec]:
    """Return the default uprobes of a program, all rare roles; what cannot be probed becomes a limit.

    With a `layout` they also read fields of structs, which not every source can do.
    """
    exe, functions = program.executable, program.functions
    if exe is None or functions is None:
        return []
    try:
        probes = resolve_roles(program.release, exe.machine, program.has_function)
    except LayoutError as error:
        limits.append(Limit("the runtime's own events", error.what, error.fix))
        return []
    rare = [probe for probe in probes if probe.kind in RARE_ROLES]
    limits += [Limit(all_of_role(probe.kind), probe.misses, "") for probe in rare if probe.misses]
    try:
        return place(exe, functions, rare, layout=layout)
    except (BackendUnavailable, BinaryError) as error:
        limits.append(Limit("the runtime's own events", error.what, error.fix))
        return []


def start_source(
    choice: Choice,
    pid: int,
    program: GoProgram,
    launched: Launched | None,
    optional: Set[OptionalRole] = frozenset(),
    budget: float = DEFAULT_BUDGET,
) -> Plan:
    """Start the source that was asked for, or with "auto" the best that works.

    "auto" never falls back to strace on a running process: ptrace would stop it at every system call, which nobody
    asked for. A program that was launched to be traced may be slowed. Raises BackendUnavailable or NotPermitted
    with the reason when the source named does not work. Of the `optional` roles only BPF has any; those
    that are governed may take `budget`, a share of the target's time.
    """
    plan = _start_source(choice, pid, program, launched, optional, budget)
    if plan.backend != "bpf":
        plan.limits += not_seen(optional, f"the backend {plan.backend} does not see it")
    return plan


def _start_source(
    choice: Choice,
    pid: int,
    program: GoProgram,
    launched: Launched | None,
    optional: Set[OptionalRole],
    budget: float,
) -> Plan:
    if choice == "procfs":
        return Plan("procfs", "asked for", None, limits=[_NO_EVENTS])
    if choice == "strace":
        return _strace(pid, "asked for", launched)
    try:
        return _bpf(pid, program, "the best that works here" if choice == "auto" else "asked for", optional, budget)
    except (BackendUnavailable, NotPermitted) as error:
        if choice == "bpf":
            raise
        why_not_bpf = f"BPF does not work here: {error.what}"
        bpf_fix = error.fix
    if launched is not None:
        try:
            return _strace(pid, why_not_bpf, launched)
        except (BackendUnavailable, NotPermitted) as error:
            why_not_bpf += f"; strace neither: {error.what}"
    limits = [Limit(_NO_EVENTS.what, why_not_bpf, bpf_fix or _NO_EVENTS.fix)]
    return Plan("procfs", why_not_bpf, None, limits=limits)


def _bpf(pid: int, program: GoProgram, reason: str, optional: Set[OptionalRole], budget: float) -> Plan:
    limits: list[Limit] = []
    specs = uprobes_for(program, limits, layout_for_probes(program))
    others, used = used_apart(specs, budget * OF_USED)
    spans = governed_spans(program, budget, limits) if OptionalRole.SPANS in optional else None
    governed = [one for one in (used, spans) if one is not None]
    source = BpfSource(pid, others, governed=governed, residency=RESIDENCY_ROLES & optional)
    source.start()
    skipped = [*source.skipped, *(used.refused if used is not None else ())]
    limits += skipped_limits(skipped)
    limits += source.missing
    sees_states = sees_all_states(specs, skipped, limits)
    return Plan("bpf", reason, source, [*specs, *(spans.specs if spans else ())], limits, sees_states)


def skipped_limits(skipped: Sequence[SkippedUprobe]) -> list[Limit]:
    """Return what is not seen because the kernel refused probes."""
    return [Limit(f"events of role {one.spec.role}", f"{one.spec.symbol}: {one.reason}", "") for one in skipped]


def sees_all_states(
    specs: Sequence[UprobeSpec], skipped: Sequence[SkippedUprobe], limits: Sequence[Limit]
) -> bool:
    """Tell whether every transition between region states is an event; `limits` as `uprobes_for` left them."""
    placed = {spec.kind for spec in specs} - {one.spec.kind for one in skipped}
    partly = {all_of_role(kind) for kind in (*_STATE_ROLES, Kind.FAULT)}
    return placed >= _STATE_ROLES and not any(limit.what in partly for limit in limits)


def _strace(pid: int, reason: str, launched: Launched | None) -> Plan:
    source = StraceSource(pid, from_exec=launched is not None)
    source.start()
    limits = [
        Limit(
            "the runtime's own events (reserve, map, used, ...) and who made each system call",
            "strace sees system calls only",
            "use --backend bpf",
        )
    ]
    return Plan("strace", reason, source, limits=limits)


class FromExec:
    """Lets pass what a launched program did after it became the program, without that exec itself."""

    def __init__(self) -> None:
        self._after = AfterExec()
        self._marks = no_events()

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Return the events behind the first EXEC; what was being watched for by then is watched for from it on."""
        if self._after.seen:
            return batch
        after = self._after.filter(batch)
        before = batch[: len(batch) - len(after)]
        self._marks = np.concatenate((self._marks, before[np.isin(before["kind"], _ON)]))
        if not self._after.seen:
            return after
        last = self._marks[::-1][np.unique(self._marks["kind"][::-1], return_index=True)[1]]
        last["time"] = after["time"][0]
        return np.concatenate((last, after[1:]))


def watch_target(
    inspector: Inspector,
    plan: Plan,
    seconds: float | None,
    stop: Callable[[], bool],
    launched: Launched | None = None,
    facts: ProcessFacts | None = None,
    recorder: Recorder | None = None,
) -> Report:
    """Watch with a started plan, stop it, and return the report; `facts` if they were read already.

    A `recorder` gets all that the report is made of, and so can make it again.
    """
    facts = facts or inspector.facts()
    spent = usage.cpu_seconds()
    plugins = _plugins(inspector, plan)
    symbolize = naming(inspector, plugins)
    activity = Activity(symbolize)
    # The log of a launched program counts from its first event, which is before our first look.
    started = time.monotonic_ns() if launched is None else None
    if started is not None:
        activity.mark_start(started)
    if recorder is not None:
        recorder.begin(_beginning(facts, plan, started), symbolize, lambda: _overhead(plan, spent, None))
    follower = _follower(plan, activity)
    if plan.uprobes:
        plugins.search()
    watch = Watch(inspector, plan.source, activity, FromExec() if launched else _all, recorder, follower, plugins)
    cpu_before = inspector.target_cpu_seconds()
    try:
        ending = watch.run(seconds, stop, launched=launched is not None)
        cpu_after = inspector.target_cpu_seconds()
    finally:
        watch.finish()
        plugins.close()
    limits = [*plan.limits, *([ending.early] if ending.early else []), *_broken_off(plan.source), *plugins.limits]
    target_cpu = None if cpu_before is None or cpu_after is None else cpu_after - cpu_before
    watched = Watched(
        backend=plan.backend,
        reason=plan.reason,
        seconds=round(ending.seconds, 3),
        activity=activity if plan.source else None,
        lost=plan.source.lost if plan.source else 0,
        overhead=_overhead(plan, spent, target_cpu, ending.seconds),
        limits=limits,
        follower=follower,
    )
    return _finished(facts, watch.look, watched, recorder)


def report_of_the_ended(
    facts: ProcessFacts, program: GoProgram, plan: Plan, recorder: Recorder | None = None
) -> Report:
    """Return the report of a launched program that ended before its state could be read: its events only."""

    def symbolize(address: int) -> str | None:
        return program.symbolize(address, _fixed_bias(program))

    spent = usage.cpu_seconds()
    activity = Activity(symbolize)
    if recorder is not None:
        recorder.begin(_beginning(facts, plan, None), symbolize, lambda: _overhead(plan, spent, None))
    if plan.source is not None:
        plan.source.stop()
        batch = FromExec()(plan.source.poll(0))
        activity.feed(batch)
        if recorder is not None:
            recorder.events(batch, time.monotonic_ns(), plan.source.lost)
    why = "the program ended before it could be looked at"
    watched = Watched(
        backend=plan.backend,
        reason=plan.reason,
        seconds=0.0,
        activity=activity if plan.source else None,
        lost=plan.source.lost if plan.source else 0,
        overhead=_overhead(plan, spent, None),
        limits=[*plan.limits, Limit("its state: virtual, resident, heap", why, "trace a program that runs longer")],
    )
    return _finished(facts, None, watched, recorder)


def _plugins(inspector: Inspector, plan: Plan) -> Plugins:
    """Return what finds the target's plugins and probes them as the program was."""

    def specs_for(plugin: GoProgram) -> list[UprobeSpec]:
        return uprobes_for(plugin, plan.limits, inspector.program.layout)

    def attach(specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        return plan.source.add_uprobes(specs) if isinstance(plan.source, BpfSource) else []

    return Plugins(inspector.target, inspector.program, specs_for, attach)


def _follower(plan: Plan, activity: Activity) -> Follower | None:
    if plan.source is None:
        return None
    return Follower(activity, AddressSpaceModel(callers=activity.callers), follows_states=plan.sees_states)


def _beginning(facts: ProcessFacts, plan: Plan, started: int | None) -> Beginning:
    now, clock = time.monotonic_ns(), time.time_ns()
    return Beginning(facts, plan.backend, plan.reason, plan.limits, plan.sees_states, started, now, clock)


def _finished(facts: ProcessFacts, look: Look | None, watched: Watched, recorder: Recorder | None) -> Report:
    taken_at = _rfc3339_now()
    if recorder is not None:
        recorder.end(Ending(watched.seconds, taken_at, watched.overhead, watched.lost, list(watched.limits)))
    return assemble(facts, look, watched, taken_at)


def _fixed_bias(program: GoProgram) -> int | None:
    return 0 if program.executable is not None and not program.executable.pie else None


def snapshot_target(inspector: Inspector, *, freeze: bool = False) -> Report:
    """Return the report of the state now, without watching; `freeze` stops the target while it is read."""
    spent = usage.cpu_seconds()
    facts = inspector.facts()
    look = inspector.look_frozen() if freeze else inspector.look()
    plan = Plan("procfs", "a snapshot needs no events", None)
    watched = Watched("procfs", plan.reason, 0.0, None, 0, _overhead(plan, spent, None))
    return assemble(facts, look, watched, _rfc3339_now())


def _broken_off(source: EventSource | None) -> list[Limit]:
    """Return a limit if strace ended although the target lives on, or the kernel refused governed probes."""
    if isinstance(source, BpfSource):
        return [limit for governed in source.governed for limit in refused_limits(governed)]
    if isinstance(source, StraceSource) and source.failure:
        return [Limit("events until the end", source.failure, "trace again, or use --backend bpf")]
    return []


def refused_limits(governed: GovernedUprobes) -> list[Limit]:
    """Return what is not seen because the kernel refused probes; of rare roles what it refused at once is not in it."""
    if not governed.failure:
        return []
    if governed.manner is SPANS:
        return [Limit(WHAT, f"the probes could not be put on: {governed.failure}", "")]
    if not governed.were_on:
        return []
    roles = sorted({spec.kind for spec in governed.specs})
    return [Limit(all_of_role(kind), f"its probes could not be put on again: {governed.failure}", "") for kind in roles]


def _all(batch: EventBatch) -> EventBatch:
    return batch


def _overhead(plan: Plan, before: float, target_cpu: float | None, seconds: float = 0.0) -> Overhead:
    probes = plan.source.probes() if plan.source else []
    estimate = slowdown(probes, plan.uprobes, target_cpu, seconds) if plan.backend == "bpf" else None
    return Overhead(
        tracer_cpu_seconds=round(usage.cpu_seconds() - before, 4),
        tracer_rss=usage.resident_bytes(),
        probes=[ProbeRow(probe.role, probe.symbol, probe.hits) for probe in probes],
        target_slowdown_estimate=None if estimate is None else round(estimate, 6),
    )


def _rfc3339_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

