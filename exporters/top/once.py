"""The table once, as text: for scripts, and where there is no terminal to draw on."""

from __future__ import annotations

import shutil
import sys

from gomem.exporters.top.columns import BY_ID, in_order, placed
from gomem.exporters.top.histories import Histories
from gomem.exporters.top.rows import Row, rows_of
from gomem.tracer.fleet.view import FleetView

_PIPE_WIDTH = 200
_OF_TIME = ("slope", "spark")  # columns that one moment tells nothing of


def table_once(view: FleetView, unreadable: str) -> str:
    """Return the table of a view; as wide as the terminal, or with all columns."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH
    rows = in_order(rows_of(view, Histories()), BY_ID["rss"], ascending=False)
    lines = [_head(width), *(line for row in rows for line in _lines(row, width))]
    if not rows:
        lines = ["No Go process can be seen."]
    if unreadable:
        lines.append(unreadable)
    return "".join(line.rstrip() + "\n" for line in lines)


def _head(width: int) -> str:
    return " ".join(
        one.column.title.ljust(one.width) if one.column.left else one.column.title.rjust(one.width)
        for one in placed(width)
        if one.column.id not in _OF_TIME
    )


def _lines(row: Row, width: int) -> list[str]:
    cells = []
    for one in placed(width):
        if one.column.id not in _OF_TIME:
            text = one.column.text(row)[: one.width]
            cells.append(text.ljust(one.width) if one.column.left else text.rjust(one.width))
    return [" ".join(cells), *([f"        {row.why}"] if row.why else [])]
