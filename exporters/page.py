"""The page that sections are set on: headings, tables and bars, for a terminal or a pipe.

Every cell is a rich Text, never markup: words of the target can hold brackets, and control
characters are written out by `units.clean`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from exporters.units import clean

BAR_WIDTH = 20
_ROOM_FOR_REMARKS = 96  # columns; a narrower page leaves the remarks behind its tables out
_EIGHTHS = " ▏▎▍▌▋▊▉"

# What a colour means is the same all over the page.
STYLES = {
    "reserved": "blue",
    "prepared": "cyan",
    "ready": "green",
    "unmanaged": "magenta",
    "in_use": "green",
    "stacks": "cyan",
    "work_bufs": "cyan",
    "free": "yellow",
    "scavenged": "blue",
    "heading": "bold",
    "dim": "dim",
    "info": "green",
    "warning": "yellow",
    "critical": "bold red",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How the page may look: its columns, and whether bars may use Unicode's block characters."""

    width: int
    blocks: bool

    def divided_bar(self, solid: int, part: int, whole: int, style: str) -> Text:
        """Return a bar of `part` of `whole` whose first `solid` bytes are drawn solid, the rest as a shade."""
        columns = _columns(part, whole)
        dense = round(columns * min(solid, part) / part) if columns else 0
        if columns > 1:  # a trace of either shows
            dense = max(int(solid > 0), min(columns - int(solid < part), dense))
        drawn = Text(("█" if self.blocks else "#") * dense + ("░" if self.blocks else "-") * (columns - dense))
        drawn.stylize(STYLES.get(style, style))
        return drawn + Text((" " if self.blocks else ".") * (BAR_WIDTH - columns))

    def remark(self, text: str) -> Text:
        """Return a remark at the end of a table's row; empty on a narrow page."""
        return words((text, "dim")) if self.width >= _ROOM_FOR_REMARKS else Text("")

    def bar(self, part: int, whole: int, style: str) -> Text:
        """Return `part` of `whole` as a bar of BAR_WIDTH columns; anything above zero shows."""
        share = min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
        if not self.blocks:
            filled = _columns(part, whole)
            return Text("#" * filled + "." * (BAR_WIDTH - filled))
        eighths = round(share * BAR_WIDTH * 8)
        eighths = max(1, eighths) if part > 0 else 0
        full, rest = divmod(eighths, 8)
        drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
        return Text(drawn.ljust(BAR_WIDTH), style=STYLES.get(style, style))


def _columns(part: int, whole: int) -> int:
    """Return the columns of a bar for `part` of `whole`; anything above zero gets one."""
    if part <= 0 or whole <= 0:
        return 0
    return max(1, min(BAR_WIDTH, round(part / whole * BAR_WIDTH)))


def words(*parts: str | tuple[str, str]) -> Text:
    """Return a line of plain strings and (string, style) pairs, safe to show."""
    line = Text()
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        line.append(clean(text), style=STYLES.get(style, style))
    return line


def lines(*rows: Text) -> Text:
    """Return rows of text, one under the other (`words` writes a line feed out, as it could be the target's)."""
    return Text("\n").join(rows)


def section(title: str | Text, *body: RenderableType | None) -> RenderableType:
    """Return a heading with its body indented by two, and an empty line before."""
    heading = words((title, "heading")) if isinstance(title, str) else title
    return Group(Text(""), heading, *(Padding(part, (0, 0, 0, 2)) for part in body if part is not None))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, headed: bool = True, left: int = 1) -> Table:
    """Return a table without rules: the first `left` columns and bars flush left, figures flush right.

    A column whose name starts with "<" is flush left too; the mark is not shown. The last column
    may wrap, all others keep their width.
    """
    grid = Table(box=None, show_header=headed, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for at, name in enumerate(columns):
        flush_left = at < left or name.startswith("<")
        last = at == len(columns) - 1
        grid.add_column(
            name.removeprefix("<"), justify="left" if flush_left else "right", no_wrap=not last, overflow="fold"
        )
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else words(cell) for cell in row))
    return grid
