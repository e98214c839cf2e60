"""Pages as text: coloured and as wide as a terminal, or plain, the same everywhere."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable
from typing import TextIO

from msgspec import Struct
from rich.console import Console, RenderableType

from gomem.exporters.text.page import unglued

PIPE_WIDTH = 100


class Sheet(Struct, frozen=True):
    """What a page is set on: its columns, whether it has colours, and whether it shows Unicode's block characters."""

    width: int = PIPE_WIDTH
    terminal: bool = False
    blocks: bool = False

    def columns(self, least: int, most: int, pipe: int) -> int:
        """Return how wide a page is: a terminal's width within bounds, else `pipe`."""
        return max(least, min(self.width, most)) if self.terminal else pipe


def sheet_of(stream: TextIO) -> Sheet:
    """Return what fits `stream`.

    FORCE_COLOR and CLICOLOR_FORCE give a pipe the colours too, NO_COLOR and CLICOLOR=0 take them from a terminal.
    """
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    if not (terminal or colours_forced()):
        return Sheet()
    columns = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    return Sheet(columns, terminal=True, blocks=(stream.encoding or "").lower().replace("-", "") == "utf8")


def colours_forced() -> bool:
    """Whether the environment asks for colours where there is no terminal (https://force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    asked = (os.environ.get(name, "") for name in ("FORCE_COLOR", "CLICOLOR_FORCE"))
    return any(word.lower() not in ("", "0", "false") for word in asked)


def set_page(parts: Iterable[RenderableType], width: int, *, terminal: bool) -> str:
    """Return the parts one under the other, with a final newline and no space at the end of a line."""
    out = io.StringIO()
    console = _console(out, width, terminal)
    for part in parts:
        console.print(part)
    return "".join(line.rstrip() + "\n" for line in unglued(out.getvalue()).splitlines())


def _colours_refused() -> bool:
    """Whether the environment asks for none (https://no-color.org, https://bixense.com/clicolors)."""
    return bool(os.environ.get("NO_COLOR")) or (os.environ.get("CLICOLOR") == "0" and not colours_forced())


def _console(out: io.StringIO, width: int, terminal: bool) -> Console:
    return Console(
        file=out,
        width=width,
        force_terminal=terminal,
        # Never guessed by rich: FORCE_COLOR and the like must not colour a file.
        color_system="standard" if terminal else None,
        no_color=_colours_refused() if terminal else True,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
