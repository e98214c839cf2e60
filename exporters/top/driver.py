"""How Textual draws on the terminal, and reads from it."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO, cast

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver


class _Screen:
    """A file of the terminal. Once that has gone away nothing is written, and nobody is told so again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()


class TerminalDriver(LinuxDriver):
    """Draws on standard output, where Textual's own draws on standard error; ends with the terminal."""

    def __init__(
        self, app: App[object], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        """For the arguments see LinuxDriver."""
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        assert sys.__stdout__ is not None
        self._file = cast(Any, _Screen(sys.__stdout__))

    def run_input_thread(self) -> None:
        """Read what is typed, until the terminal goes away."""
        with suppress(OSError):
            super().run_input_thread()
