"""Following all processes that discovery finds, and publishing what is known of them.

One turn of the loop: processes that came or went (finder), events of all, one look at the process that has waited for
it longest (visits), and a new view when something has changed (publisher). One thread makes the turns and owns all that
is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from gomem.bpf.shared_source import SharedSource
from gomem.tracer.discovery.changes import Changes
from gomem.tracer.discovery.discovery import Discovery, Found
from gomem.tracer.events.record import no_events
from gomem.tracer.fleet.cgroups import Cgroups
from gomem.tracer.fleet.counts import Counts
from gomem.tracer.fleet.finder import Finder
from gomem.tracer.fleet.leavings import Leavings
from gomem.tracer.fleet.member import Member, Visitor, view_of
from gomem.tracer.fleet.memory import MemoryBudget
from gomem.tracer.fleet.programs import Programs
from gomem.tracer.fleet.publisher import Publisher
from gomem.tracer.fleet.roster import Roster
from gomem.tracer.fleet.schedule import Pace
from gomem.tracer.fleet.session import MEMORY
from gomem.tracer.fleet.shedding import Shedding
from gomem.tracer.fleet.silence import Silence
from gomem.tracer.fleet.view import FleetView, TargetState
from gomem.tracer.fleet.visits import Visits
from gomem.tracer.machine import usage
from gomem.tracer.report import Limit

_TURN = 0.25  # seconds that a turn waits for events at the most
_ADAPT_EVERY = 10.0  # seconds
_NOT_YET = "it has not been looked at yet"


@dataclass(frozen=True, slots=True)
class Settings:
    """`interval`: seconds between looks at one process; `cpu_budget`: share of one CPU for everything.

    `patience`: seconds that a process may keep us waiting before it is left alone. `memory_budget`: bytes of our RSS
    beyond which the processes that take most of it are left alone. `minds_limits`: those that are near one of their
    limits are looked at more often. `glance_every`: seconds between glances at each process, beside the looks.
    `latest_events`: reports have the last rare events, not the first.
    """

    interval: float = 15.0
    cpu_budget: float = 0.05
    most_targets: int = 500
    patience: float = 5.0
    memory_budget: int = 1 << 40
    minds_limits: bool = False
    glance_every: float | None = None
    latest_events: bool = False


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
        serving: Callable[[], float] = lambda: 0.0,
        tell: Callable[[str], None] = lambda text: None,
        programs: Programs | None = None,
        passing: Callable[[], bool] = lambda: False,
        opened: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Use a `discovery` and a `source` that have been started.

        `reason`: why there are events, or with no source, why not; `limits`: what follows from that for every report;
        `complain` gets what no code of ours was ready for, with the pid that caused it;
        `serving` returns the CPU seconds that went to whoever asks for the figures: they have a budget of their own;
        `tell` gets what whoever runs us should know;
        `programs` is where the executables are shared with others who read the same processes;
        `passing` returns whether they do so now: what memory that takes is soon given back;
        `opened` returns the pid of the process that somebody looks at closely: it is looked at more often.
        """
        self._source = source
        self._roster = Roster()
        self._counts = Counts()
        self._pace = Pace(settings.interval, settings.cpu_budget)
        self._cgroups = Cgroups(settings.interval)
        self._finder = Finder(discovery, settings.patience)
        programs, budget = programs or Programs(), MemoryBudget(settings.memory_budget, passing=passing)
        memory = structs.replace(MEMORY, latest=settings.latest_events)
        self._leavings = Leavings(source, self._cgroups, programs)
        self._silence = Silence(self._roster, source)
        self._visits = Visits(
            self._roster,
            Visitor(source, programs, reason, limits, lambda: discovery.limits, memory),
            self._leavings,
            self._silence,
            Shedding(budget, self._roster, self._leavings, tell),
            self._cgroups,
            self._counts,
            self._pace,
            most_targets=settings.most_targets,
            patience=settings.patience,
            complain=complain,
            minds_limits=settings.minds_limits,
            glance_every=settings.glance_every,
            opened=opened,
        )
        self._publisher = Publisher(
            self._roster,
            self._cgroups,
            lambda: self._counts.health(source, discovery, reason, self._pace.effective_interval, budget),
            publish,
        )
        self._serving = serving
        self._measured = (time.monotonic(), self._used())

    def run(self, stop: Callable[[], bool]) -> None:
        """Follow until `stop` says so, then let go of all processes."""
        try:
            while not stop():
                self.turn(_TURN)
        finally:
            self.close()

    def turn(self, timeout: float) -> None:
        """Do what is due now; wait for events up to `timeout` seconds if nothing is."""
        for changes in self._finder.changes(_TURN):
            self._take(changes)
        self._drain(self._visits.time_to_wait(timeout))
        self._visits.run()
        self._count_empty_round()
        self._adapt()
        self._publisher.publish()

    def close(self) -> None:
        """Let go of all processes; of those that keep us waiting when they do not any more."""
        for member in self._roster:
            self._visits.drop(member)
        self._finder.close()
        self._visits.finish()
        self._cgroups.close()
        self._visits.close()

    def _take(self, changes: Changes) -> None:
        """Take who came and went."""
        for identity in changes.gone:
            member = self._roster.at(identity.pid)
            if member is not None and member.found.identity == identity:
                self._visits.drop(member)
        for found in changes.appeared:
            before = self._roster.at(found.pid)
            if before is not None:
                self._visits.drop(before)
            member = Member(found, view_of(found, TargetState.STARTING, _NOT_YET), time.monotonic())
            self._roster.add(member)
            self._silence.meet(member)
        for found in changes.changed:
            member = self._roster.at(found.pid)
            if member is not None and member.found.identity == found.identity:
                self._learn(member, found)

    def _learn(self, member: Member, found: Found) -> None:
        """Take what is known now of where a process belongs."""
        member.found = found
        if member.following is not None and not member.visited:
            member.following.belongs_to(found.workload)
        member.view = replace(member.view, workload=found.workload)
        self._cgroups.joined(found.pid, None, found.workload)
        self._roster.changed = True

    def _drain(self, timeout: float) -> None:
        """Wait for events, and hand them over."""
        if self._source is None:
            time.sleep(timeout)
            return
        until = time.monotonic_ns()
        for pid, batch in self._source.poll(timeout).items():
            self._counts.events += len(batch)
            member = self._roster.at(pid)
            if member is not None:
                member.inbox.append(batch)
        for member in self._roster:
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
                self._visits.end(member)

    def _count_empty_round(self) -> None:
        """With nobody to visit, a round is over when its time is."""
        if self._roster:
            self._counts.somebody_there()
        elif self._counts.nobody_there(self._pace.interval):
            self._roster.changed = True

    def _adapt(self) -> None:
        """Now and then, learn from what was used, and close what nobody needs."""
        then, used = self._measured
        now = time.monotonic()
        if now - then < _ADAPT_EVERY:
            return
        self._measured = (now, self._used())
        self._leavings.close_idle_programs()
        if self._counts.rounds:  # before that, everything is done for the first time
            self._pace.adapt(self._measured[1] - used, now - then)

    def _used(self) -> float:
        """Return the CPU seconds that following has taken."""
        return usage.cpu_seconds() - self._serving()
