"""Processes that have ended: how, and whether their black boxes are kept.

The OOM killer signals its victim before it writes so into the kernel's log, and a cgroup's count reaches us with the
next view. So a process that SIGKILL ended waits some seconds for its verdict.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from gomem.exporters.black_box.box import Noticed
from gomem.exporters.black_box.contents import Reason
from gomem.exporters.black_box.followed import Followed
from gomem.exporters.black_box.kills import SOON, Kills
from gomem.tracer.ending.afterlife import WaitStatus
from gomem.tracer.ending.endings import Endings
from gomem.tracer.fleet.view import FleetView
from gomem.tracer.report import OomKill, ProcessEnding

_LOGGED_WITHIN = 1.0  # seconds between the end of a victim and the line in the log that names it
_COUNTED_WITHIN = 1.0  # and its cgroup's count being read (tracer/fleet/cgroups.py asks ten times as often)
_LATEST = 10.0  # seconds after which no view is waited for any more
_ASKED_TO_END = ("SIGTERM", "SIGINT", "SIGHUP")  # whoever sent them wanted no more than that
_AGAIN = 0.1  # seconds between two questions


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a process ended; `kept_for` None: nothing is kept of it."""

    of: Followed
    noticed: Noticed
    ending: ProcessEnding
    kept_for: Reason | None


@dataclass(frozen=True, slots=True, eq=False)
class _Death:
    of: Followed
    noticed: Noticed
    status: WaitStatus | None

    @property
    def at(self) -> float:
        """time.monotonic() of its being noticed."""
        return self.noticed.moment / 1e9

    @property
    def may_be_oom(self) -> bool:
        return self.status is None or self.status.signal_name == "SIGKILL"


class Deaths:
    """Takes the ends of processes as they are noticed, and gives verdicts. For one thread."""

    def __init__(self, endings: Endings, *, crashes: bool) -> None:
        """`crashes`: keep also what ended with an exit code that is not 0, or by a signal that does not ask for it."""
        self._endings = endings
        self._crashes = crashes
        self._kills = Kills()
        self._published = float("-inf")  # of the newest view
        self._open: list[_Death] = []

    def see(self, view: FleetView) -> None:
        """Take a new view."""
        self._kills.see(view)
        self._published = view.published

    def add(self, one: Followed, noticed: Noticed) -> None:
        """Take note that a process has ended."""
        self._open.append(_Death(one, noticed, self._endings.status(one.life)))

    def time_to_wait(self, most: float) -> float:
        """Return the seconds until verdicts should be asked for again, at most `most`."""
        return _AGAIN if self._open else most

    def decided(self, *, final: bool) -> Iterator[Verdict]:
        """Yield the verdicts that can be given by now; `final`: all, by what is known."""
        waiting, self._open = self._open, []
        for death in waiting:
            oom = self._oom(death) if death.may_be_oom else None
            if death.may_be_oom and oom is None and not final and not self._is_late(death):
                self._open.append(death)
            else:
                yield self._verdict(death, oom)

    def _oom(self, death: _Death) -> OomKill | None:
        named = self._endings.victim(death.of.life.pid)
        if named is not None or self._endings.names_victims(death.at - SOON):
            return named
        return self._kills.near(death.of.target, death.at)

    def _is_late(self, death: _Death) -> bool:
        """Tell whether nothing more is to come that would speak for the OOM killer."""
        age = time.monotonic() - death.at
        if self._endings.names_victims(death.at - SOON):
            return age > _LOGGED_WITHIN
        return self._published > death.at + _COUNTED_WITHIN or age > _LATEST

    def _verdict(self, death: _Death, oom: OomKill | None) -> Verdict:
        status = death.status
        if status is None:
            ending = ProcessEnding(None, None, None, oom=oom)
            return Verdict(death.of, death.noticed, ending, "oom-kill" if oom is not None else None)
        ending = ProcessEnding(status.code, status.signal_name, status.core_dumped, oom=oom)
        crashed = status.code != 0 and status.signal_name not in _ASKED_TO_END
        kept_for: Reason | None = "oom-kill" if oom is not None else "crash" if crashed and self._crashes else None
        return Verdict(death.of, death.noticed, ending, kept_for)
