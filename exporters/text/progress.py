"""The line that tells in place, on a terminal, how long a watch still lasts and what the process uses meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from gomem.exporters.units import seconds, size

# Takes RSS, heap in use and live heap, bytes; None for what is not known.
Figures = tuple[int | None, int | None, int | None]
Tick = Callable[[float, float | None, Callable[[], Figures]], None]

_EVERY = 1.0  # seconds
_START = "\r\x1b[K"  # to the beginning of the line, which is erased
_COLUMNS = 80


@contextmanager
def reading(stream: TextIO) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows on `stream` how much of a file has been read: called with the bytes read and those there are.

    As `progress`, it shows nothing where there is no terminal.
    """
    if not _erases(stream):
        yield lambda read, size: None
        return
    shown = -1

    def tick(read: int, whole: int) -> None:
        nonlocal shown
        percent = 100 * min(read, whole) // max(whole, 1)
        if percent != shown:
            shown = percent
            stream.write(f"{_START}gomem: read {percent} % of {size(whole)}")
            stream.flush()

    try:
        yield tick
    finally:
        if shown >= 0:
            stream.write(_START)
            stream.flush()


def _erases(stream: TextIO) -> bool:
    """Tell whether it is a terminal that can erase a line."""
    return stream.isatty() and (os.environ.get("TERM") or "dumb") != "dumb"


@contextmanager
def progress(stream: TextIO) -> Iterator[Tick]:
    """Yield what shows the line on `stream` when it is due, and erase it behind the block.

    It is called with the seconds watched so far, those that are left (None: nobody knows), and what reads the figures,
    as often as one likes. Where `stream` is no terminal, or one that cannot erase, nothing is shown and nothing read.
    """
    if not _erases(stream):
        yield _silent
        return
    due = 0.0

    def tick(watched: float, left: float | None, read: Callable[[], Figures]) -> None:
        nonlocal due
        if watched < due:
            return
        due = watched + _EVERY
        columns = shutil.get_terminal_size((_COLUMNS, 24)).columns
        stream.write(_START + progress_line(watched, left, read(), columns))
        stream.flush()

    try:
        yield tick
    finally:
        if due:
            stream.write(_START)
            stream.flush()


def progress_line(watched: float, left: float | None, figures: Figures, columns: int) -> str:
    """Return the line, shorter than `columns`; what there is no room for is left out."""
    time = f"{watched:.0f} s so far" if left is None else f"{_whole(left)} left"
    names = ("RSS", "Go heap in use", "live heap")
    parts = [f"gomem: {time}", *(f"{name} {size(count)}" for name, count in zip(names, figures, strict=True) if count)]
    line = ""
    for part in parts:
        longer = f"{line}   {part}" if line else part
        if len(longer) >= columns:
            break
        line = longer
    return line


def _whole(left: float) -> str:
    return seconds(left) if left >= 120 else f"{max(left, 0):.0f} s"


def _silent(watched: float, left: float | None, read: Callable[[], Figures]) -> None:
    del watched, left, read
