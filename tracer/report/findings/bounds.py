"""Rules on what bounds a process beside RAM: mappings, threads, locked memory, CPU quota; and calls that failed."""

from __future__ import annotations

import math
from typing import Final

from gomem.tracer.report import Bound, FailedCalls, Finding, Report
from gomem.tracer.report.findings.base import mib

NEAR: Final = 0.90  # of a limit
FEW_THREADS: Final = 4  # that Go may start at any time: a fatal error if it cannot
THROTTLED: Final = 0.10  # of the periods
_LEAST_PROCS: Final = 2  # that the runtime chooses by itself under any quota (Go 1.25)
_ASKING: Final = ("mmap", "mremap", "mprotect", "brk")
_LACK: Final = ("ENOMEM", "EAGAIN")
_PROBING: Final = 1 << 46  # bytes that nobody can have: a runtime that finds out what it gets (Go on macOS)
MAPPINGS: Final = "vm.max_map_count"
LOCKED: Final = "RLIMIT_MEMLOCK"
_RAISE: Final = {
    "RLIMIT_NPROC": "Raise the limit (ulimit -u, LimitNPROC=): it counts the threads of all processes of this user, "
    "also of those in other containers.",
    "pids.max": "Raise pids.max (docker --pids-limit, the kubelet's podPidsLimit, TasksMax=).",
    "kernel.threads-max": "Raise kernel.threads-max, or look for who has so many.",
}  # fmt: skip
THREADS: Final = tuple(_RAISE)


def _of(report: Report, *names: str) -> list[Bound]:
    """Return the bounds of these names that hold, and of which the distance is known."""
    return [bound for bound in report.bounds or () if bound.name in names and bound.left is not None]


def _is_near(bound: Bound, least: int = 0) -> bool:
    return bound.limit is not None and ((bound.used or 0) >= NEAR * bound.limit or (bound.left or 0) < least)


def near_mapping_limit(report: Report) -> Finding | None:
    """Say that the process has nearly as many mappings as it may."""
    for bound in _of(report, MAPPINGS):
        if _is_near(bound):
            return Finding(
                id="near-mapping-limit",
                severity="warning",
                title=f"The process has {bound.used:,} mappings of the {bound.limit:,} that it may have",
                explanation="At vm.max_map_count mmap, mprotect and munmap of a part fail with ENOMEM, whatever "
                "memory is free: Go ends with a fatal error when its heap has to grow.",
                evidence={"used": bound.used, "limit": bound.limit, "left": bound.left},
                action="Look in /proc/PID/maps for what there is so much of (files mapped one by one, guard pages, "
                "madvise of single pages), and raise vm.max_map_count.",
            )
    return None


def near_thread_limit(report: Report) -> Finding | None:
    """Few more threads can be started."""
    near = [bound for bound in _of(report, *THREADS) if _is_near(bound, FEW_THREADS)]
    if not near:
        return None
    bound = min(near, key=lambda one: one.left or 0)
    where = f" of {bound.cgroup}" if bound.cgroup else ""
    return Finding(
        id="near-thread-limit",
        severity="warning",
        title=f"{bound.used:,} tasks of {bound.name}{where} {bound.limit:,}: "
        + (f"{bound.left:,} more can be started" if bound.left else "none more can be started"),
        explanation="Each thread is a task. Go starts one for every system call or cgo call that blocks; where it "
        "cannot, it ends with a fatal error (newosproc, or pthread_create: Resource temporarily unavailable).",
        evidence={"used": bound.used, "limit": bound.limit, "left": bound.left},
        action=_RAISE[bound.name],
    )


def near_memlock_limit(report: Report) -> Finding | None:
    """Nearly as much memory is locked as may be."""
    for bound in _of(report, LOCKED):
        if bound.used and _is_near(bound):
            return Finding(
                id="near-memlock-limit",
                severity="warning",
                title=f"{mib(bound.used)} of RLIMIT_MEMLOCK {mib(bound.limit or 0)} are locked",
                explanation="At the limit mlock fails; after mlockall(MCL_FUTURE) every mmap does (EAGAIN), and Go "
                "ends with a fatal error when its heap has to grow.",
                evidence={"used": bound.used, "limit": bound.limit, "left": bound.left},
                action="Raise the limit (ulimit -l, LimitMEMLOCK=), or lock less.",
            )
    return None


def gomaxprocs_above_quota(report: Report) -> Finding | None:
    """Say that the runtime works on more CPUs at a time than its cgroup may use."""
    cpu = report.cpu
    if cpu is None or cpu.quota is None or cpu.gomaxprocs is None:
        return None
    fitting = max(math.ceil(cpu.quota), _LEAST_PROCS)
    if cpu.gomaxprocs <= fitting:
        return None
    share = cpu.throttled_share
    throttled = share is not None and share >= THROTTLED
    return Finding(
        id="gomaxprocs-above-quota",
        severity="warning" if throttled else "info",
        title=f"GOMAXPROCS is {cpu.gomaxprocs}, but the cgroup may use {cpu.quota:g} CPUs"
        + (f": it was throttled in {share:.0%} of its periods" if throttled and share is not None else ""),
        explanation="So many threads use the quota up early in a period and then all wait for the next, also in the "
        "middle of a collection: allocations wait, and the heap grows past its goal. Each P has caches of its own, "
        "too.",
        evidence={
            "gomaxprocs": cpu.gomaxprocs,
            "quota": cpu.quota,
            "periods": cpu.periods,
            "throttled": cpu.throttled,
            "throttled_seconds": cpu.throttled_seconds,
        },
        action=f"Set GOMAXPROCS={fitting}. Go 1.25 and later choose it by themselves where go.mod says go 1.25 and "
        "neither GOMAXPROCS nor GODEBUG=containermaxprocs=0 is set.",
    )


def memory_calls_failed(report: Report) -> Finding | None:
    """Say that calls for memory failed while watching."""
    failed = [
        one for one in report.failed_calls or ()
        if one.call in _ASKING and one.error in _LACK and (one.largest or 0) < _PROBING
    ]  # fmt: skip
    if not failed:
        return None
    count, worst = sum(one.count for one in failed), max(failed, key=lambda one: (one.largest or 0, one.count))
    size = f" of {mib(worst.largest)}" if worst.largest is not None else ""
    by = f" by {worst.function}" if worst.function else ""
    return Finding(
        id="memory-calls-failed",
        severity="warning",
        title=f"{count:,} call{'s' if count != 1 else ''} for memory failed; the largest was {worst.call}{size}{by} "
        f"({worst.error})",
        explanation=_why(report, worst),
        evidence={"count": count, "largest": worst.largest, "call": worst.call, "error": worst.error,
                  "function": worst.function},
        action="Raise the limit that is named, or ask for less. Where none is, compare with CommitLimit and the size "
        "of RAM: with vm.overcommit_memory 0 the kernel refuses what is larger than RAM and swap together.",
    )  # fmt: skip


def _why(report: Report, worst: FailedCalls) -> str:
    """Return which limit leaves less than was asked for."""
    wanted = worst.largest or 1
    short = [bound for bound in _of(report, "RLIMIT_AS", "RLIMIT_DATA", "CommitLimit") if (bound.left or 0) < wanted]
    short += [bound for bound in _of(report, MAPPINGS) if (bound.left or 0) < 2]
    if not short:
        return "No limit of the process that is known leaves less than was asked for."
    told = [f"{bound.name} leaves {mib(bound.left or 0) if bound.unit == 'bytes' else bound.left}" for bound in short]
    return f"{' and '.join(told)}, less than was asked for."
