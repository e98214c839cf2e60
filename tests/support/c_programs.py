"""C programs of tests/targets, compiled once and kept in the cache."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.support.builds import TARGETS
from tests.support.cache import cache_dir, made_once
from tests.support.requirements import program


def compiled(source: str, *flags: str, compiler: str = "gcc", package: str = "gcc") -> Path:
    """Return the executable of tests/targets/`source`; a compiler that is missing skips the test (in CI: fails it)."""
    path = TARGETS / source
    command = [program(compiler, package), "-O1", str(path), *flags]
    key = hashlib.sha256(path.read_bytes() + "\0".join([compiler, *flags]).encode()).hexdigest()[:12]

    def make(directory: Path) -> None:
        subprocess.run([*command, "-o", str(directory / path.stem)], check=True)

    return made_once(cache_dir() / "builds" / f"{path.stem}-{key}", make) / path.stem
