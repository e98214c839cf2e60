"""Work at processes that may have to wait for somebody's file system: one thing after the other.

It is done by threads that can be left behind (jobs). The turns go on meanwhile, and a process that keeps us waiting
is left alone until its thread is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from gomem.bpf.syscalls import return_free_memory
from gomem.tracer.errors import GomemError, TargetError, TooLarge
from gomem.tracer.fleet.cgroups import Cgroups
from gomem.tracer.fleet.counts import Counts
from gomem.tracer.fleet.leavings import Leavings
from gomem.tracer.fleet.member import Member, Visitor, view_of
from gomem.tracer.fleet.nearness import machine_available, nearness, will_be_near
from gomem.tracer.fleet.roster import Roster
from gomem.tracer.fleet.schedule import Pace, Turns
from gomem.tracer.fleet.session import FleetSession
from gomem.tracer.fleet.shedding import Shedding
from gomem.tracer.fleet.silence import Silence
from gomem.tracer.fleet.view import TargetState, TargetView
from gomem.tracer.process.jobs import Job, Jobs

AFTER_A_BUG = 300.0  # seconds until a process that we failed at is tried again
_WAIT = 0.25  # seconds that we wait at once for what is under way


class Visits:
    """Looks at processes when that is due, gives models their events, and closes what is left."""

    def __init__(
        self,
        roster: Roster,
        visitor: Visitor,
        leavings: Leavings,
        silence: Silence,
        shedding: Shedding,
        cgroups: Cgroups,
        counts: Counts,
        pace: Pace,
        *,
        most_targets: int,
        patience: float,
        complain: Callable[[int, Exception], None],
        minds_limits: bool = False,
        glance_every: float | None = None,
        opened: Callable[[], int | None] = lambda: None,
    ) -> None:
        """For `most_targets`, `patience` (seconds), `complain`, `opened` and the rest see Fleet and its Settings."""
        self._roster = roster
        self._visitor = visitor
        self._leavings = leavings
        self._silence = silence
        self._shedding = shedding
        self._cgroups = cgroups
        self._counts = counts
        self._pace = pace
        self._most_targets = most_targets
        self._complain = complain
        self._minds_limits = minds_limits
        self._glance_every = glance_every
        self._opened = opened
        self._turns = Turns()
        self._jobs: Jobs[Member | None] = Jobs("gomem-visits", patience)

    def time_to_wait(self, timeout: float) -> float:
        """Return the seconds until there is something to do here, at most `timeout`."""
        if not self._jobs.free:
            return 0.0 if self._jobs.current is not None else timeout
        answering = [member for member in self._roster if self._silence.answers(member)]
        due = min((member.due for member in answering), default=float("inf"))
        if self._glance_every is not None:
            due = min([due, *(member.glance_due for member in answering if member.in_sight)])
        return min(max(due - time.monotonic(), 0.0), timeout)

    def run(self) -> None:
        """Give models their events, look at the process that has been due longest, glance, close what is left."""
        self._wait()
        self._mind_who_is_opened()
        for member in self._roster:
            following = member.following
            if self._jobs.free and self._silence.answers(member) and following is not None and following.waits:
                self._begin(member, following.apply)
        if self._jobs.free and self._leavings:
            self._close_what_is_left()
            self._wait()
        if self._jobs.free:
            self._visit_one()
        self._glance_at_all()

    def drop(self, member: Member) -> None:
        """Let go of a process that is gone or not wanted; if it is visited, when that is over."""
        self._roster.remove(member)
        self._counts.ended += member.following is not None
        self._counts.visited.discard(member.found.pid)
        if member.visited:
            self._leavings.leave(member.found.pid)
        else:
            self._release(member)

    def end(self, member: Member, error: GomemError | None = None) -> None:
        """Stop following: it has exited or is another program now, as discovery will tell."""
        self._counts.ended += member.following is not None
        self._release(member)
        why = error.what if error else f"process {member.found.pid} has exited, or executed another program"
        member.view = view_of(member.found, TargetState.STARTING, why)
        self._postpone(member, TargetState.STARTING, why)
        self._roster.changed = True

    def finish(self) -> None:
        """Wait for what is under way, if it is not stuck."""
        while self._jobs.current is not None and self._jobs.wait(_WAIT) is None:
            self._settle()

    def close(self) -> None:
        """Close what is left, if that can be done now, and let the threads end."""
        if self._jobs.free:
            self._leavings.close_programs()
            self._close_what_is_left()
            self.finish()
        self._jobs.close()

    def _close_what_is_left(self) -> None:
        self._jobs.begin(None, self._leavings.taken())

    # Whose turn it is

    def _visit_one(self) -> None:
        """Look at the process that has been due longest, or try to follow it."""
        member = self._whose_turn()
        if member is None or self._shedding.shed():
            return
        full = self._why_full() if member.following is None else None
        if full is not None:
            self._postpone(member, TargetState.WAITING, full)
            self._count(member, 0.0)
            return
        visited = member
        member.looking = True
        self._begin(member, lambda: self._visitor.visit(visited))

    def _mind_who_is_opened(self) -> None:
        """See to it that a process is looked at now which somebody has begun, or ceased, to look at closely."""
        opened = self._opened()
        for member in self._roster:
            if member.opened_closely != (member.found.pid == opened):
                member.opened_closely = not member.opened_closely
                if member.in_sight and not member.visited:
                    member.due = time.monotonic()

    def _glance_at_all(self) -> None:
        """Read the counters of all processes for which it is time, as long as none keeps us waiting."""
        if self._glance_every is None:
            return
        now = time.monotonic()
        for member in self._roster:
            following = member.following
            if following is None or not member.in_sight or member.visited or member.glance_due > now:
                continue
            if not self._jobs.free or not self._silence.answers(member):
                continue
            member.glance_due = now + self._glance_every * self._pace.stretch
            member.glancing = True
            self._begin(member, following.glance)

    def _whose_turn(self) -> Member | None:
        """Return the process that is to be looked at now: of two kinds those that have been due longest."""
        now = time.monotonic()
        due = [one for one in self._roster if one.due <= now and self._silence.answers(one)]
        longest: list[Member | None] = [
            min((one for one in due if one.in_sight == in_sight), key=lambda one: one.due, default=None)
            for in_sight in (True, False)
        ]
        known, doubtful = longest
        return self._turns.choose(known, doubtful if self._jobs.free_for_all else None)

    def _why_full(self) -> str | None:
        """Say why nobody else can be followed now, if so."""
        followed = sum(one.following is not None or one.visited for one in self._roster)
        if followed >= self._most_targets:
            return f"{self._most_targets} processes are followed already"
        return self._shedding.why_full

    # What is under way

    def _begin(self, member: Member, work: Callable[[], None]) -> None:
        member.visited = True
        self._jobs.begin(member, work)
        self._wait()

    def _wait(self) -> None:
        """Wait for what is under way, for a turn; then take what is done."""
        stuck = self._jobs.wait(_WAIT)
        if stuck is not None:
            self._leave_alone(stuck)
        self._settle()

    def _settle(self) -> None:
        for job in self._jobs.finished():
            if job.owner is not None:
                self._finish(job.owner, job)
            elif job.error is not None:
                self._complain(0, job.error)
            if job.was_stuck:
                self._silence.end(one.owner for one in self._jobs.stuck if one.owner is not None)

    def _leave_alone(self, job: Job[Member | None]) -> None:
        """Go on without a process that has kept us waiting for too long, and without others of the file system."""
        self._counts.errors += 1
        member = job.owner
        if member is not None and self._roster.has(member):
            self._silence.begin(member)
            self._count(member, time.monotonic() - job.began)

    # What became of it

    def _finish(self, member: Member, job: Job[Member | None]) -> None:
        """Take what became of work at a process."""
        looked, member.looking, member.visited = member.looking, False, False
        glanced, member.glancing = member.glancing, False
        if not self._roster.has(member):  # it was dropped meanwhile
            self._release(member)
            return
        error = job.error
        if isinstance(error, TargetError) and not isinstance(error, TooLarge):
            self.end(member, error)
        elif isinstance(error, GomemError) and member.following is None:
            self._counts.errors += 1
            self._postpone(member, TargetState.UNREADABLE, error.in_one_line())
        elif error is not None:
            self._give_up(member, error)
        elif looked and member.following is not None:
            self._looked(member, member.following)
        elif glanced and member.following is not None:
            seen = member.following.view
            member.view = replace(member.view, glance=seen.glance, glanced=seen.glanced)
            self._roster.changed = True
        if looked:
            self._roster.changed = True
            self._count(member, time.monotonic() - job.began)

    def _looked(self, member: Member, following: FleetSession) -> None:
        first = member.view.looks == 0
        self._counts.paused += following.pauses - member.pauses
        member.pauses = following.pauses
        following.belongs_to(member.found.workload)
        self._cgroups.joined(member.found.pid, member.opened, member.found.workload)
        near = self._nearness(member, following) if self._minds_limits else None
        is_near = near is not None and self._will_be_near(near, member.view, following.view)
        member.view = replace(following.view, cgroup=member.cgroup, near=near)
        member.opened = None
        member.failures = 0
        gap = self._pace.gap(
            following.last_cost, suspicious=following.suspicious, near=is_near, opened=member.opened_closely
        )
        member.due = time.monotonic() + (min(gap, self._pace.first_gap()) if first else gap)

    def _nearness(self, member: Member, following: FleetSession) -> float | None:
        """Return how near it is to one of its limits, None also where its last look failed."""
        view = following.view
        if view.report is None or view.state is TargetState.UNREADABLE:
            return None
        return nearness(view.report, self._cgroups.memory_of(member.found.pid), machine_available())

    def _will_be_near(self, near: float, before: TargetView, now: TargetView) -> bool:
        """Tell whether it would be near a limit at the next look that came as usual."""
        seconds = now.looked - before.looked if now.looked is not None and before.looked is not None else 0.0
        return will_be_near(near, before.near, seconds, self._pace.effective_interval)

    def _postpone(self, member: Member, state: TargetState, why: str) -> None:
        member.view = replace(member.view, state=state, why=why)
        member.due = time.monotonic() + self._pace.retry_gap(member.failures)
        member.failures += 1

    def _give_up(self, member: Member, error: Exception) -> None:
        """Contain a mistake of ours: what one process can make us stumble over must not end the watch of the others."""
        self._counts.errors += 1
        self._complain(member.found.pid, error)
        self._release(member)
        self._postpone(member, TargetState.UNREADABLE, f"gomem failed at it: {type(error).__name__}: {error}")
        member.due = max(member.due, time.monotonic() + AFTER_A_BUG)

    def _release(self, member: Member) -> None:
        """Let go of a process that nobody visits; what is wanted of its pid stays if that is another's now."""
        if not self._roster.has_successor_of(member):
            self._leavings.leave(member.found.pid)
        self._leavings.release(member)

    def _count(self, member: Member, seconds: float) -> None:
        wanted = [one.found.pid for one in self._roster if not one.held]
        rounds = self._counts.rounds
        self._counts.visit(member.found.pid, seconds, wanted)
        if self._counts.rounds > rounds:
            return_free_memory()  # a burst of events must not leave us larger for good
