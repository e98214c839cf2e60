"""How near a process is to its end for want of memory: pure, from what a look and its cgroup's figures say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.proc.small_files import colon_fields, kib_field
from gomem.tracer.report import Report

NEAR = 0.8  # of a limit
_MEMINFO = Path("/proc/meminfo")


def machine_available() -> int | None:
    """Return MemAvailable, the bytes that processes of this machine can still get; None if the kernel does not tell."""
    try:
        return kib_field(colon_fields(_MEMINFO.read_bytes()), "MemAvailable")
    except OSError:
        return None


def nearness(report: Report, cgroup: CgroupMemory | None, available: int | None) -> float | None:
    """Return the share that is used of the limit that is nearest, 1 at the limit; None where nothing is known.

    The limits are that of the memory cgroup, against what the kernel cannot take back; GOMEMLIMIT, against what the
    collector and the scavenger cannot; and the machine's memory, of which the process could have its RSS and what is
    `available`, bytes.
    """
    return max(_shares(report, cgroup, available), default=None)


def will_be_near(near: float, before: float | None, seconds: float, ahead: float) -> bool:
    """Tell whether a process is near a limit, or will be in `ahead` seconds if it goes on as it did.

    `before`: its nearness so many `seconds` ago, None if that is not known.
    """
    growth = max(near - before, 0.0) / seconds if before is not None and seconds > 0 else 0.0
    return near + growth * ahead >= NEAR


def _shares(report: Report, cgroup: CgroupMemory | None, available: int | None) -> Iterator[float]:
    resident = report.resident
    anonymous = (resident.anonymous or 0) if resident is not None else 0
    limit = cgroup.max if cgroup is not None else None
    if limit is None and report.process.cgroup is not None:
        limit = report.process.cgroup.memory_max
    if limit:
        # The cgroup's figures may be as old as an interval; what this process has of its own is of the look.
        held = (cgroup.unreclaimable or 0) if cgroup is not None else 0
        yield max(held, anonymous) / limit
    use = report.heap.limit_use if report.heap is not None else None
    if use is not None and use.limit:
        yield (use.total - use.garbage - use.retained) / use.limit
    if resident is not None and available is not None and resident.total + available > 0:
        yield resident.total / (resident.total + available)
