"""The section on GC cycles: what each of them found, and what happened until the next."""

from __future__ import annotations

from statistics import median

from rich.console import RenderableType

from exporters.page import Look, section, table, words
from exporters.units import UNKNOWN, number, percent, plural, seconds, size
from tracer.report import GcCycleRow, Report

_LAST = 8
_NARROW, _WIDE = 72, 92  # columns of a page that leaves nearly everything out, and nothing


def cycles(report: Report, look: Look) -> RenderableType | None:
    """Show the last GC cycles, and how long all of them marked; a percentage says how much of its spans was watched."""
    every = report.gc_cycles
    if not every:
        return None
    with_spans = any(cycle.spans is not None for cycle in every)
    needs = {"goal": _WIDE if with_spans else _NARROW, "scavenged": _NARROW}
    names = ("at", "mark", "heap", "marked", "goal", "scavenged", *(["spans"] if with_spans else []))
    columns = [name for name in names if look.width >= needs.get(name, 0)]
    rows = [[_cells(cycle)[name] for name in columns] for cycle in every[-_LAST:]]
    hidden = len(every) - len(rows)
    more = words((f"the last {_LAST} of {number(len(every))} (--format json has them)", "dim")) if hidden else None
    return section(_heading(every), table(columns, rows, left=0), more)


def _heading(every: list[GcCycleRow]) -> str:
    times = [cycle.mark_seconds for cycle in every if cycle.mark_seconds is not None]
    if not times:
        return plural(len(every), "GC cycle")
    of_one = f", median {seconds(median(times))}, longest {seconds(max(times))}"
    return f"{plural(len(every), 'GC cycle')} marked for {seconds(sum(times))}{of_one if len(times) > 1 else ''}"


def _cells(cycle: GcCycleRow) -> dict[str, str]:
    return {
        "at": f"{cycle.started:.2f} s" if cycle.started is not None else "before",
        "mark": seconds(cycle.mark_seconds) if cycle.ended is not None or cycle.started is None else "going on",
        "heap": size(cycle.heap_before),
        "marked": size(cycle.heap_after),
        "goal": size(cycle.goal),
        "scavenged": _scavenged(cycle),
        "spans": _spans(cycle),
    }


def _scavenged(cycle: GcCycleRow) -> str:
    """Return the bytes that were given back during the cycle and until the next one."""
    parts = [part for part in (cycle.scavenged_during, cycle.scavenged_after) if part is not None]
    return size(sum(parts)) if parts else UNKNOWN


def _spans(cycle: GcCycleRow) -> str:
    seen = cycle.spans
    if seen is None or seen.watched_share == 0:
        return "not watched"
    counts = f"+{number(seen.allocated)} -{number(seen.freed)}"
    return counts if seen.watched_share > 0.995 else f"{counts} ({percent(seen.watched_share, 1)})"
