"""Following all processes that discovery finds, and publishing what is known of them.

One turn of the loop: processes that came or went, events of all, one look at the process that has waited for it
longest, and a new view when something has changed. One thread makes the turns and owns all that is known. What may have
to wait for somebody's file system is done by threads that can be left behind (errands), one thing after the other: the
turns go on meanwhile, and a process that keeps us waiting is left alone until its thread is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bpf.shared_source import SharedSource
from bpf.syscalls import return_free_memory
from tracer import usage
from tracer.discovery.changes import Changes
from tracer.discovery.discovery import Discovery, Found
from tracer.errors import GomemError, TargetError
from tracer.events import no_events
from tracer.fleet.counts import Counts
from tracer.fleet.errands import Errand, Errands
from tracer.fleet.following import Following
from tracer.fleet.member import Member, Visitor
from tracer.fleet.programs import Programs
from tracer.fleet.schedule import Pace
from tracer.fleet.view import FleetView, TargetState, TargetView
from tracer.report import Limit
from tracer.runner import Runner

_TURN = 0.25  # seconds that a turn waits for events at the most
_PUBLISH_GAP = 1.0  # seconds between two views, when something has changed
_PUBLISH_EVERY = 5.0  # seconds, when nothing has
_ADAPT_EVERY = 10.0  # seconds
AFTER_A_BUG = 300.0  # seconds until a process that we failed at is tried again
_NOT_YET = "it has not been looked at yet"
_SILENT_PROGRAM = "the file system of its executable does not answer (NFS, FUSE); looked at again when it does"
_SILENT_FILE = "a file that it has mapped, or its own view of the file system, does not answer (NFS, FUSE)"


@dataclass(frozen=True, slots=True)
class Settings:
    """`interval`: seconds between looks at one process; `cpu_budget`: share of one CPU for everything.

    `patience`: seconds that a process may keep us waiting before it is left alone.
    """

    interval: float = 15.0
    cpu_budget: float = 0.05
    most_targets: int = 500
    patience: float = 5.0


class Fleet:
    """All processes that are followed. `run` belongs to one thread; the published views are for everybody."""

    def __init__(
        self,
        discovery: Discovery,
        source: SharedSource | None,
        reason: str,
        settings: Settings,
        publish: Callable[[FleetView], None],
        limits: Sequence[Limit] = (),
        complain: Callable[[int, Exception], None] = lambda pid, error: None,
    ) -> None:
        """Use a `discovery` and a `source` that have been started.

        `reason`: why there are events, or with no source, why not; `limits`: what follows from that for every report;
        `complain` gets what no code of ours was ready for, with the pid that caused it.
        """
        self._discovery = discovery
        self._source = source
        self._reason = reason
        self._settings = settings
        self._publish = publish
        self._complain = complain
        self._pace = Pace(settings.interval, settings.cpu_budget)
        self._programs = Programs()
        self._visitor = Visitor(source, self._programs, reason, limits, lambda: discovery.limits)
        self._members: dict[int, Member] = {}
        self._errands: Errands[Member | None] = Errands("gomem-visits", settings.patience)
        self._finder = Runner("gomem-discovery")
        self._discovered: list[Changes | Exception] = []
        self._leavings: list[Callable[[], None]] = []  # what is to be closed
        self._silent: set[int] = set()  # file systems that do not answer
        self._counts = Counts()
        self._published = float("-inf")
        self._changed = True
        self._measured = (time.monotonic(), usage.cpu_seconds())

    def run(self, stop: Callable[[], bool]) -> None:
        """Follow until `stop` says so, then let go of all processes."""
        try:
            while not stop():
                self.turn(_TURN)
        finally:
            self.close()

    def turn(self, timeout: float) -> None:
        """Do what is due now; wait for events up to `timeout` seconds if nothing is."""
        self._discover()
        self._drain(self._time_to_wait(timeout))
        self._run_errands()
        self._count_empty_round()
        self._adapt()
        self._publish_view()

    def close(self) -> None:
        """Let go of all processes; of those that keep us waiting when they do not any more."""
        for pid in list(self._members):
            self._drop(pid)
        self._finder.wait(self._settings.patience)
        self._finder.leave()
        self._finish_errands()
        if self._errands.free:
            self._leavings.append(self._programs.close)
            self._close_what_is_left()
            self._finish_errands()
        self._errands.close()

    def _finish_errands(self) -> None:
        while self._errands.current is not None and self._errands.wait(_TURN) is None:
            self._settle()

    def _close_what_is_left(self) -> None:
        leavings, self._leavings = self._leavings, []
        self._errands.begin(None, lambda: _call_all(leavings))

    def _discover(self) -> None:
        """Learn who came and went; if discovery has to wait for somebody, later."""
        if not self._finder.busy:
            self._finder.begin(self._ask_discovery)
            self._finder.wait(_TURN)
        while self._discovered:
            changes = self._discovered.pop(0)
            if isinstance(changes, Exception):
                raise changes
            self._take(changes)

    def _ask_discovery(self) -> None:
        try:
            changes = self._discovery.poll(0.0)
        except Exception as error:
            self._discovered.append(error)
        else:
            if changes:
                self._discovered.append(changes)

    def _take(self, changes: Changes) -> None:
        for identity in changes.gone:
            member = self._members.get(identity.pid)
            if member is not None and member.found.identity == identity:
                self._drop(identity.pid)
        for found in changes.appeared:
            if found.pid in self._members:
                self._drop(found.pid)
            member = Member(found, _view_of(found, TargetState.STARTING, _NOT_YET), time.monotonic())
            self._members[found.pid] = member
            if member.device in self._silent:
                self._hold(member, _SILENT_PROGRAM)
            self._changed = True
        for found in changes.changed:
            member = self._members.get(found.pid)
            if member is not None and member.found.identity == found.identity:
                self._learn(member, found)

    def _learn(self, member: Member, found: Found) -> None:
        """Take what is known now of where a process belongs."""
        member.found = found
        if member.following is not None and not member.visited:
            member.following.belongs_to(found.belonging)
        member.view = replace(member.view, belonging=found.belonging)
        self._changed = True

    def _time_to_wait(self, timeout: float) -> float:
        if not self._errands.free:
            return 0.0 if self._errands.current is not None else timeout
        due = min((member.due for member in self._members.values() if self._answers(member)), default=float("inf"))
        return min(max(due - time.monotonic(), 0.0), timeout)

    def _drain(self, timeout: float) -> None:
        if self._source is None:
            time.sleep(timeout)
            return
        until = time.monotonic_ns()
        for pid, batch in self._source.poll(timeout).items():
            self._counts.events += len(batch)
            if pid in self._members:
                self._members[pid].inbox.append(batch)
        for member in self._members.values():
            self._feed_one(member, until)

    def _feed_one(self, member: Member, until: int) -> None:
        """Hand over what came; while somebody visits the process, it waits."""
        if member.visited:
            return
        following, batches = member.following, member.inbox
        if following is None:
            batches.clear()
        elif batches or following.waits:
            member.inbox = []
            for batch in batches or [no_events()]:
                following.feed(batch, until)
            if following.ended:
                self._end(member)

    # What may have to wait

    def _run_errands(self) -> None:
        """Give models their events, look at the process that has been due longest, close what is left."""
        self._wait()
        for member in list(self._members.values()):
            following = member.following
            if self._errands.free and self._answers(member) and following is not None and following.waits:
                self._begin(member, following.apply)
        if self._errands.free and self._leavings:
            self._close_what_is_left()
            self._wait()
        if self._errands.free:
            self._visit_one()

    def _visit_one(self) -> None:
        """Look at the process that has been due longest, or try to follow it."""
        candidates = (member for member in self._members.values() if self._answers(member))
        member = min(candidates, key=lambda member: member.due, default=None)
        if member is None or member.due > time.monotonic():
            return
        followed = sum(one.following is not None or one.visited for one in self._members.values())
        if member.following is None and followed >= self._settings.most_targets:
            why = f"{self._settings.most_targets} processes are followed already"
            self._postpone(member, TargetState.WAITING, why)
            self._count_visit(member, 0.0)
            return
        visited = member
        member.looking = True
        self._begin(member, lambda: self._visitor.visit(visited))

    def _begin(self, member: Member, work: Callable[[], None]) -> None:
        member.visited = True
        self._errands.begin(member, work)
        self._wait()

    def _wait(self) -> None:
        """Wait for what is under way, for a turn; then take what is done."""
        stuck = self._errands.wait(_TURN)
        if stuck is not None:
            self._leave_alone(stuck)
        self._settle()

    def _settle(self) -> None:
        for errand in self._errands.finished():
            if errand.owner is not None:
                self._finish(errand.owner, errand)
            elif errand.error is not None:
                self._complain(0, errand.error)
            if errand.was_stuck:
                self._go_on()

    def _finish(self, member: Member, errand: Errand[Member | None]) -> None:
        """Take what became of work at a process."""
        looked, member.looking, member.visited = member.looking, False, False
        if self._members.get(member.found.pid) is not member:  # it was dropped meanwhile
            self._release(member)
            return
        error = errand.error
        if isinstance(error, TargetError):
            self._end(member, error)
        elif isinstance(error, GomemError) and member.following is None:
            self._counts.errors += 1
            self._postpone(member, TargetState.UNREADABLE, error.in_one_line())
        elif error is not None:
            self._give_up(member, error)
        elif looked and member.following is not None:
            self._looked(member, member.following)
        if looked:
            self._changed = True
            self._count_visit(member, time.monotonic() - errand.began)

    def _looked(self, member: Member, following: Following) -> None:
        first = member.view.looks == 0
        self._counts.paused += following.pauses - member.pauses
        member.pauses = following.pauses
        following.belongs_to(member.found.belonging)
        member.view = following.view
        member.failures = 0
        gap = self._pace.gap(following.last_cost, suspicious=following.suspicious)
        member.due = time.monotonic() + (min(gap, self._pace.first_gap()) if first else gap)

    # Processes that keep us waiting

    def _answers(self, member: Member) -> bool:
        """Tell whether work at a process may begin."""
        return not member.visited and (not self._silent or member.device not in self._silent)

    def _leave_alone(self, errand: Errand[Member | None]) -> None:
        """Go on without a process that has kept us waiting for too long, and without others of the file system."""
        self._counts.errors += 1
        member = errand.owner
        if member is None or self._members.get(member.found.pid) is not member:
            return
        at_executable = member.at_executable
        self._hold(member, _SILENT_PROGRAM if at_executable else _SILENT_FILE)
        self._count_visit(member, time.monotonic() - errand.began)
        if at_executable and member.device:
            self._silent.add(member.device)
            for other in self._members.values():
                if other.device == member.device and not other.held:
                    self._hold(other, _SILENT_PROGRAM)

    def _hold(self, member: Member, why: str) -> None:
        """Let the kernel drop events that nobody can take; the report stays what it was."""
        member.held = True
        member.view = replace(member.view, state=TargetState.UNREADABLE, why=why, follows_events=False)
        self._changed = True
        if self._source is not None and (target := self._source.find(member.found.pid)) is not None:
            target.pause()

    def _go_on(self) -> None:
        """Something has answered: visit whom that concerns."""
        stuck = [errand.owner for errand in self._errands.stuck]
        self._silent = {one.device for one in stuck if one is not None and one.at_executable} - {0}
        for member in self._members.values():
            if member.held and not member.visited and member.device not in self._silent:
                member.held = False
                member.due = time.monotonic()
                if self._source is not None and (target := self._source.find(member.found.pid)) is not None:
                    target.resume()

    def _postpone(self, member: Member, state: TargetState, why: str) -> None:
        member.view = replace(member.view, state=state, why=why)
        member.due = time.monotonic() + self._pace.retry_gap(member.failures)
        member.failures += 1

    def _end(self, member: Member, error: GomemError | None = None) -> None:
        """Stop following: it has exited or is another program now, as discovery will tell."""
        self._counts.ended += member.following is not None
        self._release(member)
        why = error.what if error else f"process {member.found.pid} has exited, or executed another program"
        member.view = _view_of(member.found, TargetState.STARTING, why)
        self._postpone(member, TargetState.STARTING, why)
        self._changed = True

    def _give_up(self, member: Member, error: Exception) -> None:
        """Contain a mistake of ours: what one process can make us stumble over must not end the watch of the others."""
        self._counts.errors += 1
        self._complain(member.found.pid, error)
        self._release(member)
        self._postpone(member, TargetState.UNREADABLE, f"gomem failed at it: {type(error).__name__}: {error}")
        member.due = max(member.due, time.monotonic() + AFTER_A_BUG)

    def _drop(self, pid: int) -> None:
        member = self._members.pop(pid)
        self._counts.ended += member.following is not None
        self._counts.visited.discard(pid)
        self._changed = True
        if not member.visited:
            self._release(member)
        elif self._source is not None:
            self._source.remove(pid)

    def _release(self, member: Member) -> None:
        """Let go of a process that nobody visits."""
        pid = member.found.pid
        if self._source is not None and self._members.get(pid, member) is member:
            self._source.remove(pid)
        if member.following is not None:
            self._leavings.append(member.following.close)
            member.following = None
        if member.shared is not None:
            self._programs.give_back(member.shared)
            member.shared = None
            if self._programs.too_many_idle:
                self._leavings.append(self._programs.close_idle)

    def _count_visit(self, member: Member, seconds: float) -> None:
        wanted = [pid for pid, one in self._members.items() if not one.held]
        rounds = self._counts.rounds
        self._counts.visit(member.found.pid, seconds, wanted)
        if self._counts.rounds > rounds:
            return_free_memory()  # a burst of events must not leave us larger for good

    def _count_empty_round(self) -> None:
        """With nobody to visit, a round is over when its time is."""
        if self._members:
            self._counts.somebody_there()
        elif self._counts.nobody_there(self._pace.interval):
            self._changed = True

    def _adapt(self) -> None:
        then, used = self._measured
        now = time.monotonic()
        if now - then < _ADAPT_EVERY:
            return
        self._measured = (now, usage.cpu_seconds())
        self._leavings.append(self._programs.close_idle)
        if self._counts.rounds:  # before that, everything is done for the first time
            self._pace.adapt(self._measured[1] - used, now - then)

    def _publish_view(self) -> None:
        now = time.monotonic()
        if now - self._published < (_PUBLISH_GAP if self._changed else _PUBLISH_EVERY):
            return
        self._published = now
        self._changed = False
        targets = tuple(self._members[pid].view for pid in sorted(self._members))
        health = self._counts.health(self._source, self._discovery, self._reason, self._pace.effective_interval)
        self._publish(FleetView(targets, health, time.time()))


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _view_of(found: Found, state: TargetState, why: str) -> TargetView:
    return TargetView(
        pid=found.pid, name=found.name, state=state, why=why, belonging=found.belonging, report=None,
        followed_since=time.time(),
    )  # fmt: skip
