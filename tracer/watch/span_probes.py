"""The probes for span events: where a program has them, and why not where it has none."""

from __future__ import annotations

from gomem.bpf.governor import GovernedUprobes
from gomem.bpf.probes.placing import place
from gomem.tracer.errors import BackendUnavailable, BinaryError, LayoutError
from gomem.tracer.events.optional_roles import OptionalRole, no_role
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import SPAN_ROLES
from gomem.tracer.layout.layout import Layout
from gomem.tracer.layout.roles import resolve_roles
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Limit


def governed_spans(program: GoProgram, budget: float) -> tuple[GovernedUprobes | None, list[Limit]]:
    """Return the probes for span events, not attached yet; None and why where the program cannot be probed.

    `budget`: the share of the target's time that they may take.
    """
    try:
        specs = span_uprobes(program)
    except (LayoutError, BackendUnavailable, BinaryError) as error:
        return None, [no_role(OptionalRole.SPANS, error.what, error.fix)]
    if {spec.kind for spec in specs} != set(SPAN_ROLES):
        return None, [_unknown(program)]
    return GovernedUprobes(specs, budget), []


def _unknown(program: GoProgram) -> Limit:
    if program.layout is not None and program.layout.source == "table" and layout_for_probes(program) is None:
        why = f"the struct layouts of {program.release} have to prove themselves on a running process first"
        return no_role(OptionalRole.SPANS, why, "start the program, then: gomem trace --pid PID --with spans")
    why = "it takes a Go release whose functions and struct layouts are known for certain, and Go 1.17 or later"
    return no_role(OptionalRole.SPANS, why, "use snapshots: they show the spans that there are")


def span_uprobes(program: GoProgram) -> list[UprobeSpec]:
    """Return the uprobes of SPAN_ROLES. Raises LayoutError, BackendUnavailable or BinaryError."""
    exe, functions = program.executable, program.functions
    if exe is None or functions is None:
        return []
    roles = resolve_roles(program.release, exe.machine, program.has_function)
    wanted = [probe for probe in roles if probe.kind in SPAN_ROLES]
    return place(exe, functions, wanted, layout=layout_for_probes(program))


def layout_for_probes(program: GoProgram) -> Layout | None:
    """Return the layout if it is certain: what a probe reads by it nothing else checks.

    Certain is a program's own DWARF, and a table of its own minor release that was measured for it or has proven
    itself on a live process. Of another minor release nobody knows whether its functions take the same arguments.
    """
    layout = program.layout
    if layout is None or layout.source == "nearest":
        return None
    return layout if layout.confirmed or layout.source == "dwarf" else None
