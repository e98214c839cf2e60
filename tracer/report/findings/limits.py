"""Rules on limits: the cgroup's, GOMEMLIMIT, GOGC, and RAM itself."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import RUNTIME_NONE, Finding, Report
from gomem.tracer.report.findings.base import (
    LARGE,
    MIB,
    NOTEWORTHY,
    Evidence,
    holders_command,
    lazy_free,
    memory_limit,
    mib,
    resident_of,
)

CGROUP_NEAR: Final = 0.90  # of memory.max: reclaim starts to cost
CGROUP_FULL: Final = 0.97  # of memory.max: the next burst is an OOM kill
HIGH_REACHED: Final = 0.99  # of memory.high: usage hovers just below while the kernel reclaims
LIMIT_HEADROOM: Final = 0.90  # of memory.max: GOMEMLIMIT does not count the binary, C memory and page cache
HEADROOM: Final = 0.95  # of what is left for Go
GOAL_FACTOR: Final = 3.0  # heap goal over live heap; GOGC=100 gives 2


def near_cgroup_limit(report: Report) -> Finding | None:
    """Say that the cgroup is nearly full."""
    cgroup = report.process.cgroup
    if cgroup is None or cgroup.memory_current is None or not cgroup.memory_max:
        return None
    used = cgroup.memory_current / cgroup.memory_max
    if used < CGROUP_NEAR:
        return None
    resident = report.resident
    # Page cache is charged to the cgroup too, but reclaimed before anybody is killed: only what is
    # anonymous and not lazily freed is beyond help. Other processes may share the cgroup: a lower bound.
    firm = None if resident is None or resident.anonymous is None else resident.anonymous - lazy_free(report)
    full = firm is not None and firm >= CGROUP_FULL * cgroup.memory_max
    command = holders_command(report)
    back = report.cgroup_bills[0].reclaimable if report.cgroup_bills else None
    cache = "Part of it may be" if back is None else f"{mib(back)} of it is"
    return Finding(
        id="near-cgroup-limit",
        severity="critical" if full else "warning",
        title=f"The cgroup uses {mib(cgroup.memory_current)} of its {mib(cgroup.memory_max)} ({used:.0%})",
        explanation="At the limit the kernel first drops page cache and lazily freed pages, then kills. "
        + (
            f"{mib(firm)} of this process is neither: an OOM kill is near."
            if full and firm is not None
            else f"{cache} page cache and the like, which it can take back."
        ),
        evidence={
            "memory_current": cgroup.memory_current,
            "memory_max": cgroup.memory_max,
            "not_reclaimable": firm,
            "oom_kill": cgroup.oom_kill,
        },
        action="Compare with memory.stat (anon, file) of the cgroup"
        + (f" (`gomem pod {report.process.pid}`)" if command is not None else "")
        + "; raise the limit or set GOMEMLIMIT below it."
        + (
            ""
            if command is None
            else f" `{command}`, where this report was taken, shows who holds this process's part."
        ),
    )


def over_memory_high(report: Report) -> Finding | None:
    """Say that the kernel throttles the cgroup at memory.high."""
    cgroup = report.process.cgroup
    if cgroup is None or cgroup.memory_current is None or not cgroup.memory_high:
        return None
    if cgroup.memory_current < HIGH_REACHED * cgroup.memory_high:
        return None
    return Finding(
        id="over-memory-high",
        severity="warning",
        title=f"The cgroup uses {mib(cgroup.memory_current)}, at its memory.high of {mib(cgroup.memory_high)}",
        explanation="From there on the kernel slows every allocation of the group down and reclaims. It kills nobody, "
        "but the program may seem to hang.",
        evidence={"memory_current": cgroup.memory_current, "memory_high": cgroup.memory_high},
        action="Raise memory.high, or set GOMEMLIMIT below it.",
    )


def oom_kills(report: Report) -> Finding | None:
    """Say that the cgroup has seen OOM kills."""
    cgroup = report.process.cgroup
    if cgroup is None or not cgroup.oom_kill:
        return None
    return Finding(
        id="oom-kills",
        severity="warning",
        title=f"The cgroup has seen {cgroup.oom_kill} OOM kill{'s' if cgroup.oom_kill != 1 else ''}",
        explanation="The kernel killed processes of this cgroup because it was at its memory limit.",
        evidence={"oom_kill": cgroup.oom_kill, "memory_max": cgroup.memory_max},
        action="Raise the limit, or give the program a GOMEMLIMIT below it.",
    )


def gomemlimit_and_cgroup(report: Report) -> Finding | None:
    """Compare the limit of the cgroup with the one that the Go runtime knows."""
    cgroup, heap = report.process.cgroup, report.heap
    if cgroup is None or heap is None or not cgroup.memory_max:
        return None
    limit = memory_limit(heap)
    evidence: Evidence = {
        "memory_max": cgroup.memory_max,
        "memory_limit": limit,
        "outside_of_go": _outside_of_go(report),
    }
    if limit is None:
        return Finding(
            id="gomemlimit-unset",
            severity="info",
            title=f"The cgroup is limited to {mib(cgroup.memory_max)}, but GOMEMLIMIT is not set",
            explanation="The collector does not know the limit and may let the heap grow past it.",
            evidence=evidence,
            action=_limit_to_set(report, cgroup.memory_max),
        )
    if limit <= LIMIT_HEADROOM * cgroup.memory_max:
        return None
    above = limit > cgroup.memory_max
    return Finding(
        id="gomemlimit-above-cgroup" if above else "gomemlimit-without-headroom",
        severity="warning" if above else "info",
        title=f"GOMEMLIMIT is {mib(limit)} in a cgroup of {mib(cgroup.memory_max)}",
        explanation="The kernel kills before the Go runtime starts to save."
        if above
        else "GOMEMLIMIT does not count the program's text, C memory and page cache: little room is left for them.",
        evidence=evidence,
        action=_limit_to_set(report, cgroup.memory_max),
    )


def _limit_to_set(report: Report, most: int) -> str:
    outside = _outside_of_go(report)
    if outside is None or outside >= most:
        return f"Set GOMEMLIMIT to about 90 % of the limit ({int(most * 0.9) // MIB}MiB)."
    room = int((most - outside) * HEADROOM) // MIB
    return (
        f"Set GOMEMLIMIT={room}MiB: {mib(outside)} of this process are outside of Go and cannot be dropped, and "
        f"{1 - HEADROOM:.0%} is left for what comes. Other processes of the cgroup take their part of that."
    )


def _outside_of_go(report: Report) -> int | None:
    """Return the bytes in RAM that the kernel cannot drop and GOMEMLIMIT does not count."""
    resident = report.resident
    go = resident_of(report, "heap_arena", "heap_metadata", "page_summary", "runtime_other")
    if resident is None or resident.anonymous is None or go is None:
        return None
    firm = resident.anonymous + (resident.shmem or 0) + (resident.file_locked or 0)
    return max(firm - go, 0)


def goal_far_above_live(report: Report) -> Finding | None:
    """GOGC lets the heap grow to a multiple of what is alive."""
    heap = report.heap
    if heap is None or not heap.goal or not heap.live or heap.gc_percent is None or heap.gc_percent <= 0:
        return None
    # An unset goal is MaxUint64 in the runtime; it says nothing of GOGC.
    if heap.goal >= RUNTIME_NONE or heap.goal < GOAL_FACTOR * heap.live or heap.goal - heap.live < LARGE:
        return None
    return Finding(
        id="goal-far-above-live",
        severity="info",
        title=f"The heap may grow to {mib(heap.goal)} before the next collection; {mib(heap.live)} are alive",
        explanation=f"GOGC is {heap.gc_percent}: memory is traded for fewer collections.",
        evidence={"goal": heap.goal, "live": heap.live, "gc_percent": heap.gc_percent},
        action="Lower GOGC, or set GOMEMLIMIT, if the memory is needed elsewhere.",
    )


def collector_off(report: Report) -> Finding | None:
    """GOGC=off without a memory limit: the heap only grows."""
    heap = report.heap
    if heap is None or heap.gc_percent is None or heap.gc_percent >= 0 or memory_limit(heap) is not None:
        return None
    return Finding(
        id="collector-off",
        severity="warning",
        title="The garbage collector is off (GOGC=off) and no GOMEMLIMIT is set",
        explanation="Nothing is ever freed: the heap grows until the process ends or is killed.",
        evidence={"gc_percent": heap.gc_percent, "heap_inuse": heap.pages.in_use},
        action="Set GOMEMLIMIT together with GOGC=off, or leave GOGC on.",
    )


def swapped(report: Report) -> Finding | None:
    """Part of the process is in swap."""
    resident = report.resident
    if resident is None or resident.swap is None or resident.swap < NOTEWORTHY:
        return None
    return Finding(
        id="swapped",
        severity="warning",
        title=f"{mib(resident.swap)} is swapped out",
        explanation="Every collection reads the whole live heap: with parts of it in swap it becomes very slow.",
        evidence={"swap": resident.swap, "resident_total": resident.total},
        action="Give the machine or the cgroup more memory, or the program a GOMEMLIMIT.",
    )
