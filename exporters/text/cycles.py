"""The section on GC cycles: what each of them found, and what happened until the next."""

from __future__ import annotations

from statistics import median

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import UNKNOWN, number, percent, plural, seconds, size
from gomem.tracer.report import GcCycleRow, Report

_LAST = 8
_COLUMNS = {
    "at": Column("at"),
    "mark": Column("mark"),
    "heap": Column("heap", worth=3),
    "marked": Column("marked"),
    "goal": Column("goal", worth=1),
    "scavenged": Column("scavenged", worth=2),
    "spans": Column("spans", worth=4),
}


def cycles(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the last GC cycles, and how long all of them marked; a percentage says how much of its spans was watched."""
    every = report.gc_cycles
    if not every:
        return None
    with_spans = any(cycle.spans is not None for cycle in every)
    names = [name for name in _COLUMNS if with_spans or name != "spans"]
    rows = [[_cells(cycle)[name] for name in names] for cycle in every[-_LAST:]]
    columns = [_COLUMNS[name] for name in names]
    hidden = len(every) - len(rows)
    more = words((f"the last {_LAST} of {number(len(every))} (--format json has them)", "dim")) if hidden else None
    return section(_heading(every), table(columns, rows, look), more)


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
