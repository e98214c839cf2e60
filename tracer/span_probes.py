"""The probes for span events: where a program has them, and why not where it has none."""

from __future__ import annotations

from bpf.governor import GovernedUprobes
from bpf.placing import place
from bpf.uprobes import UprobeSpec
from tracer.errors import BackendUnavailable, BinaryError, LayoutError
from tracer.events import SPAN_ROLES
from tracer.layout.layout import Layout
from tracer.layout.roles import resolve_roles
from tracer.optional_roles import DESCRIPTIONS, OptionalRole
from tracer.program import GoProgram
from tracer.report import Limit

WHAT = DESCRIPTIONS[OptionalRole.SPANS]  # as limits name it


def governed_spans(program: GoProgram, budget: float, limits: list[Limit]) -> GovernedUprobes | None:
    """Return the probes for span events, not attached yet; None with a limit where the program cannot be probed.

    `budget`: the share of the target's time that they may take.
    """
    try:
        specs = span_uprobes(program)
    except (LayoutError, BackendUnavailable, BinaryError) as error:
        limits.append(Limit(WHAT, error.what, error.fix))
        return None
    if {spec.kind for spec in specs} != set(SPAN_ROLES):
        why = "it takes a Go release whose functions and struct layouts are known for certain, and Go 1.17 or later"
        limits.append(Limit(WHAT, why, "use snapshots: they show the spans that there are"))
        return None
    return GovernedUprobes(specs, budget)


def span_uprobes(program: GoProgram) -> list[UprobeSpec]:
    """Return the uprobes of SPAN_ROLES. Raises LayoutError, BackendUnavailable or BinaryError."""
    exe, functions = program.executable, program.functions
    if exe is None or functions is None:
        return []
    roles = resolve_roles(program.release, exe.machine, program.has_function)
    wanted = [probe for probe in roles if probe.kind in SPAN_ROLES]
    return place(exe, functions, wanted, layout=layout_for_probes(program))


def layout_for_probes(program: GoProgram) -> Layout | None:
    """Return the layout if it is certain: what a probe reads by it nothing else checks."""
    layout = program.layout
    return layout if layout is not None and (layout.confirmed or layout.source == "dwarf") else None
