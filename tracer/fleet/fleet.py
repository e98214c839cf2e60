"""Following all processes that discovery finds, in one thread, and publishing what is known of them.

One turn of the loop: processes that came or went, events of all, one look at the process that has waited for it
longest, and a new view when something has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bpf.shared_source import SharedSource
from tracer import usage
from tracer.discovery.discovery import Discovery, Found
from tracer.errors import GomemError, TargetError
from tracer.events import EventBatch, no_events
from tracer.fleet.following import EventFeed, Following
from tracer.fleet.programs import Programs, Shared
from tracer.fleet.schedule import Pace
from tracer.fleet.view import FleetView, Health, TargetState, TargetView
from tracer.inspection import Inspector
from tracer.report import Limit
from tracer.session import sees_all_states, skipped_limits
from tracer.target import Target

_TURN = 0.25  # seconds that a turn waits for events at the most
_PUBLISH_GAP = 1.0  # seconds between two views, when something has changed
_PUBLISH_EVERY = 5.0  # seconds, when nothing has
_ADAPT_EVERY = 10.0  # seconds
AFTER_A_BUG = 300.0  # seconds until a process that we failed at is tried again


@dataclass(frozen=True, slots=True)
class Settings:
    """`interval`: seconds between looks at one process; `cpu_budget`: share of one CPU for everything."""

    interval: float = 15.0
    cpu_budget: float = 0.05
    most_targets: int = 500


@dataclass(slots=True)
class _Member:
    """A process that discovery found, followed or not."""

    found: Found
    view: TargetView
    due: float  # time.monotonic() of the next look, or of the next try to follow it
    following: Following | None = None
    shared: Shared | None = None
    failures: int = 0


@dataclass(slots=True)
class _Counts:
    """What happened since the start."""

    rounds: int = 0
    round_seconds: float = 0.0
    events: int = 0
    ended: int = 0
    paused: int = 0
    errors: int = 0
    this_round: float = 0.0
    empty_since: float = field(default_factory=time.monotonic)
    visited: set[int] = field(default_factory=set)


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
        self._limits = list(limits)
        self._complain = complain
        self._pace = Pace(settings.interval, settings.cpu_budget)
        self._programs = Programs()
        self._members: dict[int, _Member] = {}
        self._counts = _Counts()
        self._started_at = time.time()
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
        due = min((member.due for member in self._members.values()), default=float("inf"))
        self._drain(min(max(due - time.monotonic(), 0.0), timeout))
        self._visit_one()
        self._count_empty_round()
        self._adapt()
        self._publish_view()

    def close(self) -> None:
        """Let go of all processes."""
        for pid in list(self._members):
            self._drop(pid)
        self._programs.close()

    def _discover(self) -> None:
        changes = self._discovery.poll(0.0)
        for identity in changes.gone:
            member = self._members.get(identity.pid)
            if member is not None and member.found.identity == identity:
                self._drop(identity.pid)
        for found in changes.appeared:
            if found.pid in self._members:
                self._drop(found.pid)
            self._members[found.pid] = _Member(found, _view_of(found, TargetState.STARTING, _NOT_YET), time.monotonic())
            self._changed = True
        for found in changes.changed:
            member = self._members.get(found.pid)
            if member is not None and member.found.identity == found.identity:
                self._learn(member, found)

    def _learn(self, member: _Member, found: Found) -> None:
        """Take what is known now of where a process belongs."""
        member.found = found
        if member.following is not None:
            member.following.belongs_to(found.belonging)
        member.view = replace(member.view, belonging=found.belonging)
        self._changed = True

    def _drain(self, timeout: float) -> None:
        if self._source is None:
            time.sleep(timeout)
            return
        until = time.monotonic_ns()
        batches = self._source.poll(timeout)
        for pid, batch in batches.items():
            self._counts.events += len(batch)
            if pid in self._members:
                self._feed_one(self._members[pid], batch, until)
        for pid, member in self._members.items():
            if member.following is not None and member.following.waits and pid not in batches:
                self._feed_one(member, no_events(), until)

    def _feed_one(self, member: _Member, batch: EventBatch, until: int) -> None:
        following = member.following
        if following is None:
            return
        try:
            following.feed(batch, until)
        except Exception as error:
            self._give_up(member, error)
            return
        if following.ended:
            self._end(member)

    def _visit_one(self) -> None:
        """Look at the process that has been due longest, or try to follow it."""
        member = min(self._members.values(), key=lambda member: member.due, default=None)
        if member is None or member.due > time.monotonic():
            return
        began = time.monotonic()
        try:
            if member.following is None:
                self._begin(member)
            if member.following is not None:
                self._look(member, member.following)
        except TargetError as error:
            self._end(member, error)
        except Exception as error:
            self._give_up(member, error)
        self._changed = True
        self._count_visit(member.found.pid, time.monotonic() - began)

    def _begin(self, member: _Member) -> None:
        """Follow a process from now on; if that is not permitted, say so and try again later."""
        if sum(one.following is not None for one in self._members.values()) >= self._settings.most_targets:
            why = f"{self._settings.most_targets} processes are followed already"
            self._postpone(member, TargetState.WAITING, why)
            return
        try:
            member.following = self._follow(member)
        except TargetError:
            raise
        except GomemError as error:
            self._counts.errors += 1
            self._postpone(member, TargetState.UNREADABLE, error.in_one_line())

    def _follow(self, member: _Member) -> Following:
        found = member.found
        target = Target.open(found.pid, found.start_ticks)
        try:
            shared = self._programs.take(target)
        except BaseException:
            target.close()
            raise
        member.shared = shared
        inspector = Inspector(target, shared.program, owns_program=False)
        try:
            feed = self._feed(found.pid, shared)
            return Following(inspector, found.belonging, feed, self._reason, self._limits)
        except BaseException:
            inspector.close()
            target.close()
            self._give_back(member)
            raise

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

    def _look(self, member: _Member, following: Following) -> None:
        first, pauses = following.view.looks == 0, following.pauses
        following.look()
        self._counts.paused += following.pauses - pauses
        member.view = following.view
        member.failures = 0
        gap = self._pace.gap(following.last_cost, suspicious=following.suspicious)
        member.due = time.monotonic() + (min(gap, self._pace.first_gap()) if first else gap)

    def _postpone(self, member: _Member, state: TargetState, why: str) -> None:
        member.view = replace(member.view, state=state, why=why)
        member.due = time.monotonic() + self._pace.retry_gap(member.failures)
        member.failures += 1

    def _end(self, member: _Member, error: GomemError | None = None) -> None:
        """Stop following: it has exited or is another program now, as discovery will tell."""
        self._counts.ended += member.following is not None
        self._release(member)
        why = error.what if error else f"process {member.found.pid} has exited, or executed another program"
        member.view = _view_of(member.found, TargetState.STARTING, why)
        self._postpone(member, TargetState.STARTING, why)
        self._changed = True

    def _give_up(self, member: _Member, error: Exception) -> None:
        """Contain a mistake of ours: what one process can make us stumble over must not end the watch of the others."""
        self._counts.errors += 1
        self._complain(member.found.pid, error)
        self._release(member)
        self._postpone(member, TargetState.UNREADABLE, f"gomem failed at it: {type(error).__name__}: {error}")
        member.due = max(member.due, time.monotonic() + AFTER_A_BUG)

    def _drop(self, pid: int) -> None:
        member = self._members.pop(pid)
        self._counts.ended += member.following is not None
        self._release(member)
        self._counts.visited.discard(pid)
        self._changed = True

    def _release(self, member: _Member) -> None:
        if self._source is not None:
            self._source.remove(member.found.pid)
        if member.following is not None:
            member.following.close()
            member.following = None
        self._give_back(member)

    def _give_back(self, member: _Member) -> None:
        if member.shared is not None:
            self._programs.give_back(member.shared)
            member.shared = None

    def _count_visit(self, pid: int, seconds: float) -> None:
        counts = self._counts
        counts.visited.add(pid)
        counts.this_round += seconds
        if counts.visited >= self._members.keys():
            counts.rounds += 1
            counts.round_seconds, counts.this_round = counts.this_round, 0.0
            counts.visited.clear()

    def _count_empty_round(self) -> None:
        """With nobody to visit, a round is over when its time is."""
        now = time.monotonic()
        if self._members:
            self._counts.empty_since = now
        elif now - self._counts.empty_since >= self._pace.interval or not self._counts.rounds:
            self._counts.empty_since = now
            self._counts.rounds += 1
            self._changed = True

    def _adapt(self) -> None:
        then, used = self._measured
        now = time.monotonic()
        if now - then < _ADAPT_EVERY:
            return
        self._measured = (now, usage.cpu_seconds())
        self._programs.close_idle()
        if self._counts.rounds:  # before that, everything is done for the first time
            self._pace.adapt(self._measured[1] - used, now - then)

    def _publish_view(self) -> None:
        now = time.monotonic()
        if now - self._published < (_PUBLISH_GAP if self._changed else _PUBLISH_EVERY):
            return
        self._published = now
        self._changed = False
        targets = tuple(self._members[pid].view for pid in sorted(self._members))
        self._publish(FleetView(targets, self._health(), time.time()))

    def _health(self) -> Health:
        counts, source, discovery = self._counts, self._source, self._discovery
        return Health(
            started_at=self._started_at,
            backend="procfs" if source is None else "bpf",
            backend_reason=self._reason,
            cpu_seconds=usage.cpu_seconds(),
            resident_bytes=usage.resident_bytes(),
            open_fds=usage.open_fds(),
            rounds=counts.rounds,
            round_seconds=counts.round_seconds,
            interval_seconds=self._pace.effective_interval,
            events=counts.events,
            lost_events=source.lost_total if source else 0,
            paused_events=counts.paused,
            discovery=discovery.mode,
            processes_seen=discovery.processes_seen,
            go_processes_seen=discovery.go_processes_seen,
            discovery_errors=discovery.errors + counts.errors,
            targets_ended=counts.ended,
        )


_NOT_YET = "it has not been looked at yet"


def _view_of(found: Found, state: TargetState, why: str) -> TargetView:
    return TargetView(
        pid=found.pid, name=found.name, state=state, why=why, belonging=found.belonging, report=None,
        followed_since=time.time(),
    )  # fmt: skip
