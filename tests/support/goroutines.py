"""Processes of tests/targets/goroutines, each with the profile that it has written of itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Parked:
    """A process whose goroutines are as they were when it wrote `profile` (debug=0) and `stacks` (debug=2)."""

    pid: int
    profile: Path
    stacks: Path


@contextmanager
def parked_goroutines(
    binary: Path, directory: Path, *arguments: object, env: Mapping[str, str] | None = None
) -> Iterator[Parked]:
    """Run a build of tests/targets/goroutines until the block ends; it begins when the profiles are written."""
    command = [str(binary), "-directory", str(directory), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "ready\n", f"{said!r}, status {process.poll()}"
            yield Parked(process.pid, directory / "profile", directory / "stacks")
        finally:
            process.kill()
