"""What the program has mapped for itself, and by which function where that was seen."""

from __future__ import annotations

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Cell, Column, table
from gomem.exporters.units import clean, number, size
from gomem.tracer.report import MappingSums, Report

_LEAST = 64 << 20  # of address space, or a quarter of it in RAM: smaller ones are nobody's question
_TOP = 5
_COLUMNS = (
    Column("mapped by", left=True, wraps=24), Column("in RAM"), Column("mapped"), Column("no access", worth=3),
    Column("mappings", worth=2), Column("swap", worth=1),
)  # fmt: skip


def user_mappings(report: Report, look: PageStyle) -> RenderableType | None:
    """Show who has mapped most, of what was mapped while watching."""
    found = report.user_mappings
    if found is None or not found.by_caller or not _worth(found.sums):
        return None
    rows = [_cells(clean(row.function or "code without a name", 100), row.sums) for row in found.by_caller[:_TOP]]
    if found.unseen is not None and found.unseen.virtual:
        rows.append(_cells("(before it was watched)", found.unseen))
    return section("Mappings of the program's own", table(_COLUMNS, rows, look))


def _worth(sums: MappingSums) -> bool:
    return sums.virtual >= _LEAST or 4 * sums.resident >= _LEAST


def _cells(who: str, sums: MappingSums) -> list[Cell]:
    figures = (sums.resident, sums.virtual, sums.no_access)
    return [words((who, "dim")), *map(size, figures), number(sums.mappings), size(sums.swap) if sums.swap else ""]
