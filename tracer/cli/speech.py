"""The one gate for what gomem says on standard error, and so to terminals and logs.

What it says quotes names that a target chose: its comm, paths, arguments, cgroups. They come out in characters that a
terminal only shows, on the line that they were said in, and never longer than a screen.
"""

from __future__ import annotations

import io
import traceback

import click

from gomem.exporters.units import clean
from gomem.tracer.errors import GomemError

LONGEST = 600  # characters of a line


def tell(*lines: str) -> None:
    """Write lines to standard error."""
    click.echo("\n".join(clean(line, LONGEST) for line in lines), err=True)


def tell_error(error: GomemError) -> None:
    """Write what failed, and below it what the person can do."""
    tell(f"gomem: {error.what}", *(f"  {line}" for line in (error.fix, *error.choices) if line))


def tell_refusal(error: click.ClickException) -> None:
    """Write how a command is used, and what was wrong with the words that came."""
    said = io.StringIO()
    error.show(said)
    tell(*said.getvalue().removesuffix("\n").split("\n"))


def tell_trace(error: BaseException) -> None:
    """Write an error's traceback, and what others said of it (a compiler, the BPF verifier)."""
    said = error.detail if isinstance(error, GomemError) else ""
    tell(*"".join(traceback.format_exception(error)).splitlines(), *said.splitlines())
