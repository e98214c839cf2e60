"""gomem on a terminal: what it writes, and what a person sees of that in the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.command import LIMIT, executable

ERASE = "\r\x1b[K"
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a run wrote on a terminal."""

    status: int
    written: str

    @property
    def screen(self) -> list[str]:
        """The lines that stay, without their styles; knows no more than what gomem sends."""
        lines = [""]
        for piece in re.split(r"(\r\n|\r\x1b\[K|\n)", _STYLE.sub("", self.written)):
            if piece == ERASE:
                lines[-1] = ""
            elif piece in ("\r\n", "\n"):
                lines.append("")
            else:
                assert "\x1b" not in piece, f"an escape sequence that the test does not know: {piece!r}"
                lines[-1] += piece
        return lines

    @property
    def replaced(self) -> list[str]:
        """The lines that were shown in place and erased, in order of time."""
        return [piece for piece in self.written.split(ERASE)[1:-1] if piece]


def on_a_terminal(*words: object, columns: int = 80, env: Mapping[str, str] | None = None) -> Shown:
    """Run `gomem WORDS` on a terminal of so many columns, whose kind is that of `env`'s TERM (default: xterm)."""
    main, side = pty.openpty()
    try:
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        process = subprocess.Popen(
            [executable(), *map(str, words)], stdin=subprocess.DEVNULL, stdout=side, stderr=side,
            env={**inherited, "TERM": "xterm", **(env or {})},
        )  # fmt: skip
    finally:
        os.close(side)
    written = b""
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while piece := os.read(main, 1 << 16):
            written += piece
    os.close(main)
    return Shown(process.wait(timeout=LIMIT), written.decode())
