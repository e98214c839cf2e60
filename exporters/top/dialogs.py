"""What lies over the table for a moment: the help, and the choice of a column to sort by."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gomem.exporters.top.columns import COLUMNS, NAME, PID

KEYS = (
    ("up down pgup pgdn", "move; home and end, too"),
    ("left right", "the columns that have no room"),
    ("enter", "open the process: its map, findings, cycles, ...; of a pod: its processes"),
    ("1 to 7, tab", "pages of the opened process; esc closes it, + makes it larger"),
    ("F6 s, < >", "sort by another column; I or a second click turns the order"),
    ("M L N P", "sort by RSS, distance to the limit, program, pid"),
    ("F4 /", "show only what has these letters in program, pod, pid or verdict"),
    ("F5 t", "a row a pod, or a row a process"),
    ("Z space", "freeze the view; it goes on with the same key"),
    ("r", "record the process into a file, until r is pressed again"),
    ("w", "write the report and map of the opened process into one HTML file"),
    ("b", "draw the map in braille (dots: in RAM), or in colours"),
    ("F10 q ctrl+c", "quit; the processes are left as they were"),
)


class Help(ModalScreen[None]):
    """Keys and columns."""

    BINDINGS = [Binding("escape,q,f1,h,question_mark,enter", "dismiss", show=False)]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        """Show them."""
        with VerticalScroll(id="help"):
            yield Static(_help(), markup=False)


class SortMenu(ModalScreen[str | None]):
    """The columns to sort by."""

    BINDINGS = [Binding("escape,q,f6", "dismiss(None)", show=False)]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        """Show them."""
        options = [Option(Text(f"{column.title:<8} {column.means}"), id=column.id) for column in (PID, NAME, *COLUMNS)]
        yield OptionList(*options, id="sort", markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take the one that was chosen."""
        self.dismiss(event.option_id)


def _help() -> Text:
    text = Text()
    for keys, what in KEYS:
        text.append(f"{keys:<18}", style="bold").append(f" {what}\n")
    text.append("\n")
    for column in COLUMNS:
        text.append(f"{column.title:<14}", style="bold").append(f" {column.means}\n")
    text.append("\nA ? is not known; what is missing, and why, is said in the line below and on the page Findings.")
    return text
