"""The options of `gomem serve` that have it keep black boxes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from gomem.exporters.black_box.keeper import BlackBox
from gomem.exporters.black_box.storage import USUAL_BYTES, USUAL_COUNT, Storage
from gomem.tracer.cli.options import Command, Size, say
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.fleet.view import FleetView


def black_box_options(command: Command) -> Command:
    """Add --black-box and what bounds it."""
    command = click.option(
        "--black-box-crashes/--no-black-box-crashes", default=False, show_default=True,
        help="Keep black boxes also of processes that end with an exit code that is not 0, or by a signal but SIGTERM, "
        "SIGINT and SIGHUP.",
    )(command)  # fmt: skip
    command = click.option(
        "--black-box-count", type=click.IntRange(1, 10_000), default=USUAL_COUNT, show_default=True, metavar="COUNT",
        help="How many black boxes there may be; the oldest go first.",
    )(command)  # fmt: skip
    command = click.option(
        "--black-box-bytes", type=Size(), default=f"{USUAL_BYTES >> 20}M", show_default=True, metavar="SIZE",
        help="How much of the disk all of them may take; the oldest go first.",
    )(command)  # fmt: skip
    return click.option(
        "--black-box", "black_box_directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
        help="Keep a black box of each process, and write it into a directory of its own in DIR when the OOM killer "
        "ends the process: the last report, how its memory grew, its heap profile and goroutines, and how it ended. "
        "They name functions and have the command line, and no contents of memory.",
    )(command)  # fmt: skip


def open_black_box(
    directory: Path | None,
    most_bytes: int,
    count: int,
    crashes: bool,
    view: Callable[[], FleetView | None],
    programs: Programs,
    cpu_budget: float,
    complain: Callable[[int, Exception], None],
) -> BlackBox | None:
    """Return the black box that was asked for, not started yet; None where none was. Raises GomemError."""
    if directory is None:
        return None
    made = BlackBox(
        Storage(directory, most_bytes, count), view, programs, cpu_budget, crashes=crashes, tell=say, complain=complain
    )
    made.open()
    return made
