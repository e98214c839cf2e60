"""The panel of the opened process: a line of pages to choose from, and one of them."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from gomem.exporters.top.pages import PAGES, Room, heading, page_of
from gomem.tracer.fleet.view import TargetView

_NAMES = tuple(PAGES)
_SCROLLBAR = 1


class PageNames(Static):
    """The names of the pages, on one line; a click chooses one."""

    def on_click(self, event: events.Click) -> None:
        """Choose the page whose name was clicked on."""
        for number, (start, end) in enumerate(_places(self.size.width)):
            if start <= event.x < end:
                self.post_message(Panel.Chosen(number))


class Panel(Vertical):
    """Shows one page of one process, made anew whenever there is a new view."""

    class Chosen(Message):
        """Somebody wants to see another page."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self) -> None:
        super().__init__(id="panel")
        self.dots = False
        self._number = 0
        self._target: TargetView | None = None

    def compose(self) -> ComposeResult:
        """Make the parts."""
        yield Static(id="who", markup=False)
        yield PageNames(id="pages", markup=False)
        with VerticalScroll(id="page", can_focus=True):
            yield Static(id="content", markup=False)

    def show(self, target: TargetView | None) -> None:
        """Show what is known of a process now."""
        self._target = target
        self.draw()

    def choose(self, number: int) -> None:
        """Show another page, the first one behind the last."""
        self._number = number % len(_NAMES)
        self.query_one("#page", VerticalScroll).scroll_home(animate=False)
        self.draw()

    def step(self, by: int) -> None:
        """Show the next page, or the one before."""
        self.choose(self._number + by)

    def on_panel_chosen(self, message: Chosen) -> None:
        """Show the page whose name was clicked on."""
        message.stop()
        self.choose(message.number)

    def on_resize(self, event: events.Resize) -> None:
        """Draw it as wide as it is now."""
        self.draw()

    def draw(self) -> None:
        """Draw all of it."""
        target = self._target
        if target is None or not self.display or not self.size.width:
            return
        scroll = self.query_one("#page", VerticalScroll)
        room = Room(max(self.size.width - 2 * _SCROLLBAR, 1), max(self.size.height - 2, 1), self.dots)
        self.query_one("#who", Static).update(heading(target, room))
        self.query_one("#pages", Static).update(_names(self._number, self.size.width))
        scroll.query_one("#content", Static).update(page_of(_NAMES[self._number], target, room))


def _labels(width: int) -> list[str]:
    """Return the labels of the pages: whole, or as much of them as there is room for."""
    for longest in (max(map(len, _NAMES)), 4, 3, 1):
        labels = [f" {at} {name[:longest]} " for at, name in enumerate(_NAMES, 1)]
        if sum(map(len, labels)) <= width:
            break
    return labels


def _places(width: int) -> list[tuple[int, int]]:
    places, x = [], 0
    for label in _labels(width):
        places.append((x, x + len(label)))
        x += len(label)
    return places


def _names(chosen: int, width: int) -> Text:
    line = Text(no_wrap=True)
    for at, label in enumerate(_labels(width)):
        line.append(label, style="bold reverse" if at == chosen else "dim")
    return line
