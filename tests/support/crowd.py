"""Processes of tests/targets/crowd, and what programs say of their goroutines themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.builds import build

# "goroutine 7 [chan receive, 2 minutes, locked to thread]:", and what created it where.
_HEADER = re.compile(r"^goroutine (\d+)[^\[]*\[([^\],]+)(?:, (\d+) minutes)?[^\]]*\]:$", re.M)
_CREATED = re.compile(r"^created by (\S+).*\n\t(\S+):(\d+)", re.M)


class Crowd:
    """A process that obeys."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def obey(self, *commands: str) -> dict[str, Any]:
        """Give commands; return what the process says of itself after the last: MemStats, NumGoroutine."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told: dict[str, Any] = {}
        for command in commands:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
            told = json.loads(self._process.stdout.readline())
        return told


@contextmanager
def crowd(release: str = "1.27.3", *, gogc: str = "off") -> Iterator[Crowd]:
    """Run a stripped crowd until the block ends."""
    command, env = [build("crowd", release, stripped=True)], {**os.environ, "GOGC": gogc}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield Crowd(process)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Traced:
    """A goroutine as a trace tells of it: goid, state, minutes, its text, and who created it."""

    goid: int
    state: str
    minutes: int
    text: str
    creator: tuple[str, str, int] | None


def traced(trace: str) -> list[Traced]:
    """Return the goroutines of a trace, of runtime.Stack or of a profile with debug=2."""
    found = []
    for block in trace.split("\n\n"):
        header = _HEADER.search(block)
        assert header is not None, block
        created = _CREATED.search(block)
        creator = (created[1], created[2], int(created[3])) if created else None
        found.append(Traced(int(header[1]), header[2], int(header[3] or 0), block, creator))
    return found


def by_creator(goroutines: list[Traced]) -> Counter[tuple[str, str, int] | None]:
    """Count them by who created them."""
    return Counter(one.creator for one in goroutines)
