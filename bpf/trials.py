"""What of the BPF backend works on this machine, what does not, and how to fix it: tried by doing it.

The programs are those that `gomem trace` loads, and they are attached as it attaches them, to a process that was made
for it. Its uprobe sits on its program's first instruction, where it never comes again.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace

from gomem.bpf import bcc_import
from gomem.bpf.allocations import AllocationProbes
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.call_functions import are_kprobes_there
from gomem.bpf.probes.call_tracepoints import CallTracepoints
from gomem.bpf.probes.uprobe_program import Attached
from gomem.bpf.probes.uprobes import close_all
from gomem.bpf.program import TargetIds, ensure_pidfds, target_ids
from gomem.bpf.residency_roles import Residency
from gomem.bpf.shared_program import ONE, SharedProgram
from gomem.bpf.tracepoints import Tracepoints
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import GomemError
from gomem.tracer.events.optional_roles import RESIDENCY_ROLES, OptionalRole
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.layout.tables import known_minors, nearest_table
from gomem.tracer.machine.checks import Check, tried
from gomem.tracer.process.guardian import Guardian
from gomem.tracer.runtime.size_classes import SizeClasses

PROGRAMS, TRACEPOINTS, CALLS, UPROBES = "BPF programs", "tracepoints", "tracefs", "uprobes"
FUNCTIONS, KPROBES = "fentry", "kprobes"
MULTI, PERF = "uprobe_multi", "perf-event uprobes"
SPANS, ALLOCATIONS = f"--with {OptionalRole.SPANS.value}", "--allocs"
_WAYS: dict[Attached, str] = {
    "multi": "one link for all probes",
    "perf": "one perf event for each probe",
    "copies": "one perf event and one copy of the program for each probe: this kernel keeps no cookies (Linux 5.15)",
}
_RING_BYTES = 1 << 16
_ENTRY_AT = 24  # elf(5): e_entry


def check_bpf(pid: int) -> list[Check]:
    """Try everything that BpfSource does, upon a process that may be probed. Takes about two seconds.

    The later checks are left out where an earlier one makes them impossible.
    """
    return list(_checks(pid))


def _checks(pid: int) -> Iterator[Check]:
    try:
        bcc = bcc_import.import_bcc()
    except GomemError as error:
        yield Check("bcc", False, error.what, error.fix)
        return
    yield Check("bcc", True, f"version {getattr(bcc, '__version__', 'unknown')}")
    program: SharedProgram | None = None
    try:
        ensure_pidfds()
        program = SharedProgram(_RING_BYTES, 1024, replace(ONE, spans=True), anew=True)
        yield Check(PROGRAMS, True, "those of trace compile without kernel headers, and the kernel takes them")
        yield tried(TRACEPOINTS, lambda: _attach_tracepoints(program))
        yield _optional(CALLS, lambda: _attach_calls(program))
        fentry = _optional(FUNCTIONS, lambda: _attach_functions(program))
        yield fentry
        if not fentry.ok and are_kprobes_there():
            yield _optional(KPROBES, lambda: _attach_kprobes(program))
        yield from _uprobes(program, pid)
        yield _optional(SPANS, lambda: _spans(program))
        yield _optional(ALLOCATIONS, lambda: _allocations(pid))
        yield from _residency(pid, target_ids(pid))
    except GomemError as error:
        yield Check(PROGRAMS, False, error.what, error.fix)
    finally:
        if program is not None:
            program.close()


def _attach_tracepoints(program: SharedProgram) -> str:
    Tracepoints(program).close()
    return "raw tracepoints of system calls and processes; no tracefs needed"


def _attach_calls(program: SharedProgram) -> str:
    calls = CallTracepoints(program.call_tracepoint("on_call_enter"), program.call_tracepoint("on_call_exit"))
    rest = calls.close()
    if rest is not None:
        rest.join()
    return "tracepoints of single system calls: watching that lasts costs other calls less"


def _attach_functions(program: SharedProgram) -> str:
    program.call_functions("functions").close()
    return "functions of the memory calls (fentry, fexit): watching that lasts costs other calls nothing"


def _attach_kprobes(program: SharedProgram) -> str:
    program.call_functions("kprobes").close()
    return "functions of the memory calls (kprobes): watching that lasts costs other calls nothing"


def _uprobes(program: SharedProgram, pid: int) -> Iterator[Check]:
    """Try both ways of attaching: one of them is enough."""
    with Executable.open(f"/proc/{pid}/exe") as exe:
        if exe.served is not None:
            yield Check(UPROBES, None, f"not tried: gomem is on a file system ({exe.served}) that others serve", "")
            return
        entry = exe.file_offset(int.from_bytes(exe.read_at(_ENTRY_AT, 8), "little"))
        spec = UprobeSpec("fault", EventKind.FAULT, "_start", f"/proc/self/fd/{exe.fd}", entry)

        def attach(backend: Attached) -> str:
            runs = program.uprobe_by(backend)
            if backend == "multi" and not uprobes.multi_supported(runs.fd):
                raise uprobes.no_multi()
            held, skipped = uprobes.attach(runs, [spec], pid)
            close_all(held)
            if skipped:
                raise uprobes.unavailable(skipped)
            return _WAYS[backend]

        # Where the kernel has cookies, no copies were prepared.
        by_events: Attached = "copies" if program.backend == "copies" else "perf"
        multi, perf = _optional(MULTI, lambda: attach("multi")), _optional(PERF, lambda: attach(by_events))
    yield multi
    yield perf
    works = bool(multi.ok or perf.ok)
    by = MULTI if multi.ok else PERF
    yield Check(UPROBES, works, f"by {by}" if works else perf.detail, "" if works else perf.fix)


def _spans(program: SharedProgram) -> str:
    program.span_uprobe()
    return "the kernel takes the program for span events"


def _allocations(pid: int) -> str:
    """Load what counts allocations; the sizes are those of any release."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    major, minor = max(known_minors(machine), default=(1, 0))
    sizes = SizeClasses.of(nearest_table(f"go{major}.{minor}", machine))
    probes = AllocationProbes(target_ids(pid), [], sizes, pid)
    in_bursts = probes.backend == "multi"
    probes.close()
    return "in bursts within --budget" if in_bursts else "with --budget 100 only: probes go on and off too slowly here"


def _residency(pid: int, ids: TargetIds) -> Iterator[Check]:
    guardian = Guardian()
    try:
        for role in sorted(RESIDENCY_ROLES):
            residency = Residency(pid, ids, [role], guardian)
            missing = residency.limits()
            residency.stop(0, lambda: False)
            name = f"--with {OptionalRole(role).value}"
            yield Check(name, None, missing[0].why, missing[0].fix) if missing else Check(name, True, "works")
    finally:
        guardian.close()


def _optional(name: str, act: Callable[[], str]) -> Check:
    """Try what something else can stand in for."""
    check = tried(name, act)
    return check if check.ok else Check(name, None, check.detail, check.fix)
