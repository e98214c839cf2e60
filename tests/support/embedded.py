"""Go libraries (-buildmode=c-shared) in processes whose executable is none of Go's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.builds import TARGETS, build
from tests.support.processes import running

HOST = TARGETS / "embedded/host/host.py"
# What Figure tells, in its order.
FIGURES = ("HeapInuse", "HeapSys", "HeapAlloc", "StackInuse", "Sys", "Mallocs", "NumGC")


def library(release: str, directory: Path, name: str = "libgo.so", *, stripped: bool = False) -> Path:
    """Return a copy of the library of tests/targets/embedded, so that each is a file of its own."""
    built = build("embedded", release, mode="cgo", stripped=stripped, extra_flags=["-buildmode=c-shared"])
    copy = directory / name
    shutil.copy(built, copy)
    if stripped:
        subprocess.run(["strip", "--strip-all", copy], check=True)
    return copy


class Host:
    """A Python program with Go libraries."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid

    def begin(self, path: Path, function: str, *arguments: int) -> None:
        """Let a library's function run."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(path), function, *arguments]).encode() + b"\n")
        self.process.stdin.flush()

    def call(self, path: Path, function: str, *arguments: int) -> int:
        """Let a library's function run, and return what it returns."""
        self.begin(path, function, *arguments)
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def memstats(self, path: Path) -> dict[str, int]:
        """Return the library's own runtime.MemStats, of a heap at rest."""
        self.call(path, "Measure")
        return {name: self.call(path, "Figure", which) for which, name in enumerate(FIGURES)}


@contextmanager
def hosted() -> Iterator[Host]:
    """Run a host until the block ends."""
    with running(sys.executable, HOST) as process:
        yield Host(process)
