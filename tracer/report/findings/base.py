"""What the rules of `findings` share: how they read figures, and how they say them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gomem.tracer.report import RUNTIME_NONE, Finding, Heap, Report

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# Under these an amount is noise on any machine that runs Go services.
NOTEWORTHY: Final = 16 * MIB
LARGE: Final = 64 * MIB

Evidence = dict[str, int | float | str | None]
Rule = Callable[[Report], Finding | None]


def resident_of(report: Report, *kinds: str) -> int | None:
    """Return the resident bytes of these kinds of mappings, None where nobody knows."""
    if report.kinds is None:
        return None
    told = [row.resident for row in report.kinds if row.kind in kinds]
    known = [resident for resident in told if resident is not None]
    return sum(known) if len(known) == len(told) else None


def lazy_free(report: Report) -> int:
    """Return the lazily freed bytes that RSS still counts; 0 where unknown."""
    return (report.resident.lazy_free or 0) if report.resident else 0


def memory_limit(heap: Heap | None) -> int | None:
    """Return GOMEMLIMIT in bytes, None where none is set."""
    if heap is None or heap.memory_limit is None or heap.memory_limit >= RUNTIME_NONE:
        return None
    return heap.memory_limit


# Limits of reports whose process, or whose program, had ended before they were made.
_ENDED: Final = frozenset({"ended-early", "chapter-end"})


def profile_command(report: Report) -> str | None:
    """Return the command that shows who holds the heap; None where the report's process is not there to be asked.

    The pid is the one that the process has in the PID namespace in which the report was taken.
    """
    over = report.backend == "replay" or report.ending is not None or any(row.id in _ENDED for row in report.limits)
    return None if over or not report.process.pid else f"gomem profile {report.process.pid}"


def goroutines_command(report: Report) -> str | None:
    """Return the command that shows its goroutines; None where the process is not there to be asked."""
    return None if profile_command(report) is None else f"gomem goroutines {report.process.pid}"


def holders_command(report: Report) -> str | None:
    """Return the command that shows who holds each byte of RSS; None where the process is not there to be asked."""
    command = profile_command(report)
    return None if command is None else f"{command} --kind resident"


def mib(count: int | float) -> str:
    """Return bytes as a person says them in a sentence (a finding is data: no renderer formats its words)."""
    if count >= 9.95 * GIB:
        return f"{count / GIB:.0f} GiB"
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    if count >= 9.95 * MIB:
        return f"{count / MIB:.0f} MiB"
    return f"{count / MIB:.1f} MiB" if count >= 0.95 * MIB else f"{count / KIB:.0f} KiB"
