"""File systems that do not answer, and the processes that are left alone because of one.

The kernel drops their events meanwhile, which nobody could take; their reports stay what they were.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from gomem.bpf.shared_source import SharedSource
from gomem.tracer.fleet.member import Member
from gomem.tracer.fleet.roster import Roster
from gomem.tracer.fleet.view import TargetState

_SILENT_PROGRAM = "the file system of its executable does not answer (NFS, FUSE); looked at again when it does"
_SILENT_FILE = "a file that it has mapped, or its own view of the file system, does not answer (NFS, FUSE)"


class Silence:
    """Knows which processes keep us waiting, or would."""

    def __init__(self, roster: Roster, source: SharedSource | None) -> None:
        self._roster = roster
        self._source = source
        self._devices: set[int] = set()

    def answers(self, member: Member) -> bool:
        """Tell whether work at a process may begin: nobody is there, and it would not have to wait for ever."""
        return not member.visited and member.device not in self._devices

    def meet(self, member: Member) -> None:
        """Leave a newcomer alone whose program lies where nothing answers."""
        if member.device in self._devices:
            self._hold(member, _SILENT_PROGRAM)

    def begin(self, member: Member) -> None:
        """Leave a process alone that has kept us waiting, and the others of the file system that it waits for."""
        self._hold(member, _SILENT_PROGRAM if member.at_executable else _SILENT_FILE)
        if member.at_executable and member.device:
            self._devices.add(member.device)
            for other in self._roster:
                if other.device == member.device and not other.held:
                    self._hold(other, _SILENT_PROGRAM)

    def end(self, waiting: Iterable[Member]) -> None:
        """Something has answered: visit whom that concerns; `waiting` are those who keep us waiting still."""
        self._devices = {one.device for one in waiting if one.at_executable} - {0}
        for member in self._roster:
            if member.held and self.answers(member):
                member.held = False
                member.due = time.monotonic()
                if self._source is not None and (target := self._source.find(member.found.pid)) is not None:
                    target.resume()

    def _hold(self, member: Member, why: str) -> None:
        member.held = True
        member.view = replace(member.view, state=TargetState.UNREADABLE, why=why, follows_events=False)
        self._roster.changed = True
        if self._source is not None and (target := self._source.find(member.found.pid)) is not None:
            target.pause()
