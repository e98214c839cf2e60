"""The processes that a fleet follows, or will, by pid; and whether there is anything new to tell of them."""

from __future__ import annotations

from collections.abc import Iterator

from gomem.tracer.fleet.member import Member
from gomem.tracer.fleet.view import TargetView
from gomem.tracer.proc.clocks import TimeOfDay


class Roster:
    """The members of a fleet. `changed`: something of them has, since they were told of last."""

    def __init__(self) -> None:
        self.changed = True
        self.urgent = False  # what was told last holds on to what is to be let go
        self._members: dict[int, Member] = {}
        self._told: dict[int, tuple[TargetView, TargetView]] = {}  # by pid: a member's view, and as it was told last

    def __iter__(self) -> Iterator[Member]:
        """Return all members, as they are now: they may come and go meanwhile."""
        return iter(tuple(self._members.values()))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._members)

    def at(self, pid: int) -> Member | None:
        """Return who has this pid."""
        return self._members.get(pid)

    def has(self, member: Member) -> bool:
        """Tell whether it is a member still."""
        return self._members.get(member.found.pid) is member

    def has_successor_of(self, member: Member) -> bool:
        """Tell whether another process has its pid now."""
        return self._members.get(member.found.pid, member) is not member

    def add(self, member: Member) -> None:
        """Take a process in; nobody has its pid."""
        self._members[member.found.pid] = member
        self.changed = True

    def remove(self, member: Member) -> None:
        """Strike a member off."""
        del self._members[member.found.pid]
        self.changed = True

    def views(self, today: TimeOfDay) -> tuple[TargetView, ...]:
        """Return what is known of each, in the order of pids, with times by the clock as it is set now.

        What is as it was told last is the same object: whoever writes it need not write it again.
        """
        self._told = {pid: self._dated(pid, self._members[pid].view, today) for pid in sorted(self._members)}
        return tuple(told for _, told in self._told.values())

    def _dated(self, pid: int, view: TargetView, today: TimeOfDay) -> tuple[TargetView, TargetView]:
        before, now = self._told.get(pid), view.dated(today)
        return before if before is not None and before[0] is view and before[1] == now else (view, now)
