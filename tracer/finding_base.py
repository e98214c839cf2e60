"""What the rules of `findings` share: how they read figures, and how they say them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracer.report import Finding, Heap, Report

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# Under these an amount is noise on any machine that runs Go services.
NOTEWORTHY: Final = 16 * MIB
LARGE: Final = 64 * MIB

# math.MaxInt64 (GOMEMLIMIT off) and math.MaxUint64 (no heap goal) mean "none" in the runtime.
RUNTIME_NONE: Final = 1 << 62

Evidence = dict[str, int | float | str | None]
Rule = Callable[[Report], Finding | None]


def stat(report: Report, name: str) -> int | None:
    """Return one figure of runtime.MemStats, None where it could not be had."""
    value = (report.memstats or {}).get(name)
    return value if isinstance(value, int) else None


def resident_of(report: Report, *kinds: str) -> int | None:
    """Return the resident bytes of these kinds of mappings, None where nobody knows."""
    if report.kinds is None:
        return None
    return sum(row.resident for row in report.kinds if row.kind in kinds)


def sys_minus_released(report: Report) -> int | None:
    """Return the bytes that GOMEMLIMIT is held against: Sys - HeapReleased (runtime/mgcpacer.go)."""
    sys, released = stat(report, "Sys"), stat(report, "HeapReleased")
    return None if sys is None or released is None else sys - released


def lazy_free(report: Report) -> int:
    """Return the lazily freed bytes that RSS still counts; 0 where unknown."""
    return (report.resident.lazy_free or 0) if report.resident else 0


def memory_limit(heap: Heap | None) -> int | None:
    """Return GOMEMLIMIT in bytes, None where none is set."""
    if heap is None or heap.memory_limit is None or heap.memory_limit >= RUNTIME_NONE:
        return None
    return heap.memory_limit


def mib(count: int | float) -> str:
    """Return bytes as a person says them in a sentence (a finding is data: no renderer formats its words)."""
    if count >= 9.95 * GIB:
        return f"{count / GIB:.0f} GiB"
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    if count >= 9.95 * MIB:
        return f"{count / MIB:.0f} MiB"
    return f"{count / MIB:.1f} MiB" if count >= 0.95 * MIB else f"{count / KIB:.0f} KiB"
