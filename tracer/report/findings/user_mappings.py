"""Rules on what the program has mapped for itself, by the function that did it."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import CallerMappings, Finding, Report
from gomem.tracer.report.findings.base import LARGE, mib

SHARE: Final = 0.20  # of RSS
_MOST_OF: Final = 0.50  # of what is told to be somebody's
_CALLERS: Final = 4


def user_mappings(report: Report) -> Finding | None:
    """Say which function has mapped much of RSS."""
    found, resident = report.user_mappings, report.resident
    if found is None or resident is None or not found.by_caller:
        return None
    named = [row for row in found.by_caller if row.function is not None]
    held = sum(row.sums.resident for row in named)
    if held < LARGE or held < SHARE * resident.total:
        return None
    first = named[0]
    return Finding(
        id="user-mappings",
        severity="info",
        title=f"{mib(held)} of {mib(resident.total)} RSS is in mappings that {_who(named)} made",
        explanation=f"The most by {first.function} ({_chain(first)}): {first.sums.mappings:,} "
        f"{'mappings' if first.sums.mappings != 1 else 'mapping'} of {mib(first.sums.virtual)}, "
        f"{mib(first.sums.resident)} of it in RAM. They were made by mmap while the process was watched, and are still "
        "mapped. Go's heap profile, MemStats and GOMEMLIMIT do not see them.",
        evidence={
            "function": first.function,
            "resident": held,
            "resident_of_function": first.sums.resident,
            "mapped_of_function": first.sums.virtual,
            "mappings_of_function": first.sums.mappings,
            "resident_total": resident.total,
        },
        action="Look at that function: whether it unmaps what it no longer needs, and how much it maps at once.",
    )


def _who(rows: list[CallerMappings]) -> str:
    others = len({row.function for row in rows}) - 1
    more = f" and {others} other function{'s' if others > 1 else ''}" if others > 0 else ""
    return f"{rows[0].function}{more}"


def _chain(row: CallerMappings) -> str:
    """Return by whom the function was called, a few of them."""
    names = [name.removesuffix(".abi0") for name in row.callers]
    behind = names[names.index(row.function) + 1 :] if row.function in names else []
    called = [name for name in behind if not name.startswith("0x")][:_CALLERS]
    return f"called by {', '.join(called)}" if called else "which nobody with a name called"


def without_access(report: Report) -> str:
    """Return in words who reserved most of what is mapped without access; "" where it was not seen.

    It fits behind "mapped ... without access".
    """
    found = report.user_mappings
    if found is None or not found.sums.no_access:
        return ""
    named = [row for row in found.by_caller or () if row.function is not None and row.sums.no_access]
    worst = max(named, key=lambda row: row.sums.no_access, default=None)
    if worst is not None and worst.sums.no_access >= _MOST_OF * found.sums.no_access:
        count = f" in {worst.sums.mappings:,} mappings" if worst.sums.mappings > 1 else ""
        return f", {mib(worst.sums.no_access)} of it by {worst.function}{count}"
    largest = max(found.largest, key=lambda one: one.no_access, default=None)
    if largest is None or largest.no_access < LARGE:
        return ""
    return f", {mib(largest.no_access)} of it in one range at {largest.start:#x}"
