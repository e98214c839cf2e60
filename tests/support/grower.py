"""tests/targets/grower: grows by what it is told, and tells its own MemStats."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.builds import build
from tests.support.processes import running


class Grower:
    """A running grower."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def do(self, command: str) -> dict[str, int]:
        """Have it obey, and return its own MemStats when it stands still again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        told: dict[str, int] = json.loads(self._process.stdout.readline())
        return told


@contextmanager
def grower(file: Path, release: str = "1.25.5") -> Iterator[Grower]:
    """Run it until the block ends; `file` is what it may map."""
    with running(build("grower", release), file) as process:
        yield Grower(process)


def mapped_in_ram(pid: int, path: Path) -> int:
    """Return the bytes of a file that smaps has in RAM."""
    found, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            inside = line.endswith(str(path))
        elif inside and first == "Rss:":
            found += int(line.split()[1]) << 10
    return found
