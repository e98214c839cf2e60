"""Leaving processes alone for a while, lest gomem takes more memory than it may."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from gomem.tracer.fleet.leavings import Leavings
from gomem.tracer.fleet.member import Member, view_of
from gomem.tracer.fleet.memory import MemoryBudget
from gomem.tracer.fleet.roster import Roster
from gomem.tracer.fleet.view import TargetState


class Shedding:
    """Keeps to a memory budget."""

    def __init__(self, memory: MemoryBudget, roster: Roster, leavings: Leavings, tell: Callable[[str], None]) -> None:
        """`tell` gets what whoever runs us should know."""
        self._memory = memory
        self._roster = roster
        self._leavings = leavings
        self._tell = tell

    @property
    def why_full(self) -> str | None:
        """Why no other process can be followed now, if so."""
        return f"gomem's memory budget of {self._memory.limit >> 20} MB is used up" if self._memory.used_up else None

    def shed(self) -> bool:
        """Leave those alone for a while that take the most of our memory, if it is too much; tell whether it is."""
        greediest = self._memory.greediest(self._roster)
        for member in greediest:
            self._leave_alone(member)
        if greediest:
            self._roster.urgent = True  # what was published holds their reports
        return bool(greediest)

    def _leave_alone(self, member: Member) -> None:
        why = self._memory.why(member)
        self._tell(f"process {member.found.pid} ({member.found.name}) is left alone: {why}")
        self._leavings.leave(member.found.pid)
        self._leavings.release(member)
        since, found = member.view.followed_since, member.view.found
        member.view = replace(view_of(member.found, TargetState.SHED, why), followed_since=since, found=found)
        member.due = time.monotonic() + self._memory.gap(member)
        member.shed += 1
        self._roster.changed = True
