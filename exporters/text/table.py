"""Tables that fit: on a narrow page columns are left out or go under their row, in the order of their worth.

No figure is ever cut: a column is there whole, or it is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from rich.text import Text

from gomem.exporters.text.page import PageStyle, words

ALWAYS = 100  # the worth of a column without which the table says nothing
_GAPS = (3, 2)  # columns between two columns, the wider one if it fits
_LEAST_GAP = 1  # where nothing else helps
_BELOW = 2  # columns that a last column is indented by under its row
_LEAST_LABEL = 12  # columns that a label which is wrapped has at least

Cell = str | Text
Row = Sequence[Cell]


class Column(Struct, frozen=True):
    """A column of a table; figures are flush right.

    Where the page is too narrow the columns of the least `worth` go first. A column that `wraps` is the last one, and
    goes under its rows where it would have fewer columns than that (or than it needs), with `below` before its words.
    """

    name: str
    left: bool = False
    worth: int = ALWAYS
    wraps: int = 0
    below: str = ""


def table(columns: Sequence[Column], rows: Iterable[Row], look: PageStyle, *, headed: bool = True) -> Text:
    """Return a table without rules, as wide as the page has room under a heading."""
    cells = [[cell if isinstance(cell, Text) else words(cell) for cell in row] for row in rows]
    return _Fitted(columns, cells, look.room, headed).lines()


class _Fitted:
    """A table with the columns for which there is room."""

    def __init__(self, columns: Sequence[Column], rows: list[list[Text]], room: int, headed: bool) -> None:
        self._columns = columns
        self._headed = headed
        self._rows = rows
        self._room = room
        self._natural = [
            max([len(column.name) if headed else 0, *(len(row[at]) for row in rows)])
            for at, column in enumerate(columns)
        ]
        self._under: int | None = None  # the column that goes under its rows
        # A column that has nothing to say in any row takes no room.
        self._shown = [at for at, width in enumerate(self._natural) if width]
        self._gap = self._make_room()
        self._widths = self._final_widths()

    def _make_room(self) -> int:
        """Leave out what there is no room for; return the columns between two columns."""
        while True:
            for gap in _GAPS:
                if self._needed(gap) <= self._room:
                    return gap
            least = min(self._shown, key=lambda at: self._columns[at].worth)
            if self._columns[least].worth >= ALWAYS:
                return _LEAST_GAP
            self._shown.remove(least)
            if self._columns[least].wraps:
                self._under = least

    def _needed(self, gap: int) -> int:
        return sum(self._least_width(at) for at in self._shown) + gap * (len(self._shown) - 1)

    def _least_width(self, at: int) -> int:
        wraps = self._columns[at].wraps
        return min(self._natural[at], max(wraps, self._longest_word(at))) if wraps else self._natural[at]

    def _longest_word(self, at: int) -> int:
        return max((len(word) for row in self._rows for word in row[at].plain.split(" ")), default=0)

    def _final_widths(self) -> dict[int, int]:
        widths = {at: self._least_width(at) for at in self._shown}
        spare = self._room - sum(widths.values()) - self._gap * (len(widths) - 1)
        last = self._shown[-1]
        if spare > 0 and self._columns[last].wraps:
            widths[last] = min(self._natural[last], widths[last] + spare)
        elif spare < 0:  # the label, which is words, is wrapped
            first = self._shown[0]
            widths[first] = max(min(_LEAST_LABEL, widths[first]), widths[first] + spare)
        return widths

    def lines(self) -> Text:
        """Return the table's lines."""
        told = []
        if self._headed:
            heads = [words((column.name, "dim")) for column in self._columns]
            told += self._line(heads)
        for row in self._rows:
            told += self._line(row)
            if self._under is not None and row[self._under]:
                told += self._below(row[self._under])
        return Text("\n").join(told)

    def _line(self, row: list[Text]) -> list[Text]:
        parts = {at: _wrapped(row[at], self._widths[at]) for at in self._shown}
        told = []
        for at_line in range(max(len(part) for part in parts.values())):
            line = Text()
            for at, part in parts.items():
                piece = part[at_line] if at_line < len(part) else Text("")
                space = " " * (self._widths[at] - len(piece))
                line.append_text(piece + space if self._columns[at].left else Text(space) + piece)
                line.append(" " * self._gap)
            line.rstrip()
            told.append(line)
        return told

    def _below(self, text: Text) -> list[Text]:
        assert self._under is not None
        said = words(self._columns[self._under].below) + text
        return [Text(" " * _BELOW) + line for line in _wrapped(said, self._room - _BELOW)]


def _wrapped(text: Text, width: int) -> list[Text]:
    """Return a cell's lines: broken between words, and only where it is wider than its column."""
    if len(text) <= width:
        return [text]
    pieces: list[Text] = []
    rest = text
    while len(rest) > width:
        at = rest.plain.rfind(" ", 1, width + 1)
        cut = at if at > 0 and rest.plain[:at].strip() else width
        pieces.append(rest[:cut])
        rest = rest[cut:]
        if at > 0 and cut == at:
            rest = rest[1:]
    return [*pieces, rest]
