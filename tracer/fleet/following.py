"""One process that is followed: its events feed its model, looks prove the model, and each look gives a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bpf.cost import slowdown
from bpf.shared_target import SharedTarget
from bpf.uprobes import UprobeSpec
from tracer import usage
from tracer.assemble import Watched, assemble
from tracer.errors import GomemError, TargetError
from tracer.events import EventBatch, Kind, no_events
from tracer.fleet.programs import slim
from tracer.fleet.schedule import LOOK_SHARE
from tracer.fleet.view import Belonging, TargetState, TargetView
from tracer.inspection import Inspector
from tracer.model.activity import Activity
from tracer.model.follower import Follower
from tracer.model.sight import Sight
from tracer.model.space import AddressSpaceModel
from tracer.plugins import Attach, Plugins, maps_code, naming
from tracer.program import GoProgram
from tracer.report import Limit, Overhead, ProbeRow, Report
from tracer.session import refused_limits, uprobes_for

LOGGED_EVENTS = 100  # of the rare ones, kept for the report of each process
KEPT_CYCLES = 20  # of the garbage collector
MOST_UNAPPLIED = 1024  # events, 200 kB
PAUSE = 10.0  # seconds
LONGEST_PAUSE = 600.0


@dataclass(frozen=True, slots=True)
class EventFeed:
    """Where the events of one process come from, and what is seen of it; without one there are looks only."""

    target: SharedTarget
    uprobes: Sequence[UprobeSpec]
    sees_states: bool
    limits: Sequence[Limit]
    probe_plugins: Attach | None = None  # puts uprobes on plugins; None where the program can load none


class Following:
    """Follows one process; never for two threads at once. To begin, to apply, to look and to close may have to wait."""

    def __init__(
        self,
        inspector: Inspector,
        belonging: Belonging,
        feed: EventFeed | None,
        reason: str,
        limits: Sequence[Limit] = (),
        limits_now: Callable[[], Sequence[Limit]] = tuple,
    ) -> None:
        """Begin with the program that `inspector` was opened on; `feed` delivers already.

        `reason`: why there are events, or none. `limits`: what holds for every report of it, `limits_now` for the one
        that is made when it is asked. Raises TargetGone.
        """
        self.inspector = inspector
        self.pid = inspector.target.pid
        self.ended = False  # it has exited, or executed another program
        self.last_cost = 0.0  # seconds that the last look took
        self.pauses = 0  # times that its events came too fast and were switched off
        self._feed = feed
        self._reason = reason
        self._limits_now = limits_now
        self._limits = [*limits, *(feed.limits if feed else ())]
        self._facts = inspector.facts()
        with suppress(TargetError):
            inspector.prepare()
        self._plugins = self._find_plugins(feed.probe_plugins) if feed and feed.probe_plugins else None
        self._activity = Activity(naming(inspector, self._plugins), log_limit=LOGGED_EVENTS, most_cycles=KEPT_CYCLES)
        self._started = time.monotonic()
        self._activity.mark_start(time.monotonic_ns())
        self._follower: Follower | None = None
        if feed is not None:
            model = AddressSpaceModel(callers=self._activity.callers, most_cycles=KEPT_CYCLES)
            self._follower = Follower(self._activity, model, follows_states=feed.sees_states)
        self._cpu_at_start = inspector.target_cpu_seconds()
        self._report: Report | None = None
        self._trouble: GomemError | None = None
        self._spent = 0.0
        self._paused_until: float | None = None  # time.monotonic()
        self._unapplied: list[EventBatch] = []
        self._unapplied_events = 0  # in these: asked for at each turn, by each process
        self._fed_until = 0
        self._lost = 0
        self._hurry = False  # a plugin may have been mapped
        self._view = TargetView(
            pid=self.pid,
            name=_name(self._facts.exe, inspector.target.comm),
            state=TargetState.STARTING,
            why="it has not been looked at yet",
            belonging=belonging,
            report=None,
            followed_since=time.time(),
            follows_events=feed is not None,
        )

    @property
    def view(self) -> TargetView:
        """What is known of it now."""
        return self._view

    @property
    def waits(self) -> bool:
        """Whether `apply` should be called now.

        Many events wait, a look waits to be compared with the model, or a plugin may have been mapped.
        """
        if self._follower is None or self.ended:
            return False
        return self._follower.pending or self._hurry or self._unapplied_events >= MOST_UNAPPLIED

    @property
    def suspicious(self) -> bool:
        """Whether another look should come soon: the last one differed from the model."""
        return self._follower is not None and self._follower.suspicious

    def feed(self, batch: EventBatch, until: int) -> None:
        """Take the next events; all that happened before `until` (CLOCK_MONOTONIC ns) have been fed by now.

        They wait for `apply`: a batch costs more than the events in it.
        """
        if self._follower is None or self.ended:
            return
        ends = ((batch["kind"] == Kind.EXEC) | (batch["kind"] == Kind.EXIT)).nonzero()[0]
        if len(ends):
            batch, self.ended = batch[: ends[0]], True
        if len(batch):
            self._unapplied.append(batch)
            self._unapplied_events += len(batch)
            self._hurry |= self._plugins is not None and bool(maps_code(batch).any())
        self._fed_until = until

    def apply(self) -> None:
        """Give the model the events that wait, and new plugins their probes."""
        if self._follower is not None and self._feed is not None:
            batches, self._unapplied, self._unapplied_events = self._unapplied, [], 0
            batch = np.concatenate(batches) if len(batches) > 1 else (batches or [no_events()])[0]
            lost = self._feed.target.lost
            if self._plugins is not None:
                if lost > self._lost:  # perhaps the mapping of a plugin
                    self._plugins.search()
                batch = self._plugins.see(batch)
                self._hurry = self._plugins.waiting
            self._lost = lost
            self._follower.feed(batch, self._fed_until, lost)

    def _find_plugins(self, attach: Attach) -> Plugins:
        """Return what finds the plugins of the process, those that it has loaded already probed."""
        limits = self._limits  # not self: see tracer.plugins.naming

        def specs_for(plugin: GoProgram) -> list[UprobeSpec]:
            specs = uprobes_for(plugin, limits)
            slim(plugin)
            return specs

        plugins = Plugins(self.inspector.target, self.inspector.program, specs_for, attach, LOOK_SHARE)
        plugins.search()
        return plugins

    def touch_executable(self) -> None:
        """Ask for the executable, so that this is where we wait if its file system does not answer."""
        with suppress(GomemError, FileNotFoundError):
            self.inspector.target.stat_file("exe")

    def look(self) -> None:
        """Look at the process, and make the new report.

        Raises TargetError when it is not the process any more that it was. Anything else that is in the way is told
        by the view's state.
        """
        began = time.monotonic()
        try:
            self._look()
            self._trouble = None
        except TargetError:
            self.ended = True
            raise
        except GomemError as error:
            self._trouble = error
        finally:
            self.last_cost = time.monotonic() - began
            self._spent += self.last_cost
        self._view = self._new_view()

    def belongs_to(self, belonging: Belonging) -> None:
        """Take what is known now of where the process belongs."""
        self._view = replace(self._view, belonging=belonging)

    def close(self) -> None:
        """Let go of the process."""
        if self._plugins is not None:
            self._plugins.close()
        self.inspector.close()
        self.inspector.target.close()

    def _mind_pause(self) -> None:
        """Switch events that came too fast on again after a while: twice as long each time.

        Right before a look, which shows the model what it has missed.
        """
        target, now = self._feed.target if self._feed else None, time.monotonic()
        if target is None or not target.paused:
            return
        if self._paused_until is None:
            self._paused_until = now + min(PAUSE * 2.0**self.pauses, LONGEST_PAUSE)
            self.pauses += 1
        elif now >= self._paused_until:
            self._paused_until = None
            target.resume()

    def _look(self) -> None:
        self._mind_pause()
        if self._feed is not None:
            self._feed.target.govern()
        self.apply()
        look = self.inspector.look()
        if self._follower is not None:
            self._follower.look(Sight.of(look))
        self._report = assemble(self._facts, look, self._watched(), look.kernel.taken_at)

    def _watched(self) -> Watched:
        backend: Literal["bpf", "procfs"] = "procfs" if self._feed is None else "bpf"
        seconds = round(time.monotonic() - self._started, 3)
        return Watched(
            backend=backend,
            reason=self._reason,
            seconds=seconds if self._feed else 0.0,
            activity=self._activity if self._feed else None,
            lost=self._feed.target.lost if self._feed else 0,
            overhead=self._overhead(seconds),
            limits=[*self._limits, *self._limits_of_now()],
            follower=self._follower,
        )

    def _limits_of_now(self) -> Iterator[Limit]:
        yield from self._plugins.limits if self._plugins else ()
        used = self._feed.target.used if self._feed else None
        yield from refused_limits(used) if used is not None else ()
        yield from self._limits_now()

    def _overhead(self, seconds: float) -> Overhead:
        probes = self._feed.target.probes() if self._feed else []
        now = self.inspector.target_cpu_seconds()
        used = None if now is None or self._cpu_at_start is None else now - self._cpu_at_start
        estimate = slowdown(probes, self._feed.uprobes, used, seconds) if self._feed else None
        return Overhead(
            tracer_cpu_seconds=round(self._spent, 4),
            tracer_rss=usage.resident_bytes(),
            probes=[ProbeRow(probe.role, probe.symbol, probe.hits) for probe in probes],
            target_slowdown_estimate=None if estimate is None else round(estimate, 6),
        )

    def _new_view(self) -> TargetView:
        old, failed = self._view, self._trouble is not None
        state, why = self._state()
        looked_at = old.looked_at if failed else time.time()
        return replace(
            old,
            state=state,
            why=why,
            report=self._report,
            looked_at=looked_at,
            spans_at=looked_at if self._report is not None and self._report.spans is not None else None,
            look_seconds=self.last_cost,
            looks=old.looks + (not failed),
            failed_looks=old.failed_looks + failed,
            follows_events=self._feed is not None and not self._feed.target.paused,
        )

    def _state(self) -> tuple[TargetState, str]:
        if self._trouble is not None:
            return TargetState.UNREADABLE, self._trouble.in_one_line()
        report = self._report
        assert report is not None
        if report.heap is not None:
            return TargetState.FOLLOWED, ""
        missing = next((limit for limit in report.limits if "Go" in limit.what), None)
        return TargetState.KERNEL_ONLY, f"{missing.what}: {missing.why}" if missing else "the Go runtime was not read"


def _name(exe: str, comm: str) -> str:
    return exe.rsplit("/", 1)[-1] or comm
