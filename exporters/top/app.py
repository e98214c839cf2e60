"""The program on the terminal: it shows the newest view, and tells nobody but through `Engine` what somebody wants.

Views flow one way: a thread publishes them, this one looks whether there is a new one, and draws it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Protocol

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from gomem.exporters.top.columns import ALL, BY_ID, in_order
from gomem.exporters.top.dialogs import Help, SortMenu
from gomem.exporters.top.driver import TerminalDriver
from gomem.exporters.top.headline import headline
from gomem.exporters.top.histories import Histories
from gomem.exporters.top.panel import Panel
from gomem.exporters.top.rows import Row, grouped, rows_of
from gomem.exporters.top.table import Table
from gomem.exporters.top.terminal import is_gone
from gomem.exporters.units import clean
from gomem.tracer.fleet.view import FleetView, TargetView

_LOOK_EVERY = 0.25  # seconds between looks for a new view
_KEYS = "F1 help  enter open  F4 filter  F5 pods  F6 sort  Z freeze  r record  q quit"
_KEYS_OPENED = "1-7 tab pages  esc close  + larger  b braille  w write  r record  F1 help  q quit"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_MESSAGE = 300


class Engine(Protocol):
    """Who follows the processes."""

    @property
    def over(self) -> bool:
        """Whether there will be no more views."""

    def view(self) -> FleetView | None:
        """Return the newest view."""

    def unreadable(self) -> str:
        """Say how many processes may not be looked at, "" for none."""

    def news(self) -> str:
        """Return what the last message for the person is, "" for none."""

    def open(self, pid: int | None) -> None:
        """Look at this process closely from now on, or at none."""

    def record(self, target: TargetView) -> None:
        """Begin to record a process, or end that."""

    def write(self, target: TargetView) -> None:
        """Write what is known of a process into a file."""


class Top(App[None]):
    """All processes in a table, and one of them opened below it."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; background: ansi_default; color: ansi_default; }
    #headline { height: auto; }
    Table { height: 1fr; background: ansi_default; }
    Panel { height: 65%; display: none; border-top: solid ansi_blue; }
    Panel.larger { height: 100%; }
    #who, #pages, #keys, #note { height: 1; }
    #page { height: 1fr; background: ansi_default; scrollbar-size-vertical: 1; }
    #keys { color: ansi_bright_black; }
    #filter { display: none; height: 1; border: none; padding: 0; background: ansi_default; }
    Help, SortMenu { align: center middle; background: ansi_default; }
    #help, #sort { width: 92%; max-width: 100; height: auto; max-height: 92%; border: solid ansi_blue;
        background: ansi_default; color: ansi_default; padding: 0 1; }
    """
    BINDINGS: ClassVar = [
        Binding("q,f10,ctrl+c,ctrl+q", "quit", show=False, priority=False),
        Binding("f1,h,question_mark", "help", show=False),
        Binding("f4,slash,backslash", "filter", show=False),
        Binding("f5,t", "pods", show=False),
        Binding("f6,s", "sort", show=False),
        Binding("less_than_sign", "sort_step(-1)", show=False),
        Binding("greater_than_sign", "sort_step(1)", show=False),
        Binding("i,I", "turn", show=False),
        Binding("M", "sort_by('rss')", show=False),
        Binding("L", "sort_by('left')", show=False),
        Binding("N", "sort_by('name')", show=False),
        Binding("P", "sort_by('pid')", show=False),
        Binding("z,Z,space", "freeze", show=False),
        Binding("r", "record", show=False),
        Binding("w", "write", show=False),
        Binding("b", "braille", show=False),
        Binding("plus,equals_sign", "larger", show=False),
        Binding("tab", "page(1)", show=False, priority=True),
        Binding("shift+tab", "page(-1)", show=False, priority=True),
        Binding("escape", "close", show=False),
        *(Binding(str(number), f"choose({number - 1})", show=False) for number in range(1, 8)),
    ]

    def __init__(self, engine: Engine) -> None:
        """`engine` has been started, and is stopped by whoever did that."""
        super().__init__(driver_class=TerminalDriver, ansi_color=True)
        self._engine = engine
        self._histories = Histories()
        self._seen: FleetView | None = None  # the view that is shown
        self._before: FleetView | None = None
        self._frozen = False
        self._by_pod = False
        self._unfolded: frozenset[str] = frozenset()
        self._sorted_by, self._ascending = "rss", False
        self._filter = ""
        self._opened: tuple[int, int] | None = None  # key of the process in the panel
        self._news = ""
        self.failed: Exception | None = None  # what has ended it, if that is a mistake of ours

    def compose(self) -> ComposeResult:
        """Make the parts of the screen."""
        yield Static(id="headline", markup=False)
        yield Table()
        yield Panel()
        yield Static(id="note", markup=False)
        yield Input(id="filter", placeholder="filter", compact=True)
        yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Begin to look for views, and to mind signals that end it."""
        self.theme = "ansi-dark"
        self._panel.dots = self.no_color
        self._table.focus()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.exit)
        self.set_interval(_LOOK_EVERY, self._look)
        self._look()

    @property
    def _table(self) -> Table:
        return self.query_one(Table)

    @property
    def _panel(self) -> Panel:
        return self.query_one(Panel)

    def _handle_exception(self, error: Exception) -> None:
        """End with what no code here was ready for: it is told when the terminal is as it was."""
        self.failed = self.failed or error
        self.exit()

    # Views

    def _look(self) -> None:
        """Take the newest view, unless it is shown already."""
        if self._engine.over or (not self.is_headless and is_gone()):
            self.exit()
        newest, news = self._engine.view(), clean(self._engine.news(), _LONGEST_MESSAGE)
        if news != self._news:
            self._news = news
            self._note()
        if newest is None or newest is self._seen:
            return
        self._histories.note(newest)
        if self._frozen:
            return
        self._before, self._seen = self._seen, newest
        self._show()

    def _show(self) -> None:
        """Show the view as it is wanted now."""
        view = self._seen
        if view is None:
            return
        rows = rows_of(view, self._histories)
        wanted = [row for row in rows if self._is_wanted(row)]
        table = self._table
        table.sorted_by, table.ascending = self._sorted_by, self._ascending
        none = "No Go process can be seen." if view.health.rounds else "Looking for Go processes"
        table.empty = f"None has {self._filter!r} in it; esc shows all." if rows else none
        table.show(self._ordered(wanted))
        self.query_one("#headline", Static).update(
            headline(
                view,
                self._before,
                wanted,
                self.size.width,
                frozen=self._frozen,
                news=clean(self._engine.unreadable(), _LONGEST_MESSAGE),
            )
        )
        self._note()
        if self._panel.display:
            self._panel.show(self._target())

    def _is_wanted(self, row: Row) -> bool:
        wanted = self._filter.lower()
        said = (row.name, row.group, str(row.pid), row.verdict)
        return not wanted or any(wanted in one.lower() for one in said)

    def _ordered(self, rows: Sequence[Row]) -> list[Row]:
        column, ascending = BY_ID[self._sorted_by], self._ascending
        if not self._by_pod:
            return in_order(rows, column, ascending)
        groups = {group.key: (group, members) for group, members in grouped(rows, self._unfolded)}
        shown: list[Row] = []
        for head in in_order([group for group, _ in groups.values()], column, ascending):
            members = in_order(groups[head.key][1], column, ascending)
            shown += [head, *(replace(row, depth=1) for row in members)]
        return shown

    def _target(self) -> TargetView | None:
        """Return the process that is opened, else the one at the cursor."""
        row = self._table.row
        key = self._opened or (row.key if row is not None else None)
        if self._seen is None:
            return None
        return next((one for one in self._seen.targets if (one.pid, one.start_ticks) == key), None)

    def _note(self) -> None:
        """Show what is not seen of the process at the cursor, or what there is to tell."""
        row = self._table.row
        said = Text(self._news, style="yellow")
        if not self._news and row is not None and (row.unseen or row.why):
            more = f" (and {len(row.unseen) - 1} more)" if len(row.unseen) > 1 else ""
            said = Text(f"{row.pid} not seen: {row.unseen[0]}{more}" if row.unseen else f"{row.pid}: {row.why}")
            said.stylize("dim")
        said.truncate(max(self.size.width, 1), overflow="ellipsis")
        self.query_one("#note", Static).update(said)

    # What is done to the table

    def on_table_moved(self) -> None:
        """Tell of the row that has the cursor now."""
        self._note()

    def on_table_sorted_by(self, message: Table.SortedBy) -> None:
        """Sort by the column that was clicked on."""
        self.action_sort_by(message.column.id)

    def on_table_opened(self, message: Table.Opened) -> None:
        """Open a process, or unfold a pod."""
        row = message.row
        if isinstance(row.key, str):
            self._unfolded = self._unfolded ^ {row.key}
            self._show()
            return
        self._opened = row.key
        self._engine.open(row.pid)
        self._open_panel(True)
        self._panel.show(self._target())
        self._table.point_at(row.key)

    def _open_panel(self, there: bool) -> None:
        self._panel.display = there
        self._panel.remove_class("larger")
        self.query_one("#keys", Static).update(_KEYS_OPENED if there else _KEYS)
        if there:
            self.query_one("#page", VerticalScroll).focus()
        else:
            self._table.focus()

    # Keys

    def action_close(self) -> None:
        """Close what is open, or forget the filter."""
        field = self.query_one("#filter", Input)
        if field.display:
            field.display = False
            self._table.focus()
        elif self._panel.display:
            self._opened = None
            self._engine.open(None)
            self._open_panel(False)
        if self._filter and not self._panel.display:
            self._filter = field.value = ""
        self._show()

    def action_help(self) -> None:
        """Show the keys and the columns."""
        self.push_screen(Help())

    def action_filter(self) -> None:
        """Let somebody type what rows are to have."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while somebody types."""
        self._filter = event.value
        self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter."""
        event.input.display = False
        self._table.focus()

    def action_pods(self) -> None:
        """Show a row a pod, or a row a process."""
        self._by_pod = not self._by_pod
        self._show()

    def action_sort(self) -> None:
        """Let somebody choose a column."""
        self.push_screen(SortMenu(), lambda chosen: self.action_sort_by(chosen) if chosen else None)

    def action_sort_by(self, name: str) -> None:
        """Sort by a column; the other way round if that is how it is sorted already."""
        self._ascending = not self._ascending if name == self._sorted_by else name in ("name", "pid")
        self._sorted_by = name
        self._show()

    def action_sort_step(self, by: int) -> None:
        """Sort by the next column, or the one before."""
        names = [column.id for column in ALL]
        self._sorted_by = names[(names.index(self._sorted_by) + by) % len(names)]
        self._show()

    def action_turn(self) -> None:
        """Turn the order."""
        self._ascending = not self._ascending
        self._show()

    def action_freeze(self) -> None:
        """Let the view stay as it is, or go on. The processes are followed all the while."""
        self._frozen = not self._frozen
        self._show()

    def action_record(self) -> None:
        """Begin or end to record the process that is opened or at the cursor."""
        if (target := self._target()) is not None:
            self._engine.record(target)
            self._look()

    def action_write(self) -> None:
        """Write a page of the process that is opened or at the cursor."""
        if (target := self._target()) is not None:
            self._engine.write(target)
            self._look()

    def action_braille(self) -> None:
        """Draw the map in dots, or in colours."""
        self._panel.dots = not self._panel.dots
        self._panel.draw()

    def action_larger(self) -> None:
        """Give the panel the whole screen, or what it had."""
        self._panel.toggle_class("larger")

    def action_page(self, by: int) -> None:
        """Show the next page of the opened process."""
        if self._panel.display:
            self._panel.step(by)

    def action_choose(self, number: int) -> None:
        """Show a page of the opened process."""
        if self._panel.display:
            self._panel.choose(number)
