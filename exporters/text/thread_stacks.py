"""The stacks of OS threads that hold most."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.text.page import PageStyle, section
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import clean, number, plural, size
from gomem.tracer.report import Report, ThreadStackRow

_TOP = 5
# Some 100 KiB a thread is what each program with C has.
_LEAST = 16 << 20
_COLUMNS = (
    Column("thread", left=True),
    Column("tid", worth=3),
    Column("in RAM"),
    Column("deepest", worth=2),
    Column("size", worth=4),
    Column("guard", worth=1),
)


def thread_stacks(report: Report, look: PageStyle) -> RenderableType | None:
    """Show which threads have the largest stacks, where they are much."""
    stacks = report.thread_stacks
    if stacks is None or not stacks.rows or stacks.resident < _LEAST:
        return None
    heading = (
        f"Stacks of OS threads: {plural(stacks.stacks, 'stack')}, {size(stacks.resident)} in RAM, "
        f"{size(stacks.median)} in the median"
    )
    return section(heading, table(_COLUMNS, [_cells(row) for row in stacks.rows[:_TOP]], look))


def _cells(row: ThreadStackRow) -> tuple[str | Text, ...]:
    name = "not told" if row.name is None else clean(row.name, 16)
    tid = "" if row.tid is None else number(row.tid)
    return (name, tid, size(row.resident), size(row.deepest), size(row.size), size(row.guard))
