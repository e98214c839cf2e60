"""The program tests/targets/atlimit: it does what it is told line by line, and says what the runtime says of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.builds import build


class AtLimit:
    """One running atlimit."""

    def __init__(self, process: subprocess.Popen[str], trace: Path | None) -> None:
        self.pid = process.pid
        self._process = process
        self._trace = trace

    def begin(self, line: str) -> None:
        """Tell it what to do; `figures` waits until that is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def figures(self) -> dict[str, Any]:
        """Return what it says: "MemStats", and the names of runtime/metrics."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def say(self, line: str) -> dict[str, Any]:
        """Let it do something, and return its figures."""
        self.begin(line)
        return self.figures()

    def stderr(self) -> str:
        """Return what the runtime has written about itself so far (GODEBUG)."""
        assert self._trace is not None
        return self._trace.read_text()


@contextmanager
def at_limit(
    release: str, *flags: object, limit: str = "", godebug: str = "", stderr: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[AtLimit]:  # fmt: skip
    """Run it until the block ends; `limit` is its GOMEMLIMIT. The block begins when it holds what `flags` ask for."""
    known = {**os.environ, "GODEBUG": godebug, **(env or {})}
    known.update({"GOMEMLIMIT": limit} if limit else {})
    path = build("atlimit", release)
    with open(stderr or os.devnull, "w") as log:
        process = subprocess.Popen(
            [str(path), *map(str, flags)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=known,
        )  # fmt: skip
    target = AtLimit(process, stderr)
    try:
        target.say("work 0s")
        yield target
    finally:
        process.kill()
        process.communicate()
