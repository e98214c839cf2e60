"""The default uprobes of a program: all rare roles, and what of them cannot be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gomem.bpf.probes.placing import place
from gomem.tracer.errors import BackendUnavailable, BinaryError, GomemError, LayoutError
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import RARE_ROLES, EventKind
from gomem.tracer.events.role_limits import some_unseen
from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.roles import resolve_roles
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Limit

# A runtime that never gives address space back to Reserved may have no sysFault.
_STATE_ROLES = frozenset(
    (EventKind.RESERVE, EventKind.MAP, EventKind.USED, EventKind.UNUSED, EventKind.FREE, EventKind.ALLOC)
)


@dataclass(frozen=True, slots=True)
class PlannedProbes:
    """Uprobes that are not on a process yet; `partly` has the roles of which some calls will not be seen."""

    specs: tuple[UprobeSpec, ...] = ()
    limits: tuple[Limit, ...] = ()
    partly: frozenset[EventKind] = frozenset()

    def parts(self) -> tuple[tuple[UprobeSpec, ...], tuple[Limit, ...]]:
        """Return the uprobes and the limits, as plugins want them."""
        return self.specs, self.limits

    def sees_states(self, skipped: Sequence[SkippedUprobe]) -> bool:
        """Tell whether every transition between region states is an event; `skipped`: what the kernel refused."""
        placed = {spec.kind for spec in self.specs} - {one.spec.kind for one in skipped}
        return placed >= _STATE_ROLES and not self.partly & {*_STATE_ROLES, EventKind.FAULT}


def _not_probed(error: GomemError) -> Limit:
    return Limit("runtime-events", "the runtime's own events", error.what, error.fix)


def plan_probes(program: GoProgram, layout: Layout | None = None) -> PlannedProbes:
    """Return the default uprobes of a program; what cannot be probed becomes a limit.

    With a `layout` they also read fields of structs, which not every source can do.
    """
    exe, functions = program.executable, program.functions
    if exe is None or functions is None:
        return PlannedProbes()
    try:
        probes = resolve_roles(program.release, exe.machine, program.has_function)
    except LayoutError as error:
        return PlannedProbes(limits=(_not_probed(error),))
    rare = [probe for probe in probes if probe.kind in RARE_ROLES]
    missing = [probe for probe in rare if probe.misses]
    limits = tuple(some_unseen(probe.kind, probe.misses) for probe in missing)
    partly = frozenset(probe.kind for probe in missing)
    try:
        return PlannedProbes(tuple(place(exe, functions, rare, layout=layout)), limits, partly)
    except (BackendUnavailable, BinaryError) as error:
        return PlannedProbes((), (*limits, _not_probed(error)), partly)
