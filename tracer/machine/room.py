"""How much of our own memory one reading of a target may take: a target sizes its arrays, we size what we hold of them.

A target can claim a hundred million spans, goroutines or mappings for next to nothing. Whoever reads such an array
takes room for it first. The room comes from the memory limit that gomem itself is under, never from the target.
"""

from __future__ import annotations

import os
import resource
from functools import cache
from pathlib import Path

from gomem.tracer.errors import SnapshotError
from gomem.tracer.machine import usage

# Of the memory limit: one reading, and what else a cgroup is charged for (BPF maps, the guardian), take the rest.
_BUDGET_SHARE = 2 / 3
_LARGEST_BUDGET = 2 << 30
# What is left of our limit serves two attempts at a snapshot at a time, the better one and the next.
_SHARE = 4
SMALLEST_ROOM = 16 << 20
LARGEST_ROOM = 2 << 30
_UNLIMITED = 1 << 60  # a v1 cgroup without a limit shows 2^63 less a page
_CGROUPS = Path("/sys/fs/cgroup")


class Room:
    """Bytes of ours that the next reading may take; `give_back` begins anew with all of them."""

    def __init__(self, size: int) -> None:
        """`size`: bytes."""
        self.size = size
        self._left = size

    def give_back(self) -> None:
        """Forget what was taken: it has been let go of, or belongs to what is kept."""
        self._left = self.size

    def fits(self, each: int) -> int:
        """Return how many things of `each` bytes there is room for."""
        return self._left // each

    def take(self, count: int, each: int, what: str) -> None:
        """Take room for `count` things, `each` bytes of ours. Raises SnapshotError when there is not that much."""
        if count * each > self._left:
            raise SnapshotError(
                f"the process claims {count} {what}: more than gomem may hold ({self.size >> 20} MB for one reading)",
                "if that is its real size, give gomem more memory",
            )
        self._left -= count * each


_ceiling: list[int] = []  # bytes; lower than our limit, if there is one


def room_for_one() -> Room:
    """Return room for one reading: a share of what is left of the memory that this process may use."""
    left = min([memory_limit(), *_ceiling]) - usage.resident_bytes()
    return Room(min(max(left // _SHARE, SMALLEST_ROOM), LARGEST_ROOM))


def usual_budget() -> int:
    """Return the bytes of RSS that what is kept of all targets may bring this process to, where nobody says more."""
    return min(int(memory_limit() * _BUDGET_SHARE), _LARGEST_BUDGET)


def keep_to(budget: int) -> None:
    """Let readings take room only within what belongs to such a budget."""
    _ceiling[:] = [int(budget / _BUDGET_SHARE)]


@cache
def memory_limit() -> int:
    """Return how many bytes this process may use: its cgroups', its resource limits, or else the machine's RAM."""
    limits = [_machine(), *_cgroup_limits(Path("/proc/self/cgroup").read_text(), _CGROUPS)]
    limits += [
        soft
        for soft, _ in map(resource.getrlimit, (resource.RLIMIT_AS, resource.RLIMIT_DATA))
        if soft != resource.RLIM_INFINITY
    ]
    return min(limits)


def _machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")


def _cgroup_limits(membership: str, root: Path) -> list[int]:
    """Return the limits of the cgroup and its ancestors that can be seen from here (cgroups(7), /proc/self/cgroup).

    In a cgroup namespace of its own a container sees its limit at the mount's root, whatever path it is told.
    """
    found: list[int] = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        relative = Path(path.lstrip("/"))
        for directory in (relative, *relative.parents):
            found += _limit(mount / directory / name)
    return found


def _limit(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() and int(text) < _UNLIMITED else []
