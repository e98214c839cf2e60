"""Letting go of processes: at once of what does not wait, later of what may have to."""

from __future__ import annotations

from collections.abc import Callable

from gomem.bpf.shared_source import SharedSource
from gomem.tracer.fleet.cgroups import Cgroups
from gomem.tracer.fleet.member import Member
from gomem.tracer.fleet.programs import Programs


class Leavings:
    """Lets go of what is held for processes, and keeps what is to be closed until somebody may wait for it."""

    def __init__(self, source: SharedSource | None, cgroups: Cgroups, programs: Programs) -> None:
        self._source = source
        self._cgroups = cgroups
        self._programs = programs
        self._calls: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        """Tell whether anything is to be closed."""
        return bool(self._calls)

    def leave(self, pid: int) -> None:
        """Want nothing any more of whoever has this pid."""
        self._cgroups.left(pid)
        if self._source is not None:
            self._source.remove(pid)

    def release(self, member: Member) -> None:
        """Let go of what a process holds that nobody visits."""
        member.forget_cgroup()
        if member.following is not None:
            self._calls.append(member.following.close)
            member.following = None
        if member.shared is not None:
            self._programs.give_back(member.shared)
            member.shared = None
            if self._programs.too_many_idle:
                self.close_idle_programs()

    def close_idle_programs(self) -> None:
        """Have the programs closed that no process runs any more."""
        self._calls.append(self._programs.close_idle)

    def close_programs(self) -> None:
        """Have all programs closed."""
        self._calls.append(self._programs.close)

    def taken(self) -> Callable[[], None]:
        """Return what closes all that is to be closed; it may have to wait."""
        calls, self._calls = self._calls, []

        def close_all() -> None:
            for call in calls:
                call()

        return close_all
