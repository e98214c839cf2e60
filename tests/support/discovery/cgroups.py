"""Control groups that are named as container runtimes name them, in the cgroup2 hierarchy of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gomem.tracer.proc.mounts import parse_mountinfo
from tests.support.processes import wait_until
from tests.support.requirements import absent


@contextmanager
def cgroups(*paths: str) -> Iterator[list[Path]]:
    """Make these, below one of our own, and remove them in the end, when nobody is in them any more."""
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
    roots = [mount.point for mount in mounts if mount.kind == "cgroup2" and os.access(mount.point, os.W_OK)]
    if not roots:
        absent("there is no cgroup2 hierarchy that we may write to")
    top = Path(roots[0], f"gomem-test-{os.getpid()}")
    made = [top / path.strip("/") for path in paths]
    try:
        for path in made:
            path.mkdir(parents=True, exist_ok=True)
        yield made
    finally:
        for directory, _, _ in os.walk(top, topdown=False):
            remove(Path(directory))


def move(pid: int, into: Path) -> None:
    """Put a process into a cgroup."""
    (into / "cgroup.procs").write_text(str(pid))


def remove(directory: Path) -> None:
    """Remove a cgroup as soon as nobody is in it any more."""
    wait_until(lambda: _removed(directory), f"{directory} can be removed")


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
