"""Where events come from: the backend that was asked for, or the best that works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from msgspec import structs

from gomem.bpf.cost import slowdown
from gomem.bpf.governor import DEFAULT_BUDGET, SHARE_FOR_USED, GovernedUprobes, govern_used
from gomem.bpf.source import BpfSource
from gomem.tracer.errors import BackendUnavailable, NotPermitted
from gomem.tracer.events.optional_roles import OptionalRole, not_seen
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.source import EventSource, ProbeStatus
from gomem.tracer.events.strace.source import StraceSource
from gomem.tracer.machine import usage
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Limit, Overhead, ProbeRow
from gomem.tracer.watch.allocations import AllocationWatch, watch_allocations
from gomem.tracer.watch.probes import PlannedProbes, plan_probes
from gomem.tracer.watch.span_probes import governed_spans, layout_for_probes

Backend = Literal["auto", "bpf", "strace", "procfs"]

_NO_EVENTS = Limit(
    "no-events",
    "what happened while watching",
    "the procfs backend sees states, not events",
    "use --backend bpf, or --backend strace (which stops the target at each of its system calls)",
)
_WITHOUT_BPF = "without BPF: --backend strace or procfs"
_STRACE = "use --backend strace, which stops the target at each of its system calls"


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """What to watch and how; `seconds` None: until the target ends or Ctrl-C comes."""

    pid: int | None
    command: tuple[str, ...]
    seconds: float | None
    backend: Backend
    require_go: bool
    freeze: bool = False
    optional: frozenset[OptionalRole] = frozenset()
    budget: float = DEFAULT_BUDGET  # share of the target's time
    follow_children: bool = False
    output_aside: bool = False  # a command's standard output goes to ours for errors: the report has the other
    stop_filtered: bool = False  # freeze it, or let strace stop it, also under a seccomp filter
    look_share: float | None = None  # of our time at the most, if looks shall come at that price
    look_every: float | None = None  # seconds between two looks, if somebody minds; more where a look takes long
    module: str = ""  # the file whose Go runtime is meant; "": whichever there is


@dataclass(frozen=True, slots=True)
class StartedBackend:
    """The event source that was chosen, started, and why; `source` is None for procfs.

    `limits`: what it does not see, as known when it had started.
    """

    name: Literal["bpf", "strace", "procfs"]
    reason: str
    source: EventSource | None = None
    bpf: BpfSource | None = None  # the source, where it can be told which program to probe
    uprobes: Sequence[UprobeSpec] = ()
    limits: Sequence[Limit] = ()
    sees_states: bool = False  # every transition between region states is an event
    lost_before: int = 0  # events, and hits: of programs that the process ran before
    hits_before: Sequence[ProbeStatus] = ()
    allocations: AllocationWatch | None = None

    @property
    def lost(self) -> int:
        """How many events are known to be lost so far."""
        return self.source.lost - self.lost_before if self.source is not None else 0

    def later_limits(self) -> list[Limit]:
        """Return what has become known since it started."""
        now = self.source.limits() if self.source is not None else []
        return [limit for limit in now if limit not in self.limits]

    def overhead(self, tracer_cpu: float, target_cpu: float | None = None, seconds: float = 0.0) -> Overhead:
        """Return what it has cost in `seconds` of watching; CPU times in seconds, the target's None if unknown."""
        probes = self._probes()
        prices = self.allocations.prices if self.allocations is not None else {}
        estimate = slowdown(probes, self.uprobes, target_cpu, seconds, prices) if self.name == "bpf" else None
        return Overhead(
            tracer_cpu_seconds=round(tracer_cpu, 4),
            tracer_rss=usage.resident_bytes(),
            probes=[ProbeRow(probe.role, probe.symbol, probe.hits) for probe in probes],
            target_slowdown_estimate=None if estimate is None else round(estimate, 6),
        )

    def _probes(self) -> list[ProbeStatus]:
        before = {(probe.role, probe.symbol): probe.hits for probe in self.hits_before}
        now = self.source.probes() if self.source is not None else []
        own = self.allocations.probes() if self.allocations is not None else []
        return [*(replace(probe, hits=probe.hits - before.get((probe.role, probe.symbol), 0)) for probe in now), *own]


def start_backend(request: TraceRequest, pid: int, program: GoProgram, *, launched: bool = False) -> StartedBackend:
    """Start the backend that was asked for, or with "auto" the best that works.

    "auto" never falls back to strace on a running process: ptrace would stop it at every system call, which nobody
    asked for. A program that was launched to be traced may be slowed. Raises BackendUnavailable or NotPermitted
    with the reason when the backend named does not work. Of the optional roles only BPF has any; those
    that are governed may take the request's budget.
    """
    backend = _started(request, pid, program, launched=launched)
    if backend.name == "bpf":
        return backend
    missed = not_seen(request.optional, f"the backend {backend.name} does not see it")
    return replace(backend, limits=[*backend.limits, *missed])


