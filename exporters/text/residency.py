"""What the kernel counted of the process's pages while it was watched, where that was asked for."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from gomem.exporters.text.page import PageStyle, flowing, section
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import clean, number, plural, size
from gomem.tracer.report import LiveResident, PageFaults, Report

_TOP_KINDS = 8
_SIZES = ("total", "anonymous", "file", "shmem", "swap")


def live(report: Report, look: PageStyle) -> RenderableType | None:
    """Show resident bytes now and at their peak, and where pages were faulted in."""
    body = []
    if report.live_resident is not None:
        body.append(_resident(report.live_resident, look))
    if report.page_faults is not None and report.page_faults.count:
        body.append(_faults(report.page_faults, look))
    parts = []
    if report.live_resident is not None:
        parts.append(f"RSS at most {size(report.live_resident.peak.total)}")
    if report.page_faults is not None:
        rate = report.page_faults.per_second
        often = f", {number(round(rate))} a second" if rate is not None else ""
        parts.append(f"{plural(report.page_faults.count, 'page fault')}{often}")
    return section(f"While watching: {'; '.join(parts)}", *body) if parts else None


def _resident(seen: LiveResident, look: PageStyle) -> RenderableType:
    rows = [
        (name, size(getattr(seen.now, name)), size(getattr(seen.peak, name)))
        for name in _SIZES
        if getattr(seen.peak, name) or name == "total"
    ]
    return table((Column("resident, as the kernel counts", left=True), Column("now"), Column("at most")), rows, look)


def _faults(seen: PageFaults, look: PageStyle) -> RenderableType:
    kinds = seen.kinds or []
    rows: list[tuple[str | Text, ...]] = [
        (clean(row.kind, 30), number(row.faults), size(row.touched)) for row in kinds[:_TOP_KINDS]
    ]
    rest = kinds[_TOP_KINDS:]
    if rest:
        rows.append((f"{len(rest)} more", number(sum(row.faults for row in rest)), size(sum(r.touched for r in rest))))
    if seen.unplaced:
        rows.append(("not told apart", number(seen.unplaced), ""))
    of_them = (("writes", seen.writes), ("by the kernel", seen.by_kernel), ("on a page in RAM", seen.present))
    pairs = [(label, number(count)) for label, count in of_them if count]
    columns = (Column("page faults in", left=True), Column("faults"), Column("touched"))
    return Group(table(columns, rows, look), *([flowing(pairs, look)] if pairs else []))
