"""Directories with the files of memory cgroups, as far as a test needs them."""

from __future__ import annotations

import shutil
from pathlib import Path

from gomem.tracer.kernel.cgroup import Membership
from gomem.tracer.kernel.cgroup_memory import OpenCgroup, open_charged
from gomem.tracer.proc.mounts import Mount


class CgroupFiles:
    """A hierarchy of v2 below `top`, in which a kill is counted in all ancestors, as the kernel counts it."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def make(self, path: str, current: int = 1 << 20, limit: str = "max", **more: str) -> None:
        """Make a cgroup; `more` are other files, _ for the dot in their names."""
        directory = self.top / path.strip("/")
        directory.mkdir(parents=True, exist_ok=True)
        files = {
            "cgroup.procs": "", "memory.current": f"{current}\n", "memory.max": f"{limit}\n", "memory.high": "max\n",
            "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n", "memory.stat": "anon 1\n",
            **{name.replace("_", "."): text for name, text in more.items()},
        }  # fmt: skip
        for name, text in files.items():
            (directory / name).write_text(text)

    def kill(self, path: str) -> None:
        """Count a kill."""
        directory = self.top / path.strip("/")
        while directory != self.top:
            events = directory / "memory.events"
            if events.exists():
                *lines, last = events.read_text().splitlines()
                events.write_text("\n".join([*lines, f"oom_kill {int(last.split()[1]) + 1}"]) + "\n")
            directory = directory.parent

    def remove(self, path: str) -> None:
        """Remove a cgroup."""
        shutil.rmtree(self.top / path.strip("/"))

    def open(self, path: str) -> OpenCgroup:
        """Open the cgroup that a process in `path` is charged to."""
        mount = Mount(self.top.stat().st_dev, "/", str(self.top), (), "cgroup2", ())
        found = open_charged(Membership(2, path), mount, str(self.top))
        assert found is not None
        return found
