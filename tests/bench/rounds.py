"""Targets that print, round after round, how many nanoseconds of CPU time one of their operations took."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured, and what the estimate of the slowdown assumes, CPU seconds; None: it leaves that out."""

    what: str
    measured: float
    assumed: float | None = None


class Rounds:
    """A running target of that kind."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        assert process.stdout is not None
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._text = b""

    def best(self, seconds: float) -> float:
        """Return the least CPU seconds per operation of the rounds that begin and end within `seconds` from now."""
        self._lines()
        end = time.monotonic() + seconds
        begun = False
        found: list[float] = []
        while (left := end - time.monotonic()) > 0 or not found:
            self._selector.select(max(left, 0.1))
            lines = self._lines()
            found += lines if begun else lines[1:]  # the first one began earlier
            begun = begun or bool(lines)
        return min(found) / 1e9

    def _lines(self) -> list[float]:
        while True:
            try:
                part = os.read(self._output, 1 << 16)
            except BlockingIOError:
                break
            if not part:
                raise SystemExit(f"the target {self.pid} has ended")
            self._text += part
        *lines, self._text = self._text.split(b"\n")
        return [float(line) for line in lines]


@contextmanager
def rounds_of(path: Path) -> Iterator[Rounds]:
    """Run a target on one CPU, so that its switches are switches, until the block ends."""
    cpu = str(max(os.sched_getaffinity(0)))
    with subprocess.Popen(["taskset", "-c", cpu, str(path)], stdout=subprocess.PIPE) as process:
        try:
            yield Rounds(process)
        finally:
            process.kill()
