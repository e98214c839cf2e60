"""The widget of the table: draws the rows that are in sight, and tells what is done to them with keys and mouse."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from gomem.exporters.top.columns import GAP, PID, Column, Placed, placed
from gomem.exporters.top.rows import Row
from gomem.tracer.fleet.view import TargetState

_HEAD = Style(bold=True, underline=True)
_SORTED = Style(bold=True, reverse=True)
_STYLES = {"critical": Style(color="red", bold=True), "warning": Style(color="yellow"), "info": Style(color="green")}
_PLAIN, _DIM = Style(), Style(dim=True)
_CURSOR = Style(reverse=True)
_COLUMN_STYLES = {"spark": Style(color="cyan"), "file": _DIM, "firm": _DIM}
_NO_FIGURES = (TargetState.UNREADABLE, TargetState.STARTING, TargetState.WAITING, TargetState.SHED)
_KNOWN_OF_KERNEL = ("pid", "name", "rss", "firm")


class Table(Widget, can_focus=True):
    """The rows, of which one has the cursor."""

    BINDINGS = [  # noqa: RUF012, as Textual wants them
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
        Binding("left", "skip(-1)", show=False),
        Binding("right", "skip(1)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """Somebody wants to see more of the row at the cursor."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    class SortedBy(Message):
        """Somebody has clicked on the title of a column."""

        def __init__(self, column: Column) -> None:
            super().__init__()
            self.column = column

    class Moved(Message):
        """The cursor is at another row, or the rows are others."""

    def __init__(self) -> None:
        super().__init__(id="table")
        self.rows: Sequence[Row] = ()
        self.empty = "Looking for Go processes"  # what is said where there are no rows
        self.sorted_by, self.ascending = "rss", False
        self._at, self._top, self._skip = 0, 0, 0
        self._key: object = None  # of the row that somebody has moved to: it keeps the cursor when the order changes

    @property
    def row(self) -> Row | None:
        """The row at the cursor."""
        return self.rows[self._at] if self._at < len(self.rows) else None

    def show(self, rows: Sequence[Row]) -> None:
        """Draw these rows from now on. The cursor stays with the process that it was moved to."""
        self.rows = rows
        found = next((at for at, row in enumerate(rows) if row.key == self._key), None)
        self._place(self._at if found is None else found)

    def point_at(self, key: object) -> None:
        """Move the cursor to the row of this key, if there is one."""
        found = next((at for at, row in enumerate(self.rows) if row.key == key), None)
        if found is not None:
            self._move_to(found)

    def action_move(self, by: int) -> None:
        """Move the cursor by so many rows."""
        self._move_to(self._at + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by a screen."""
        self._move_to(self._at + by * max(self._room - 1, 1))

    def action_skip(self, by: int) -> None:
        """Show the columns further right, or left."""
        self._skip = max(self._skip + by, 0)
        while self._skip and len(placed(self.size.width, self._skip)) <= 2:
            self._skip -= 1
        self.refresh()

    def action_open(self) -> None:
        """Ask for more of the row at the cursor."""
        if self.row is not None:
            self.post_message(self.Opened(self.row))

    def on_click(self, event: events.Click) -> None:
        """Sort by the column whose title was clicked on; move to the row, and open it when it has the cursor."""
        if event.y == 0:
            column = next((one.column for one in self._placed() if one.x <= event.x < one.x + one.width + GAP), None)
            if column is not None:
                self.post_message(self.SortedBy(column))
            return
        at = self._top + event.y - 1
        if at >= len(self.rows):
            return
        if at == self._at:
            self.action_open()
        self._move_to(at)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Move on."""
        self.action_move(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Move back."""
        self.action_move(-3)

    def on_resize(self, event: events.Resize) -> None:
        """Keep the cursor in sight."""
        self._place(self._at)

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen."""
        width = self.size.width
        if y == 0:
            return Strip(self._head()).crop(0, width).adjust_cell_length(width)
        at = self._top + y - 1
        if at >= len(self.rows):
            said = self.empty if not self.rows and y == 2 else ""
            return Strip([Segment(said, _DIM)]).adjust_cell_length(width)
        return self._line(self.rows[at], at == self._at).crop(0, width).adjust_cell_length(width)

    @property
    def _room(self) -> int:
        return max(self.size.height - 1, 1)

    def _placed(self) -> list[Placed]:
        return placed(self.size.width, self._skip)

    def _move_to(self, at: int) -> None:
        self._place(at)
        self._key = self.row.key if self.row is not None else None

    def _place(self, at: int) -> None:
        self._at = max(min(at, len(self.rows) - 1), 0)
        self._top = max(min(self._top, self._at, len(self.rows) - self._room), self._at - self._room + 1, 0)
        self.refresh()
        self.post_message(self.Moved())

    def _head(self) -> list[Segment]:
        segments = []
        for one in self._placed():
            column = one.column
            arrow = ("^" if self.ascending else "v") if column.id == self.sorted_by else ""
            title = column.title[: one.width - len(arrow)] + arrow
            told = title.ljust(one.width) if column.left else title.rjust(one.width)
            segments += [Segment(told, _SORTED if arrow else _HEAD), Segment(" " * GAP, _HEAD)]
        return segments

    def _line(self, row: Row, cursor: bool) -> Strip:
        over = _CURSOR if cursor else _PLAIN
        segments: list[Segment] = []
        for one in self._placed():
            column = one.column
            if row.why and column.id not in (_KNOWN_OF_KERNEL if row.state not in _NO_FIGURES else ("pid", "name")):
                # Its figures are not known: the room is for why.
                said = Text(f"{row.verdict}: {row.why}")
                said.truncate(max(self.size.width - one.x, 0), overflow="ellipsis", pad=True)
                segments.append(Segment(said.plain, _STYLES["warning"] + over))
                break
            told = ("  " * row.depth if column.id == "name" else "") + column.text(row)
            padded = _fit(told, one.width) if column.left else told.rjust(one.width)
            segments += [Segment(padded, _style(column, row) + over), Segment(" " * GAP, over)]
        return Strip(segments)


def _fit(text: str, width: int) -> str:
    """Return a cell's text in so many columns of the screen, of which some characters take two."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "~"


def _style(column: Column, row: Row) -> Style:
    if column.id == "verdict":
        return _STYLES.get(row.severity, _PLAIN)
    if column.id == "left" and row.nearest is not None:
        return _STYLES["critical" if row.nearest.share >= 0.95 else "warning" if row.nearest.share >= 0.8 else "info"]
    if column is PID and row.pid is None:
        return Style(bold=True)
    return _COLUMN_STYLES.get(column.id, _PLAIN)
