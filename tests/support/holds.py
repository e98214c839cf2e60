"""The program tests/targets/holds: it keeps large objects as it is told line by line, and says where they are."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.builds import build


class Holds:
    """One running holds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def say(self, what: str, first: int = 1, second: int = 0) -> dict[str, Any]:
        """Let it do something; return its "MemStats" and its "objects"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what} {first} {second}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "it has ended"
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def holds(release: str, *, stripped: bool = True, env: Mapping[str, str] | None = None) -> Iterator[Holds]:
    """Run it until the block ends, without collections of its own accord."""
    path = build("holds", release, stripped=stripped)
    process = subprocess.Popen(
        [str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "GOGC": "off", **(env or {})},
    )  # fmt: skip
    try:
        yield Holds(process)
    finally:
        process.kill()
        process.communicate()
