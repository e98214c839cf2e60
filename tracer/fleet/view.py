"""The view of all followed processes: plain data, replaced as a whole, which is all that exporters read.

A view is immutable. Whoever renders one needs no lock, waits for no read of a process, and delays none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.schedule import LOOK_SHARE
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.proc.clocks import TimeOfDay
from gomem.tracer.report import Report

if TYPE_CHECKING:  # whoever renders views needs none of what it takes to read a process
    from gomem.tracer.fleet.close_up import CloseUp
    from gomem.tracer.snapshot.glance import Glance

STALE_AFTER = 5  # intervals
_LEAST_STALE = 10.0  # seconds: a view is published every few, however short the interval is


class TargetState(StrEnum):
    """How far a process can be followed now."""

    STARTING = "starting"  # found, not looked at yet
    FOLLOWED = "followed"  # the runtime's and the kernel's side
    KERNEL_ONLY = "kernel_only"  # the kernel's side; `why` says what is missing
    UNREADABLE = "unreadable"  # neither; `why` says what would help
    WAITING = "waiting"  # left alone: a budget of ours is used up
    SHED = "shed"  # left alone for a while: of our memory budget, which is used up, it takes the most


@dataclass(frozen=True, slots=True)
class TargetView:
    """One process: who it is, and the newest report of it.

    The report's events, transitions, scavenged bytes and losses count from `followed_since` on and never fall.
    """

    pid: int
    name: str  # of its executable, without the directory
    state: TargetState
    why: str  # in one sentence, why it is not FOLLOWED; empty if it is
    workload: Workload
    report: Report | None  # None until a look succeeded
    followed_since: float  # seconds since the epoch
    looked_at: float | None = None  # of the report, seconds since the epoch
    look_seconds: float | None = None  # how long the last look that succeeded took
    looks: int = 0
    failed_looks: int = 0
    follows_events: bool = False  # its events are delivered now
    spans_at: float | None = None  # when the report's spans were read, seconds since the epoch
    looked: float | None = None  # time.monotonic() of looked_at, whatever is done to the time of day
    found: float = field(default_factory=time.monotonic)  # of followed_since
    start_ticks: int = 0  # when the process started, clock ticks after boot; with the pid it is this process only
    cgroup: str = ""  # path of the memory cgroup that is its container's, or its own; "" where that is not known
    near: float | None = None  # share used of the limit that is nearest, where the fleet was told to look for that
    glance: Glance | None = None  # newer than the report, where the fleet was told to glance
    glanced: float | None = None  # time.monotonic() of that
    close_up: CloseUp | None = None  # of the one process that somebody looks at closely

    def stale_after(self, interval: float) -> float:
        """Return the age in seconds at which its figures are stale; `interval`: seconds between two looks."""
        return max(STALE_AFTER * max(interval, (self.look_seconds or 0.0) / LOOK_SHARE), _LEAST_STALE)

    def dated(self, today: TimeOfDay) -> TargetView:
        """Return the same with the times that its looks have by the clock as it is set now.

        Where somebody has put it forward since, `followed_since` stays: counters that begin anew are taken for fallen.
        """
        looked_at = None if self.looked is None else today.of(round(self.looked * 1e9)) / 1e9
        since = min(self.followed_since, today.of(round(self.found * 1e9)) / 1e9)
        spans_at = looked_at if self.spans_at is not None else None
        return replace(self, looked_at=looked_at, followed_since=since, spans_at=spans_at)


@dataclass(frozen=True, slots=True)
class CgroupView:
    """One container of a pod, or one memory cgroup that is no such, in which followed processes are or were.

    `path` names no container that has another id after its next start, where its place in the pod is known.
    `oom_kills` never falls, also when the cgroup is made anew; that of a pod (which has no `memory` and no container)
    counts what no container was seen to lose.
    """

    path: str
    workload: Workload
    memory: CgroupMemory | None  # None: it is not there now
    oom_kills: int


@dataclass(frozen=True, slots=True)
class Health:
    """How the tracer itself is doing. Counts are since `started_at`, in seconds since the epoch."""

    started_at: float
    backend: str  # "bpf" | "procfs"
    backend_reason: str
    cpu_seconds: float  # user and system, with children
    resident_bytes: int
    open_fds: int
    rounds: int  # times that all targets were visited
    round_seconds: float  # how long the last one took
    interval_seconds: float  # how often it is meant to happen
    events: int  # taken from the kernel
    lost_events: int
    paused_events: int  # times that a target's events were switched off because they came too fast
    discovery: str  # "process connector" | "scan" | "fixed"
    processes_seen: int
    go_processes_seen: int
    discovery_errors: int
    targets_ended: int
    memory_budget: int = 0  # bytes of RSS; 0: none
    shed: int = 0  # times that a process was left alone because of it


@dataclass(frozen=True, slots=True)
class FleetView:
    """All targets at one moment, in order of pid, and the cgroups that they are charged to, each once."""

    targets: tuple[TargetView, ...]
    health: Health
    published_at: float  # seconds since the epoch
    cgroups: tuple[CgroupView, ...] = ()
    published: float = field(default_factory=time.monotonic)

    def age(self) -> float:
        """Return for how many seconds it has been there."""
        return time.monotonic() - self.published

    def stale(self, age: float = 0.0) -> tuple[TargetView, ...]:
        """Return the targets that no look has succeeded at for `STALE_AFTER` of their intervals, also those never seen.

        `age`: of the view, seconds.
        """
        interval, now = self.health.interval_seconds, self.published + age
        seen = ((one, one.found if one.looked is None else one.looked) for one in self.targets)
        return tuple(one for one, when in seen if now - when > one.stale_after(interval))