def _started(request: TraceRequest, pid: int, program: GoProgram, *, launched: bool) -> StartedBackend:
    if request.backend == "procfs":
        return StartedBackend("procfs", "asked for", limits=[_NO_EVENTS])
    if request.backend == "strace":
        return _strace(request, pid, "asked for", "use --backend bpf", launched=launched)
    if request.backend == "bpf":
        try:
            return _bpf(request, pid, program, "asked for")
        except (BackendUnavailable, NotPermitted) as error:
            error.fix = "; ".join(filter(None, (error.fix, _WITHOUT_BPF)))
            raise
    try:
        return _bpf(request, pid, program, "the best that works here")
    except (BackendUnavailable, NotPermitted) as error:
        why_not_bpf = f"BPF does not work here: {error.what}"
        bpf_fix = error.fix
    if launched:
        try:
            return _strace(request, pid, why_not_bpf, bpf_fix, launched=True)
        except (BackendUnavailable, NotPermitted) as error:
            why_not_bpf += f"; strace neither: {error.what}"
            no_events = structs.replace(_NO_EVENTS, why=why_not_bpf, fix=bpf_fix)
            return StartedBackend("procfs", why_not_bpf, limits=[no_events])
    fix = f"{bpf_fix}; or {_STRACE}" if bpf_fix else _STRACE
    return StartedBackend("procfs", why_not_bpf, limits=[structs.replace(_NO_EVENTS, why=why_not_bpf, fix=fix)])


def _bpf(request: TraceRequest, pid: int, program: GoProgram, reason: str) -> StartedBackend:
    probes = _Probes.of(request, program)
    source = BpfSource(
        pid, probes.others, governed=probes.governed, optional=request.optional,
        has_int_0x80=program.may_make_compat_calls(),
    )  # fmt: skip
    source.start()
    return _with_allocations(
        _with_probes(StartedBackend("bpf", reason, source, source), probes, source), request, program
    )


def next_program(backend: StartedBackend, request: TraceRequest, program: GoProgram) -> StartedBackend:
    """Let a started backend tell of the program that the process executes now; what it told before counts no more."""
    source = backend.source
    if source is None:
        return backend
    backend = replace(backend, lost_before=source.lost)
    if backend.bpf is None:
        return replace(backend, hits_before=tuple(source.probes()))
    probes = _Probes.of(request, program)
    backend.bpf.change_program(probes.others, probes.governed, has_int_0x80=program.may_make_compat_calls())
    following = replace(backend, hits_before=tuple(source.probes()), allocations=None)
    return _with_allocations(_with_probes(following, probes, backend.bpf), request, program)


@dataclass(frozen=True, slots=True)
class _Probes:
    """The uprobes for one program."""

    planned: PlannedProbes
    others: Sequence[UprobeSpec]
    used: GovernedUprobes | None
    spans: GovernedUprobes | None
    no_spans: Sequence[Limit]

    @classmethod
    def of(cls, request: TraceRequest, program: GoProgram) -> _Probes:
        planned = plan_probes(program, layout_for_probes(program))
        others, used = govern_used(planned.specs, request.budget * SHARE_FOR_USED)
        wanted = OptionalRole.SPANS in request.optional
        spans, no_spans = governed_spans(program, request.budget) if wanted else (None, [])
        return cls(planned, others, used, spans, no_spans)

    @property
    def governed(self) -> list[GovernedUprobes]:
        return [one for one in (self.used, self.spans) if one is not None]


def _with_probes(backend: StartedBackend, probes: _Probes, source: BpfSource) -> StartedBackend:
    """Return the backend with what its probes see, which are on."""
    skipped = [*source.skipped, *(probes.used.refused if probes.used is not None else ())]
    return replace(
        backend,
        uprobes=[*probes.planned.specs, *(probes.spans.specs if probes.spans is not None else ())],
        limits=[*probes.planned.limits, *probes.no_spans, *source.limits()],
        sees_states=probes.planned.sees_states(skipped),
    )


def _with_allocations(backend: StartedBackend, request: TraceRequest, program: GoProgram) -> StartedBackend:
    """Return the backend with what counts allocations, if that was asked for."""
    source = backend.bpf
    if source is None or OptionalRole.ALLOCATIONS not in request.optional:
        return backend
    watch, missing = watch_allocations(program, source.pid, request.budget, source.keeper)
    return replace(backend, allocations=watch, limits=[*backend.limits, *missing])


def _strace(request: TraceRequest, pid: int, reason: str, fix: str, *, launched: bool) -> StartedBackend:
    source = StraceSource(pid, from_exec=launched, filtered=request.stop_filtered)
    source.start()
    limit = Limit(
        "no-runtime-events",
        "the runtime's own events (reserve, map, used, ...) and who made each system call",
        "strace sees system calls only",
        fix,
    )
    return StartedBackend("strace", reason, source, limits=[limit])
