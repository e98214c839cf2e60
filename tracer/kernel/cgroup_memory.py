"""What one memory cgroup is charged, and how often the kernel killed in it: v1 and v2, read whenever one likes.

The cgroup's directory stays open, so that it can be asked after its last process has ended, and so that a cgroup that
is made anew under the same path is not taken for it.
Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; mm/memcontrol.c for the order of the counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gomem.tracer.kernel.cgroup import Membership, below, memory_membership, places, upwards, v1_limit
from gomem.tracer.kernel.cgroup_bill import STAT_WORDS, parse_pressure, unreclaimable, working_set
from gomem.tracer.kernel.cgroup_directory import Directory
from gomem.tracer.proc.cgroup_paths import container_id, pod_uid
from gomem.tracer.proc.mounts import Mount
from gomem.tracer.proc.small_files import printable
from gomem.tracer.process.target import Target
from gomem.tracer.report import MemoryPressure

# Of memory.stat, what is asked for again and again.
_KINDS = (
    "anon", "active_file", "inactive_file", "shmem", "slab_reclaimable", "slab_unreclaimable", "kernel_stack",
    "pagetables", "sock",
)  # fmt: skip
_EVENTS = ("high", "max", "oom")


@dataclass(frozen=True, slots=True)
class CgroupMemory:
    """The figures of one moment, in bytes; None, or absent from `kinds`, for what this kernel does not tell.

    `max` is the limit that holds: the smallest among the cgroup and its ancestors, as far as they can be seen.
    `working_set` is what the kubelet reckons: `current` without inactive file pages. `unreclaimable` is what the kernel
    can take from nobody but the swap: `current` without file pages and reclaimable slabs.
    `kinds` are of memory.stat, `events` of memory.events: how often usage passed `high`, met `max`, and could not be
    brought below it (`oom`). `pressure` is None in v1, too.
    """

    current: int | None
    max: int | None
    high: int | None
    kinds: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    pressure: MemoryPressure | None = None

    @property
    def working_set(self) -> int | None:
        """See the class."""
        return working_set(self.current, self.kinds)

    @property
    def unreclaimable(self) -> int | None:
        """See the class."""
        return unreclaimable(self.current, self.kinds)


class OpenCgroup:
    """One memory cgroup. Its files are the kernel's: to read them waits for no program's file system."""

    def __init__(self, files: Directory, path: str, version: Literal[1, 2], above: int, to_pod: int | None) -> None:
        """Take `files`; `above` ancestors can be seen, the one `to_pod` levels up is that of its Kubernetes pod."""
        self.path = path
        self.version = version
        self.key = files.key
        self._files = files
        self._above = above
        self._to_pod = to_pod

    def close(self) -> None:
        """Let go of its directory."""
        self._files.close()

    @property
    def removed(self) -> bool:
        """Whether it has been removed since it was opened."""
        return self._files.removed

    def memory(self) -> CgroupMemory:
        """Return its figures of now."""
        return self._memory_v2() if self.version == 2 else self._memory_v1()

    def oom_kills(self) -> int | None:
        """Return how many processes the kernel has killed in it for want of memory; None if it cannot say any more.

        In v2 those in its descendants are counted, in v1 they are not.
        """
        return self._files.keyed("memory.events" if self.version == 2 else "memory.oom_control", "oom_kill")

    def pod(self) -> OpenCgroup | None:
        """Open the cgroup of its pod, whose count survives the container's; None in v1, where it does not.

        Raises OSError when that is gone.
        """
        if self._to_pod is None or self.version == 1:
            return None
        path = self.path.rsplit("/", self._to_pod)[0]
        return OpenCgroup(self._files.up(self._to_pod), path, 2, self._above - self._to_pod, None)

    def _memory_v2(self) -> CgroupMemory:
        files = self._files
        stat, events = files.numbers("memory.stat"), files.numbers("memory.events")
        limits = [files.number("../" * level + "memory.max") for level in range(self._above + 1)]
        return CgroupMemory(
            current=files.number("memory.current"),
            max=min((limit for limit in limits if limit is not None), default=None),
            high=files.number("memory.high"),
            kinds={kind: stat[kind] for kind in _KINDS if kind in stat},
            events={event: events[event] for event in _EVENTS if event in events},
            pressure=parse_pressure(files.text("memory.pressure")),
        )

    def _memory_v1(self) -> CgroupMemory:
        files = self._files
        stat, failures = files.numbers("memory.stat"), files.number("memory.failcnt")
        limits = (files.number("memory.limit_in_bytes"), stat.get("hierarchical_memory_limit"))
        return CgroupMemory(
            current=files.number("memory.usage_in_bytes"),
            max=min((limit for limit in map(v1_limit, limits) if limit is not None), default=None),
            high=None,
            kinds={kind: stat[old] for kind in _KINDS if (old := STAT_WORDS[kind]) is not None and old in stat},
            events={} if failures is None else {"max": failures},
        )


def open_memory_cgroup(target: Target) -> OpenCgroup | None:
    """Open the cgroup that the target's memory is charged to: that of its container, if it is in one.

    May have to wait for the target's file systems. None where none can be reached. Raises TargetGone.
    """
    membership = memory_membership(printable(target.read("cgroup")))
    for mount, point in places(target, membership) if membership else ():
        assert membership is not None
        try:
            found = open_charged(membership, mount, point)
        except OSError:
            continue
        if found is not None:
            return found
    return None


def open_charged(membership: Membership, mount: Mount, point: str) -> OpenCgroup | None:
    """Open the innermost cgroup with the memory controller, but not inside of a container; `mount` is seen at `point`.

    Raises OSError where the directory is not there.
    """
    relative = below(mount.root, membership.path)
    assert relative is not None
    parts = list(upwards(relative))
    paths = [(mount.root.rstrip("/") + part) or "/" for part in parts]
    container = container_id(membership.path)
    begin = max((at for at, path in enumerate(paths) if container and container_id(path) == container), default=0)
    pod = max((at for at, path in enumerate(paths) if pod_uid(path)), default=None)
    current = "memory.current" if membership.version == 2 else "memory.usage_in_bytes"
    for at in range(begin, len(parts)):
        files = Directory.of_mount(point, parts[at], mount.device)
        if files.number(current) is not None:
            to_pod = pod - at if pod is not None and pod > at else None
            return OpenCgroup(files, paths[at], membership.version, len(parts) - 1 - at, to_pod)
        files.close()
    return None
