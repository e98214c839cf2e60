"""What a fleet keeps of one process, and what it does at one: in a thread that may have to wait there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bpf.shared_source import SharedSource
from tracer.discovery.discovery import Found
from tracer.errors import BackendUnavailable
from tracer.events import EventBatch
from tracer.fleet.following import EventFeed, Following
from tracer.fleet.programs import Programs, Shared
from tracer.fleet.view import TargetView
from tracer.inspection import Inspector
from tracer.report import Limit
from tracer.session import sees_all_states, skipped_limits
from tracer.target import Target


@dataclass(slots=True, eq=False)
class Member:
    """A process that discovery found, followed or not.

    While it is `visited`, `following`, `shared` and `at_executable` belong to the thread that does so.
    """

    found: Found
    view: TargetView
    due: float  # time.monotonic() of the next look, or of the next try to follow it
    following: Following | None = None
    shared: Shared | None = None
    failures: int = 0
    pauses: int = 0  # of its events, those counted already
    visited: bool = False
    looking: bool = False  # what it is visited for is a look
    at_executable: bool = False  # what is under way waits for the file system of its executable, if it does
    held: bool = False  # its events are counted and no more, because nobody can take them
    inbox: list[EventBatch] = field(default_factory=list)  # what came while it was visited

    @property
    def device(self) -> int:
        """The file system of its executable; 0 if that is not known."""
        return self.found.identity.exe.device


class Visitor:
    """Begins to follow processes, and looks at them."""

    def __init__(
        self,
        source: SharedSource | None,
        programs: Programs,
        reason: str,
        limits: Sequence[Limit],
        limits_now: Callable[[], Sequence[Limit]],
    ) -> None:
        """For `reason` and `limits` see Fleet; `limits_now` returns those that change."""
        self._source = source
        self._programs = programs
        self._reason = reason
        self._limits = list(limits)
        self._limits_now = limits_now

    def visit(self, member: Member) -> None:
        """Look at a process; follow it from now on if nobody does yet.

        Raises TargetError when it is not what it was, and for one that cannot be followed what stands in the way.
        """
        member.at_executable = True
        if member.following is None:
            self._follow(member)
        else:
            member.following.touch_executable()
        member.at_executable = False
        if member.following is not None:
            member.following.look()

    def _follow(self, member: Member) -> None:
        found = member.found
        target = Target.open(found.pid, found.start_ticks)
        try:
            shared = member.shared = self._programs.take(target)
            inspector = Inspector(target, shared.program, owns_program=False)
            feed, reason, limits = self._events_of(found.pid, shared)
            member.at_executable = False
            member.following = Following(inspector, found.belonging, feed, reason, limits, self._limits_now)
        except BaseException:
            target.close()
            if member.shared is not None:
                self._programs.give_back(member.shared)
                member.shared = None
            raise

    def _events_of(self, pid: int, shared: Shared) -> tuple[EventFeed | None, str, list[Limit]]:
        """Return the events of a process, why there are some or none, and what cannot be seen for that."""
        try:
            return self._feed(pid, shared), self._reason, self._limits
        except BackendUnavailable as error:
            return None, error.what, [*self._limits, Limit("what happens between two looks", error.what, error.fix)]

    def _feed(self, pid: int, shared: Shared) -> EventFeed | None:
        source = self._source
        if source is None:
            return None
        skipped = source.add(pid, shared.uprobes)
        return EventFeed(
            target=source.target(pid),
            uprobes=shared.uprobes,
            sees_states=sees_all_states(shared.uprobes, skipped, shared.limits),
            limits=[*shared.limits, *skipped_limits(skipped)],
            probe_plugins=(lambda specs: source.add_uprobes(pid, specs)) if shared.loads_plugins else None,
        )
