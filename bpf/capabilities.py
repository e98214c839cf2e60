"""What of the BPF backend works on this machine, what does not, and how to fix it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from bpf import bcc_import, syscalls, uprobes
from bpf.bcc_import import NEEDS_BPF
from bpf.program import Program, TargetIds
from tracer.checks import Check
from tracer.errors import GomemError

_CAPABILITIES = {"CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


def check_bpf() -> list[Check]:
    """Try everything that BpfSource does, upon this very process. Takes about half a second.

    The later checks are left out where an earlier one makes them impossible.
    """
    return list(_checks())


def bpf_usable(checks: list[Check]) -> bool:
    """Whether the BPF backend would work."""
    return all(check.ok is not False for check in checks)


def _checks() -> Iterator[Check]:
    try:
        yield _capabilities()
    except OSError as error:
        yield Check("capabilities", False, f"unknown: /proc/self/status: {error.strerror}", "mount -t proc proc /proc")
        return
    try:
        bcc = bcc_import.import_bcc()
    except GomemError as error:
        yield Check("bcc", False, error.what, error.fix)
        return
    yield Check("bcc", True, f"version {getattr(bcc, '__version__', 'unknown')}")
    program: Program | None = None
    try:
        program = Program(TargetIds(os.getpid()), 1 << 16, 1024)
        yield Check("BPF programs", True, "compile without kernel headers; ring buffer and maps work")
        yield _tracepoints(program)
        yield from _uprobes(program)
    except GomemError as error:
        yield Check("BPF programs", False, error.what.splitlines()[0], error.fix)
    finally:
        if program is not None:
            program.close()


def _capabilities() -> Check:
    status = Path("/proc/self/status").read_text()
    mask = int(status.partition("CapEff:")[2].split()[0], 16)
    have = [name for name, bit in _CAPABILITIES.items() if mask >> bit & 1]
    admin = "CAP_SYS_ADMIN" in have
    ok = (admin or {"CAP_BPF", "CAP_PERFMON"} <= set(have)) and "CAP_SYS_PTRACE" in have
    fix = "" if ok else "run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE"
    return Check("capabilities", ok, ", ".join(have) or "none of those that matter", fix)


def _tracepoints(program: Program) -> Check:
    try:
        for name, function in (("sys_exit", "on_sys_exit"), ("sched_process_exec", "on_exec")):
            os.close(syscalls.open_raw_tracepoint(program.tracepoint(function), name))
    except GomemError as error:
        return Check("tracepoints", False, error.what.splitlines()[0], error.fix)
    except OSError as error:
        return Check("tracepoints", False, f"cannot be attached: {error.strerror}", _fix(error))
    return Check("tracepoints", True, "raw tracepoints of system calls and processes; no tracefs needed")


def _uprobes(program: Program) -> Iterator[Check]:
    try:
        multi = uprobes.multi_supported(program.uprobe("multi"))
    except GomemError:
        multi = False
    detail = "one link for all probes" if multi else "not in this kernel (Linux 6.6): perf events instead"
    yield Check("uprobe_multi", multi or None, detail)
    pmu = uprobes.uprobe_pmu_type()
    detail = f"type {pmu}" if pmu is not None else "not in this kernel, or there is no /sys to tell"
    needed = False if not multi else None
    yield Check("uprobe PMU", pmu is not None or needed, detail, "needs CONFIG_UPROBE_EVENTS" if pmu is None else "")


def _fix(error: OSError) -> str:
    return NEEDS_BPF if error.errno in (errno.EPERM, errno.EACCES) else "use --backend strace"
