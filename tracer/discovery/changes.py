"""What discovery tells: processes that are wanted, and what became of them. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from gomem.tracer.discovery.process_info import Identity
from gomem.tracer.discovery.recognition import ProgramKind
from gomem.tracer.discovery.workload import Workload


@dataclass(frozen=True, slots=True)
class Found:
    """A wanted process. `kind` is GO unless its pid was given."""

    identity: Identity
    name: str  # of its executable, without the directory
    exe: str  # path in its own mount namespace; "" where it may not be read
    uid: int | None  # real user id
    cgroups: tuple[str, ...]
    workload: Workload
    kind: ProgramKind
    build_id: str | None

    @property
    def pid(self) -> int:
        """Its pid, as our PID namespace numbers it."""
        return self.identity.pid

    @property
    def start_ticks(self) -> int:
        """When it started, in clock ticks after boot."""
        return self.identity.start_ticks


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since the last poll, in the order in which to follow it: first `gone`, then the others.

    Who is `gone` has ended, has executed another program, or is not wanted any more (its pod's labels have changed).
    `changed`: known processes about which something new is known, or that moved to another cgroup.
    """

    appeared: tuple[Found, ...] = ()
    gone: tuple[Identity, ...] = ()
    changed: tuple[Found, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything happened."""
        return bool(self.appeared or self.gone or self.changed)
