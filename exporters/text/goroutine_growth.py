"""The go statements whose goroutines became more while the process was watched."""

from __future__ import annotations

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Cell, Column, table
from gomem.exporters.units import clean, number, plural, seconds, size
from gomem.tracer.report import FirstAndLast, GrownCreator, Report

_LEAST = 20  # goroutines more: fewer are nobody's question
_TOP = 5
_COLUMNS = (
    Column("more"), Column("goroutines", worth=4), Column("stacks", worth=2), Column("stacks grown", worth=1),
    Column("", left=True, worth=3), Column("created by", left=True, wraps=24),
)  # fmt: skip


def goroutine_growth(report: Report, look: PageStyle) -> RenderableType | None:
    """Show whose goroutines have become more, those that have grown most first."""
    found = report.goroutine_growth
    if found is None:
        return None
    grown = [row for row in found.creators if row.sums.grown >= _LEAST]
    if not grown:
        return None
    rows = [_cells(_told(row), row.sums, "only grows" if row.only_grows else "") for row in grown[:_TOP]]
    title = f"Goroutines that became more, by {plural(found.looks, 'look')} in {seconds(found.seconds)}"
    return section(title, table(_COLUMNS, rows, look))


def _told(row: GrownCreator) -> str:
    base = row.file.rpartition("/")[2]
    return clean((row.function or "no go statement") + (f"  {base}:{row.line}" if base else ""), 200)


def _cells(who: str, sums: FirstAndLast, only_grows: str) -> list[Cell]:
    figures = (f"{sums.grown:+,}", number(sums.goroutines_last), size(sums.stack_last))
    return [*figures, size(sums.stack_last - sums.stack_first), only_grows, words((who, "dim"))]
