"""The memory cgroup of a process: v1, v2 and hybrid, found by /proc/PID/cgroup and the mount table.

Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from gomem.tracer.errors import GomemError
from gomem.tracer.kernel.cgroup_directory import Directory
from gomem.tracer.proc.mounts import MOUNTINFO_BYTES, Mount, parse_mountinfo
from gomem.tracer.proc.small_files import printable
from gomem.tracer.process.target import Target
from gomem.tracer.report import Cgroup

_PAGE = os.sysconf("SC_PAGESIZE")
# v1 has no word for "no limit": it is the highest multiple of the page size below 2**63.
_V1_UNLIMITED = (2**63 - 1) // _PAGE * _PAGE
_MAX_DEPTH = 64
_OF_CGROUPS = " - cgroup"  # in a line of mountinfo


class MemoryCgroup(Struct, frozen=True):
    """The target's memory cgroup, and the limit that really holds: the smallest among it and its ancestors.

    `charged` is the path of the cgroup that the figures come from: the nearest one upwards for which the memory
    controller is on. `effective_max` is None without a limit (or where only ancestors that are hidden from us have
    one: those above the mount in v2), `limited_by` is the path of the cgroup that sets it.
    """

    cgroup: Cgroup
    version: Literal[1, 2]
    charged: str | None
    effective_max: int | None
    limited_by: str | None


class Membership(Struct, frozen=True):
    """In which cgroup of which hierarchy a process is."""

    version: Literal[1, 2]
    path: str
    controller: str = "memory"


Place = tuple[Membership, Mount, str]  # the arguments of `read_figures`


def memory_membership(text: str) -> Membership | None:
    """Return where /proc/PID/cgroup puts the process's memory: v1's memory controller where it exists, else v2."""
    return membership_of(text, "memory")


def membership_of(text: str, controller: str) -> Membership | None:
    """Return where /proc/PID/cgroup puts what a controller governs: v1's where it exists, else v2."""
    unified: Membership | None = None
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        path = path.removesuffix(" (deleted)")
        if not colon or not path.startswith("/"):
            continue
        if controller in controllers.split(","):
            return Membership(1, path, controller)
        if number == "0" and not controllers:
            unified = Membership(2, path, controller)
    return unified


def hierarchy_mounts(mounts: list[Mount], version: Literal[1, 2], controller: str = "memory") -> list[Mount]:
    """Return the mounts that show the hierarchy with this controller."""
    if version == 2:
        return [mount for mount in mounts if mount.kind == "cgroup2"]
    return [mount for mount in mounts if mount.kind == "cgroup" and controller in mount.super_options]


def below(root: str, path: str) -> str | None:
    """Return `path` relative to `root` ("" if equal, "/x" if under it), or None when it is not under it.

    Both are as the kernel gives them: relative to our cgroup namespace, with "/.." for what is outside it.
    """
    if root == "/":
        return None if path == "/.." or path.startswith("/../") else path.rstrip("/")
    if path == root:
        return ""
    rest = path[len(root) :] if path.startswith(f"{root}/") else None
    return None if rest is not None and (rest == "/.." or rest.startswith("/../")) else rest


def read_memory_cgroup(target: Target) -> MemoryCgroup | None:
    """Return the target's memory cgroup, or None where it has none.

    Where its directory can't be reached (another cgroup namespace, nothing mounted) all figures are None.
    Raises TargetGone.
    """
    found = find_memory_cgroup(target)
    return found[0] if found else None


def find_memory_cgroup(target: Target) -> tuple[MemoryCgroup, Place | None] | None:
    """Return what `read_memory_cgroup` does, and the place to read it again from when the target is gone."""
    membership = memory_membership(printable(target.read("cgroup")))
    if membership is None:
        return None
    for mount, directory in places(target, membership):
        try:
            return read_figures(membership, mount, directory), (membership, mount, directory)
        except OSError:
            continue
    nothing = Cgroup(membership.path, None, None, None, None)
    return MemoryCgroup(nothing, membership.version, None, None, None), None


