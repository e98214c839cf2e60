"""What discovery tells: processes that are wanted, and what became of them. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from tracer.discovery.recognition import Kind
from tracer.discovery.sighting import Identity
from tracer.fleet.view import Belonging


@dataclass(frozen=True, slots=True)
class Found:
    """A wanted process. `kind` is GO unless its pid was given."""

    identity: Identity
    name: str  # of its executable, without the directory
    exe: str  # path in its own mount namespace; "" where it may not be read
    uid: int | None  # real user id
    cgroups: tuple[str, ...]
    belonging: Belonging
    kind: Kind
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
    `changed` are known processes of which something is known now that was not, or that were moved to another cgroup.
    """

    appeared: tuple[Found, ...] = ()
    gone: tuple[Identity, ...] = ()
    changed: tuple[Found, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything happened."""
        return bool(self.appeared or self.gone or self.changed)
