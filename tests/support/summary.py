"""Tables that are printed below a test run's dots, so that its log shows what was covered."""

from __future__ import annotations

from collections.abc import Iterator

Tables = dict[str, dict[str, dict[str, str]]]  # by title, row and column

_TABLES: Tables = {}


def note(title: str, row: str, column: str, cell: str) -> None:
    """Enter one cell; rows and columns come in the order of their first entry."""
    _TABLES.setdefault(title, {}).setdefault(row, {})[column] = cell


def tables() -> Tables:
    """Return all tables."""
    return _TABLES


def add(tables: Tables) -> None:
    """Enter all cells of another process's tables."""
    for title, rows in tables.items():
        for row, cells in rows.items():
            for column, cell in cells.items():
                note(title, row, column, cell)


def lines() -> Iterator[str]:
    """Yield all tables as text."""
    for title, rows in _TABLES.items():
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        grid = [["", *columns], *([row, *(cells.get(column, "") for column in columns)] for row, cells in rows.items())]
        widths = [max(len(line[at]) for line in grid) for at in range(len(columns) + 1)]
        yield title
        for line in grid:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        yield ""
