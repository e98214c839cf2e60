"""The cache of toolchains and built targets: a directory outside the tree, shared by concurrent runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """Return ${XDG_CACHE_HOME:-~/.cache}/gomem, created if absent.

    Unit tests get none: what is downloaded or built has its tests in tests/live and tests/e2e.
    """
    running = os.environ.get("PYTEST_CURRENT_TEST", "")
    assert not running.startswith("tests/unit/"), f"{running.split()[0]} needs what is downloaded or built"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "gomem"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name` against other processes."""
    locks = cache_dir() / "locks"
    locks.mkdir(exist_ok=True)
    with open(locks / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`; where it is absent, `make(directory)` fills a fresh directory that then takes its place.

    A run that dies half-way leaves `path` absent.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.name):
        if path.exists():
            return path
        workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            make(workshop)
            workshop.chmod(0o755)
            workshop.rename(path)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    return path
