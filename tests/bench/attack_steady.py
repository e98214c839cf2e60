"""Targets that check themselves and count what they have done: tests/targets/steady."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.builds import built
from tests.support.processes import running

RELEASE = "1.25.5"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a target has done until a moment: rounds, those with a wrong sum, and CPU seconds."""

    rounds: int
    wrong: int
    cpu: float

    def pace(self, later: Progress) -> float | None:
        """Return rounds per CPU second from here to a later moment; None when it used no time."""
        spent = later.cpu - self.cpu
        return (later.rounds - self.rounds) / spent if spent > 0 else None


class Steady:
    """A running target of that kind; its last line is kept by a thread."""

    def __init__(self, pid: int, output: int) -> None:
        self.pid = pid
        self.progress = Progress(0, 0, 0.0)
        self.ended = False
        self._output = output
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        text = b""
        while piece := os.read(self._output, 1 << 16):
            *lines, text = (text + piece).split(b"\n")
            if lines:
                _, rounds, wrong, cpu = map(int, lines[-1].split())
                self.progress = Progress(rounds, wrong, cpu / 1e9)
        self.ended = True


@contextmanager
def steady() -> Iterator[Steady]:
    """Run one until the block ends."""
    with running(built("steady", RELEASE)) as process:
        assert process.stdout is not None
        output = os.dup(process.stdout.fileno())
        target = Steady(process.pid, output)
        yield target
        process.kill()