def places(target: Target, membership: Membership) -> Iterator[tuple[Mount, str]]:
    """Yield (mount, mount point as we can open it) through our own mounts, then through the target's.

    Raises TargetGone.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        own = file.read(MOUNTINFO_BYTES)
    for mount in _showing(own, membership):
        yield mount, mount.point
    try:
        theirs = target.read("mountinfo", MOUNTINFO_BYTES)
    except (GomemError, FileNotFoundError):
        target.check_alive()
        return
    for mount in _showing(theirs, membership):
        yield mount, f"/proc/{target.pid}/root{mount.point}"


def _showing(mountinfo: bytes, membership: Membership) -> list[Mount]:
    """Return the mounts that show the cgroup; of machines with thousands of mounts only the few lines are parsed."""
    lines = "\n".join(line for line in printable(mountinfo).split("\n") if _OF_CGROUPS in line)
    mounts = hierarchy_mounts(parse_mountinfo(lines), membership.version, membership.controller)
    return [mount for mount in mounts if below(mount.root, membership.path) is not None]


def read_figures(membership: Membership, mount: Mount, point: str) -> MemoryCgroup:
    """Read the cgroup and its ancestors up to the root of `mount`, which we reach at the path `point`.

    Raises OSError where the cgroup's directory is not there.
    """
    relative = below(mount.root, membership.path)
    assert relative is not None
    version = membership.version
    cgroups: list[Cgroup] = []
    limits: list[tuple[int, str]] = []
    for part in upwards(relative):
        path = (mount.root.rstrip("/") + part) or "/"
        try:
            files = Directory.of_mount(point, part, mount.device)
        except OSError:
            if part == relative:
                raise
            break
        with files:
            cgroups.append(_read_v2(files, path) if version == 2 else _read_v1(files, path))
            hierarchical = _v1_hierarchical(files) if version == 1 and part == relative else None
            if hierarchical is not None:
                limits.append((hierarchical, path))
    # An ancestor that sets the limit is named before the cgroup that only inherits it.
    limits = [(group.memory_max, group.path) for group in cgroups if group.memory_max is not None] + limits
    effective, limited_by = min(limits, key=lambda limit: limit[0], default=(None, None))
    charged = next((group for group in cgroups if group.memory_current is not None), None)
    own = replace(charged, path=membership.path) if charged else Cgroup(membership.path, None, None, None, None)
    return MemoryCgroup(own, version, charged.path if charged else None, effective, limited_by)


def upwards(relative: str) -> Iterator[str]:
    """Yield the cgroup and its ancestors: "/a/b", "/a" and "" for "/a/b"."""
    for _ in range(_MAX_DEPTH):
        yield relative
        if not relative:
            return
        relative = relative.rpartition("/")[0]


def _read_v2(files: Directory, path: str) -> Cgroup:
    return Cgroup(
        path=path,
        memory_current=files.number("memory.current"),
        memory_max=files.number("memory.max"),
        memory_high=files.number("memory.high"),
        oom_kill=files.keyed("memory.events", "oom_kill"),
    )


def _read_v1(files: Directory, path: str) -> Cgroup:
    return Cgroup(
        path=path,
        memory_current=files.number("memory.usage_in_bytes"),
        memory_max=v1_limit(files.number("memory.limit_in_bytes")),
        memory_high=None,
        oom_kill=files.keyed("memory.oom_control", "oom_kill"),
    )


def _v1_hierarchical(files: Directory) -> int | None:
    """Return the smallest limit among the cgroup and its ancestors, also those that are hidden from us."""
    return v1_limit(files.keyed("memory.stat", "hierarchical_memory_limit"))


def v1_limit(limit: int | None) -> int | None:
    """Return a limit of v1 in bytes, None for its way to say that there is none."""
    return None if limit is None or limit >= _V1_UNLIMITED else limit
