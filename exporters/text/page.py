"""The page that sections are set on: headings, bars and words, for a terminal or a pipe (tables: `text_table`).

Every cell is a rich Text, never markup: words of the target can hold brackets, and control
characters are written out by `units.clean`.
"""

from __future__ import annotations

import re

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gomem.exporters.units import clean

INDENT = 2  # columns before what stands under a heading
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BARS = ((96, 20), (76, 10), (0, 6))  # columns of the page from which on a bar has so many

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

# Stands for a space at which no line may be broken. `clean` writes the target's own out, and `unglued` ends ours.
_GLUE = "\ue000"
_NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(?:[KMGTPE]i?)?B\b|ms\b|s\b|min\b|h\b|%)")


class PageStyle(Struct, frozen=True):
    """How the page may look: its columns, and whether bars may use Unicode's block characters."""

    width: int
    blocks: bool

    @property
    def room(self) -> int:
        """The columns under a heading."""
        return self.width - INDENT

    @property
    def bar_width(self) -> int:
        """The columns of a bar."""
        return next(columns for width, columns in _BARS if self.width >= width)

    def divided_bar(self, solid: int, part: int, whole: int, style: str) -> Text:
        """Return a bar of `part` of `whole` whose first `solid` bytes are drawn solid, the rest as a shade."""
        columns = self._columns(part, whole)
        dense = round(columns * min(solid, part) / part) if columns else 0
        if columns > 1:  # a trace of either shows
            dense = max(int(solid > 0), min(columns - int(solid < part), dense))
        drawn = Text(("█" if self.blocks else "#") * dense + ("░" if self.blocks else "-") * (columns - dense))
        drawn.stylize(STYLES.get(style, style))
        return drawn + Text((" " if self.blocks else ".") * (self.bar_width - columns))

    def bar(self, part: int, whole: int, style: str) -> Text:
        """Return `part` of `whole` as a bar; anything above zero shows."""
        share = min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
        if not self.blocks:
            filled = self._columns(part, whole)
            return Text("#" * filled + "." * (self.bar_width - filled))
        eighths = round(share * self.bar_width * 8)
        eighths = max(1, eighths) if part > 0 else 0
        full, rest = divmod(eighths, 8)
        drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
        return Text(drawn.ljust(self.bar_width), style=STYLES.get(style, style))

    def _columns(self, part: int, whole: int) -> int:
        """Return the columns of a bar for `part` of `whole`; anything above zero gets one."""
        if part <= 0 or whole <= 0:
            return 0
        return max(1, min(self.bar_width, round(part / whole * self.bar_width)))


def words(*parts: str | tuple[str, str]) -> Text:
    """Return a line of plain strings and (string, style) pairs, safe to show; no line breaks before a unit."""
    line = Text()
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        line.append(_NUMBER_AND_UNIT.sub(_GLUE, clean(text)), style=STYLES.get(style, style))
    return line


def unglued(page: str) -> str:
    """Return a page that is set with plain spaces in the place of those at which no line may be broken."""
    return page.replace(_GLUE, " ")


def lines(*rows: Text) -> Text:
    """Return rows of text, one under the other (`words` writes a line feed out, as it could be the target's)."""
    return Text("\n").join(rows)


def section(title: str | Text, *body: RenderableType | None) -> RenderableType:
    """Return a heading with its body indented, and an empty line before."""
    heading = words((title, "heading")) if isinstance(title, str) else title
    return Group(Text(""), heading, *(Padding(part, (0, 0, 0, INDENT)) for part in body if part is not None))


def hanging(label: Text, text: Text) -> Table:
    """Return a text with a short label before it; its further lines stand under the first."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(width=4, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(label, text)
    return grid


def flowing(pairs: list[tuple[str, str]], look: PageStyle) -> Text:
    """Return `name value` pairs in lines that fit under a heading, never broken inside a pair."""
    block = Text()
    used = 0
    for name, value in pairs:
        pair = words((name, "dim"), " ", value)
        if used and used + 3 + len(pair) > look.room:
            block.append("\n")
            used = 0
        elif used:
            block.append("   ")
            used += 3
        block.append_text(pair)
        used += len(pair)
    return block
