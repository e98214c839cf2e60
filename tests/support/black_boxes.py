"""The directory in which `gomem serve` keeps black boxes, as whoever looks into it finds it."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import running


@dataclass(frozen=True, slots=True)
class Found:
    """One black box."""

    path: Path

    @property
    def pid(self) -> int:
        """The pid in its name, which is NAME-PID-TIME."""
        return int(self.path.name.rsplit("-", 2)[1])

    @property
    def files(self) -> set[str]:
        """The names of its files."""
        return {path.name for path in self.path.iterdir()}

    @property
    def ended(self) -> dict[str, Any]:
        """How the process ended."""
        return self._json("how-it-ended.json")

    @property
    def moments(self) -> list[dict[str, Any]]:
        """The timeline."""
        moments: list[dict[str, Any]] = self._json("timeline.json")["moments"]
        return moments

    @property
    def report(self) -> dict[str, Any]:
        """The last report."""
        return self._json("report.json")

    @property
    def modes(self) -> set[str]:
        """The permissions of the directory and its files."""
        return {stat.filemode(path.lstat().st_mode) for path in (self.path, *self.path.iterdir())}

    def _json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / name).read_text())
        return found


def boxes(directory: Path) -> list[Found]:
    """Return all that is in the directory, also what is no black box."""
    return [Found(path) for path in sorted(directory.iterdir())]


@contextmanager
def hoard(binary: Path, *words: object, under: tuple[str, ...] | list[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run tests/targets/hoard until the block ends; it begins with `go`."""
    with running(*under, binary, *words) as process:
        yield process


def go(process: subprocess.Popen[bytes]) -> None:
    """Have it do what its flags say."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
