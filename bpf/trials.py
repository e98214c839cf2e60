"""What of the BPF backend works on this machine, what does not, and how to fix it: tried by doing it.

The programs are those that `gomem trace` loads, and they are attached as it attaches them, to a process that was made
for it. Its uprobe sits on its program's first instruction, where it never comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gomem.bpf import bcc_import
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.call_tracepoints import CallTracepoints
from gomem.bpf.probes.uprobes import Attached, close_all
from gomem.bpf.program import TargetIds, target_ids
from gomem.bpf.residency_roles import Residency
from gomem.bpf.shared_program import ONE, SharedProgram
from gomem.bpf.tracepoints import Tracepoints
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import GomemError
from gomem.tracer.events.optional_roles import RESIDENCY_ROLES, OptionalRole
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.machine.checks import Check, tried
from gomem.tracer.process.guardian import Guardian

PROGRAMS, TRACEPOINTS, CALLS, UPROBES = "BPF programs", "tracepoints", "tracefs", "uprobes"
MULTI, PERF = "uprobe_multi", "perf-event uprobes"
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
        program = SharedProgram(_RING_BYTES, 1024, ONE)
        yield Check(PROGRAMS, True, "those of trace compile without kernel headers, and the kernel takes them")
        yield tried(TRACEPOINTS, lambda: _attach_tracepoints(program))
        yield _optional(CALLS, lambda: _attach_calls(program))
        yield from _uprobes(program, pid)
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


def _uprobes(program: SharedProgram, pid: int) -> Iterator[Check]:
    """Try both ways of attaching: one of them is enough."""
    with Executable.open(f"/proc/{pid}/exe") as exe:
        if exe.served is not None:
            yield Check(UPROBES, None, f"not tried: gomem is on a file system ({exe.served}) that others serve", "")
            return
        entry = exe.file_offset(int.from_bytes(exe.read_at(_ENTRY_AT, 8), "little"))
        spec = UprobeSpec("fault", EventKind.FAULT, "_start", f"/proc/self/fd/{exe.fd}", entry)

        def attach(backend: Attached) -> str:
            if backend == "multi" and not uprobes.multi_supported(program.uprobe("multi")):
                raise uprobes.no_multi()
            held, skipped = uprobes.attach(program.uprobe(backend), [spec], pid, backend)
            close_all(held)
            if skipped:
                raise uprobes.unavailable(skipped)
            return "one link for all probes" if backend == "multi" else "one perf event for each probe"

        multi, perf = _optional(MULTI, lambda: attach("multi")), _optional(PERF, lambda: attach("perf"))
    yield multi
    yield perf
    works = bool(multi.ok or perf.ok)
    by = MULTI if multi.ok else PERF
    yield Check(UPROBES, works, f"by {by}" if works else perf.detail, "" if works else perf.fix)


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
