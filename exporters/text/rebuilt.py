"""The section on an address space that was rebuilt from a log of system calls."""

from __future__ import annotations

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import clean, number, size
from gomem.tracer.report import RebuiltRange, Report

_MOST_ROWS = 16
_COLUMNS = (
    Column("bytes"),
    Column("ranges", worth=1),
    Column("may", left=True),
    Column("first at", left=True, worth=3),
    Column("looks like", left=True, worth=2, wraps=24),
)


def rebuilt(report: Report, look: PageStyle) -> RenderableType | None:
    """Show what the log's calls mapped, by what it looks like and how it may be accessed, the largest first."""
    if report.rebuilt is None:
        return None
    groups: dict[tuple[str, str, str], list[RebuiltRange]] = {}
    for row in report.rebuilt:
        what = (row.looks_like or ("a file" if row.file else "anonymous memory")).partition(",")[0]
        groups.setdefault((row.protection, what, row.by or ""), []).append(row)
    ordered = sorted(groups.items(), key=lambda group: -sum(row.size for row in group[1]))
    rows = [
        (
            size(sum(row.size for row in ranges)),
            number(len(ranges)),
            protection,
            f"{min(row.start for row in ranges):#x}",
            clean(what, 48) + (f" (by {clean(by, 24)})" if by else ""),
        )
        for (protection, what, by), ranges in ordered[:_MOST_ROWS]
    ]
    more = len(ordered) - len(rows)
    tail = words((f"and {number(more)} more kinds (--format json has every range)", "dim")) if more else None
    title = "Rebuilt from the log; what it looks like is recognised, not proven"
    return section(title, table(_COLUMNS, rows, look), tail)
