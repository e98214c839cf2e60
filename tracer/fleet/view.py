"""The view of all followed processes: plain data, replaced as a whole, which is all that exporters read.

A view is immutable. Whoever renders one needs no lock, waits for no read of a process, and delays none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tracer.report import Report


class TargetState(StrEnum):
    """How far a process can be followed now."""

    STARTING = "starting"  # found, not looked at yet
    FOLLOWED = "followed"  # the runtime's and the kernel's side
    KERNEL_ONLY = "kernel_only"  # the kernel's side; `why` says what is missing
    UNREADABLE = "unreadable"  # neither; `why` says what would help
    WAITING = "waiting"  # left alone: a budget of ours is used up


@dataclass(frozen=True, slots=True)
class Belonging:
    """What a process belongs to. None: not known, or it belongs to none."""

    container_id: str | None = None
    pod_uid: str | None = None
    pod: str | None = None
    namespace: str | None = None
    container: str | None = None
    node: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)  # of the pod, those that were asked for


@dataclass(frozen=True, slots=True)
class TargetView:
    """One process: who it is, and the newest report of it.

    The report's events, transitions, scavenged bytes and losses count from `followed_since` on and never fall.
    """

    pid: int
    name: str  # of its executable, without the directory
    state: TargetState
    why: str  # in one sentence, why it is not FOLLOWED; empty if it is
    belonging: Belonging
    report: Report | None  # None until a look succeeded
    followed_since: float  # seconds since the epoch
    looked_at: float | None = None  # of the report, seconds since the epoch
    look_seconds: float | None = None  # how long the last look took
    looks: int = 0
    failed_looks: int = 0
    follows_events: bool = False  # its events are delivered now
    spans_at: float | None = None  # when the report's spans were read, seconds since the epoch


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


@dataclass(frozen=True, slots=True)
class FleetView:
    """All targets at one moment, in order of pid."""

    targets: tuple[TargetView, ...]
    health: Health
    published_at: float  # seconds since the epoch
