"""The section on spans that came and went."""

from __future__ import annotations

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import number, percent, plural, seconds, size
from gomem.tracer.report import Report, SpanChurnRow, SpanEvents

_RUNTIME_PAGE = 8192
_TOP = 8
_COLUMNS = {
    "class": Column("class", left=True),
    "object": Column("object", worth=2),
    "came": Column("came"),
    "went": Column("went"),
    "a second": Column("a second", worth=3),
    "pages came": Column("pages came", worth=4),
    "pages went": Column("pages went", worth=1),
    "lived": Column("lived", worth=5),
}

Cells = dict[str, str]


def spans(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the span classes with the most pages that came and went, per second of the time that was watched."""
    seen = report.span_events
    if seen is None:
        return None
    per_second = 1 / seen.watched_seconds if seen.watched_seconds > 0 else 0.0
    ordered = sorted(seen.classes, key=_pages, reverse=True)
    rows = [_cells(row, per_second) for row in ordered[:_TOP]]
    rest = ordered[_TOP:]
    if rest:
        rows.append(_sum_cells(f"{len(rest)} more", rest, per_second))
    if len(ordered) > 1:
        rows.append(_sum_cells("sum", ordered, per_second))
    # Before Go 1.20 the address of a new span is not known.
    names = [name for name in _COLUMNS if name != "lived" or any(row.lives for row in ordered)]
    shown = table([_COLUMNS[name] for name in names], [[row[name] for name in names] for row in rows], look)
    return section(_heading(seen), words((_watched(seen), "dim")), shown if rows else None)


def _heading(seen: SpanEvents) -> str:
    return f"Spans that came {number(seen.allocated)}, went {number(seen.freed)}"


def _watched(seen: SpanEvents) -> str:
    """Return for how much of the time somebody watched: what is told is of that alone."""
    said = f"watched for {seconds(seen.watched_seconds)}, {percent(seen.watched_share, 1)} of the time"
    if seen.stops:
        times = "once" if seen.stops == 1 else plural(seen.stops, "time")
        said += f"; stopped {times} by the budget of {100 * seen.budget:g}%"
    return said


def _pages(row: SpanChurnRow) -> int:
    return row.allocated_pages + row.freed_pages


def _cells(row: SpanChurnRow, per_second: float) -> Cells:
    if row.use == "heap":
        name = f"{row.size_class} {'noscan' if row.noscan else 'scan'}"
        item = f"{row.object_size} B" if row.object_size else "large" if row.size_class == 0 else "?"
    else:
        name, item = row.use.replace("_", " "), ""
    lived = "" if row.mean_life_seconds is None else seconds(row.mean_life_seconds)
    return _sum_cells(name, [row], per_second) | {"object": item, "lived": lived}


def _sum_cells(name: str, some: list[SpanChurnRow], per_second: float) -> Cells:
    allocated = sum(row.allocated for row in some)
    return {
        "class": name,
        "object": "",
        "came": number(allocated),
        "went": number(sum(row.freed for row in some)),
        "a second": _rate(allocated * per_second),
        "pages came": size(sum(row.allocated_pages for row in some) * _RUNTIME_PAGE),
        "pages went": size(sum(row.freed_pages for row in some) * _RUNTIME_PAGE),
        "lived": "",
    }


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 10 else number(round(value))
