"""Rules on address space: VSZ, which is mostly no memory, and the limits that count it all the same."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import AddressLimits, Finding, Report, Virtual, stat
from gomem.tracer.report.findings.base import LARGE, MIB, mib
from gomem.tracer.report.findings.user_mappings import without_access

EMPTY_FACTOR: Final = 4  # VSZ this many times RSS makes people ask
UNTOUCHED_SHARE: Final = 0.25  # of Ready
LIMIT_NEAR: Final = 0.90  # of a limit of address space
# What the Go heap takes at least when it grows: address space by arenas (heapArenaBytes), of these chunks to be written
# (pallocChunkBytes, runtime/mheap.go).
ARENA: Final = 64 * MIB
CHUNK: Final = 4 * MIB
NEVER: Final = 2  # vm.overcommit_memory: private writable mappings count, touched or not


def reserved_address_space(report: Report) -> Finding | None:
    """VSZ is far above RSS because most of it is only an address range."""
    virtual, resident = report.virtual, report.resident
    if virtual is None or resident is None or virtual.reserved is None or virtual.prepared is None:
        return None
    closed = virtual.unmanaged_no_access or 0
    held = _held(virtual)
    empty = virtual.reserved + virtual.prepared + closed - (held or 0)
    if virtual.total < EMPTY_FACTOR * resident.total or empty < LARGE:
        return None
    counted = _counted(report.address_limits, virtual.prepared)
    by_program = (
        f"; the program or its libraries have mapped {mib(closed)} without access{without_access(report)}"
        if closed >= LARGE
        else ""
    )
    return Finding(
        id="reserved-address-space",
        severity="info",
        title=f"VSZ is {mib(virtual.total)}, but {mib(empty)} of it is only address space",
        explanation=f"The Go runtime has {mib(virtual.reserved + virtual.prepared)} ahead of need (PROT_NONE, never "
        f"touched, or scavenged){by_program}. {_ram(held, report.address_limits)} "
        + _limits(report.address_limits, counted),
        evidence={
            "virtual_total": virtual.total,
            "reserved": virtual.reserved,
            "prepared": virtual.prepared,
            "unmanaged_no_access": virtual.unmanaged_no_access,
            "held": held,
            "locked": report.address_limits.locked if report.address_limits else None,
            "resident_total": resident.total,
        },
        action=(
            "Limit RAM by the cgroup (memory.max) and GOMEMLIMIT, not by address space. Alert on RSS, not on VSZ."
            if counted
            else "Nothing to do. Alert on RSS or on the cgroup's memory, not on VSZ."
        ),
        actionable=bool(counted),
    )


def _held(virtual: Virtual) -> int | None:
    """Return the bytes of ranges that are called empty which are in RAM all the same, None where it is not known."""
    in_ram = virtual.resident
    return None if in_ram is None else in_ram.reserved + in_ram.prepared + in_ram.unmanaged_no_access


def _ram(held: int | None, limits: AddressLimits | None) -> str:
    if held is None:
        return "Most of it holds no RAM."
    if not held:
        return "It holds no RAM."
    locked = limits is not None and (limits.locked or 0) >= held
    why = " (the process locks its memory: mlock)" if locked else ""
    return f"Of these ranges {mib(held)} are in RAM all the same{why}; the rest holds none."


def _counted(limits: AddressLimits | None, prepared: int) -> list[str]:
    """Return in words which limits count how much of such address space; what is PROT_NONE counts towards one only."""
    if limits is None:
        return []
    counted = ["RLIMIT_AS counts all of it"] if limits.address_space is not None else []
    if prepared >= LARGE:
        writable = f"counts {mib(prepared)} of it that are mapped writable"
        counted += [f"RLIMIT_DATA {writable}"] if limits.data is not None else []
        if limits.overcommit == NEVER:
            counted.append(f"the machine's CommitLimit (vm.overcommit_memory is 2) {writable}")
    return counted


def _limits(limits: AddressLimits | None, counted: list[str]) -> str:
    if limits is not None and not counted:
        return "No limit that is set counts it."
    return ", but ".join(("The cgroup's limit and GOMEMLIMIT do not count it", *counted)) + "."


def near_address_space_limit(report: Report) -> Finding | None:
    """VSZ is close to RLIMIT_AS."""
    limits, virtual = report.address_limits, report.virtual
    if limits is None or virtual is None or limits.address_space is None:
        return None
    return _near(
        report,
        "near-address-space-limit",
        ("VSZ", virtual.total),
        ("RLIMIT_AS", limits.address_space),
        ARENA,
        "It counts all address space, also where no RAM is behind it (ulimit -v, LimitAS=).",
        "Raise or remove RLIMIT_AS; to limit RAM, use the cgroup's memory.max and GOMEMLIMIT.",
    )


def near_data_limit(report: Report) -> Finding | None:
    """Private writable mappings are close to RLIMIT_DATA."""
    limits = report.address_limits
    if limits is None or limits.data is None or limits.data_used is None:
        return None
    return _near(
        report,
        "near-data-limit",
        ("Private writable memory", limits.data_used),
        ("RLIMIT_DATA", limits.data),
        CHUNK,
        "It counts private writable mappings, touched or not (ulimit -d, LimitDATA=).",
        "Raise or remove RLIMIT_DATA; to limit RAM, use the cgroup's memory.max and GOMEMLIMIT.",
    )


def _near(
    report: Report, name: str, used: tuple[str, int], limit: tuple[str, int], step: int, counts: str, action: str
) -> Finding | None:
    left = limit[1] - used[1]
    stuck = report.heap is not None and left < step
    if used[1] < LIMIT_NEAR * limit[1] and not stuck:
        return None
    share = f" ({used[1] / limit[1]:.0%})" if limit[1] else ""
    return Finding(
        id=name,
        severity="warning",
        title=f"{used[0]} is {mib(used[1])} of {limit[0]} {mib(limit[1])}{share}: "
        + (f"{mib(left)} are left" if left > 0 else "nothing is left"),
        explanation=f"{counts} At the limit mmap fails"
        + (
            f": Go ends with a fatal error as soon as its heap has to grow by another {step // MIB} MiB."
            if stuck
            else ", which few programs survive."
        ),
        evidence={"used": used[1], "limit": limit[1], "left": left},
        action=action,
    )


def near_commit_limit(report: Report) -> Finding | None:
    """Say that the machine does not overcommit, and has nearly committed all that it may."""
    limits = report.address_limits
    if limits is None or limits.overcommit != NEVER or not limits.commit_limit or limits.committed is None:
        return None
    if limits.committed < LIMIT_NEAR * limits.commit_limit:
        return None
    return Finding(
        id="near-commit-limit",
        severity="warning",
        title=f"The machine has committed {mib(limits.committed)} of {mib(limits.commit_limit)}",
        explanation="vm.overcommit_memory is 2: private writable mappings of all processes count towards CommitLimit, "
        "touched or not. At the limit mmap and fork fail, whatever RAM is free.",
        evidence={
            "committed": limits.committed,
            "commit_limit": limits.commit_limit,
            "data_used": limits.data_used,
        },
        action="Raise vm.overcommit_ratio or add swap; or set vm.overcommit_memory to 0.",
    )


def ready_not_resident(report: Report) -> Finding | None:
    """Memory that the runtime counts as Ready was never touched, or was swapped out."""
    virtual = report.virtual
    if virtual is None or virtual.ready is None or report.kinds is None:
        return None
    in_ram = [(row.ready, row.resident, row.swap) for row in report.kinds if row.ready]
    # Resident bytes of a kind may lie in its Prepared parts: this is a lower bound of what is absent.
    known = [max(0, ready - now - out) for ready, now, out in in_ram if now is not None and out is not None]
    absent = sum(known)
    if len(known) < len(in_ram) or absent < LARGE or absent < UNTOUCHED_SHARE * virtual.ready:
        return None
    return Finding(
        id="ready-not-resident",
        severity="info",
        title=f"Go counts {mib(absent)} as in use that holds no RAM yet",
        explanation="Mapped and ready, but never touched: the kernel gives RAM at the first access only. "
        "So MemStats.Sys is above what the process really costs (32 MiB of it is the runtime's heap index).",
        evidence={"ready": virtual.ready, "ready_not_resident": absent, "sys": stat(report, "Sys")},
        action="Nothing to do.",
        actionable=False,
    )
