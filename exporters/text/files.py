"""The files that are mapped, by what of them is in RAM."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import clean, size
from gomem.tracer.report import MappedFile, Report

_TOP = 5
# Programs and libraries apart, smaller ones are nobody's question.
_LEAST = 16 << 20
_COLUMNS = (
    Column("file", left=True),
    Column("in RAM"),
    Column("dirty", worth=4),
    Column("copies", worth=5),
    Column("shared", worth=2),
    Column("mapped", worth=3),
    Column("", left=True, worth=1),
)


def files(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the files beside programs and libraries of which most is in RAM."""
    rows = [row for row in report.files or () if not row.executable and row.resident + row.hugetlb >= _LEAST][:_TOP]
    if not rows:
        return None
    return section("Mapped files", table(_COLUMNS, [_cells(row, look) for row in rows], look))


def _cells(row: MappedFile, look: PageStyle) -> tuple[str | Text, ...]:
    path = clean(row.path)
    room = max(look.width // 3, 20)
    name = path if len(path) <= room else f"...{path[3 - room :]}"
    what = row.backing.replace("_", " ") + (", deleted" if row.deleted and row.backing == "file" else "")
    figures = (row.resident + row.hugetlb, row.dirty, row.anonymous, row.shared, row.virtual)
    return (name, *map(size, figures), words((what, "dim")))
