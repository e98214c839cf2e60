"""One process that is followed: its events feed its model, looks prove the model, and each look gives a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from gomem.bpf.shared_target import SharedTarget
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.errors import GomemError, NotPermitted, TargetError, TooLarge
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventBatch
from gomem.tracer.fleet.close_up import CloseUps
from gomem.tracer.fleet.pauses import Pauses
from gomem.tracer.fleet.programs import slim
from gomem.tracer.fleet.schedule import LOOK_SHARE
from gomem.tracer.fleet.unapplied import Unapplied
from gomem.tracer.fleet.view import TargetState, TargetView
from gomem.tracer.program.go_program import WITHOUT_GO, GoProgram
from gomem.tracer.report import Limit, Report
from gomem.tracer.snapshot.glance import glance
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.backend import StartedBackend
from gomem.tracer.watch.live import LiveSession
from gomem.tracer.watch.probes import plan_probes
from gomem.tracer.watch.session import Memory

MEMORY = Memory(events=100, cycles=20)  # of each process


class FleetSession:
    """Follows one process; never for two threads at once. To begin, to apply, to look and to close may have to wait."""

    def __init__(
        self,
        inspector: Inspector,
        workload: Workload,
        backend: StartedBackend,
        events: SharedTarget | None,
        *,
        loads_plugins: bool = False,
        limits_now: Callable[[], Sequence[Limit]] = tuple,
        memory: Memory = MEMORY,
    ) -> None:
        """Begin with the program that `inspector` was opened on.

        `events`: the source of the `backend`, None where there are looks only. `limits_now`: what holds for the report
        that is made when it is asked. Raises TargetGone.
        """
        self.inspector = inspector
        self.last_cost = 0.0  # seconds of CPU time that the last look took; that it took in all, if it failed
        self._events = events
        self._pauses = Pauses(events)
        self._limits_now = limits_now
        facts = inspector.facts()
        with suppress(TargetError):
            inspector.prepare()
        self._session = LiveSession(
            inspector,
            backend,
            facts,
            plan_plugin=_plan_plugin if loads_plugins else None,
            share=LOOK_SHARE,
            memory=memory,
        )
        self._unapplied = Unapplied(may_map_plugins=self._session.plugins is not None)
        self._spent = 0.0  # seconds, by all looks
        self._close_ups: CloseUps | None = None
        self._view = TargetView(
            pid=inspector.target.pid,
            name=_name(facts.exe, inspector.target.comm),
            state=TargetState.STARTING,
            why="it has not been looked at yet",
            workload=workload,
            report=None,
            followed_since=time.time(),
            follows_events=events is not None,
            start_ticks=inspector.target.start_ticks,
        )

    @property
    def pid(self) -> int:
        """Its pid, as our PID namespace numbers it."""
        return self.inspector.target.pid

    @property
    def view(self) -> TargetView:
        """What is known of it now."""
        return self._view

    @property
    def ended(self) -> bool:
        """Whether it has exited, or executed another program."""
        return self._unapplied.ended

    @property
    def pauses(self) -> int:
        """How often its events came too fast and were switched off."""
        return self._pauses.count

    @property
    def waits(self) -> bool:
        """Whether `apply` should be called now.

        Many events wait, a look waits to be compared with the model, or a plugin may have been mapped.
        """
        if self._events is None or self.ended:
            return False
        return self._session.pending or self._unapplied.plugin_mapped or self._unapplied.are_many

    @property
    def suspicious(self) -> bool:
        """Whether another look should come soon: the last one differed from the model."""
        return self._session.suspicious

    def feed(self, batch: EventBatch, until: int) -> None:
        """Take the next events; all that happened before `until` (CLOCK_MONOTONIC ns) have been fed by now.

        They wait for `apply`.
        """
        if self._events is not None and not self.ended:
            self._unapplied.put(batch, until)

    def apply(self) -> None:
        """Give the model the events that wait, and new plugins their probes."""
        if self._events is None:
            return
        self._session.take(self._unapplied.taken(), self._unapplied.until)
        self._unapplied.plugin_mapped = self._session.plugins is not None and self._session.plugins.waiting

    def touch_executable(self) -> None:
        """Ask for the executable, so that this is where we wait if its file system does not answer."""
        with suppress(GomemError, FileNotFoundError):
            self.inspector.target.stat_file("exe")

    def look(self) -> None:
        """Look at the process, and make the new report.

        Raises TargetError when it is not the process any more that it was. Anything else that is in the way is told
        by the view's state.
        """
        began, used = time.monotonic(), time.thread_time()
        self.last_cost = 0.0
        outcome: Report | GomemError
        try:
            outcome = self._look()
            self.last_cost = time.thread_time() - used
        except TooLarge as error:
            outcome = error
        except TargetError:
            self._unapplied.ended = True
            raise
        except GomemError as error:
            outcome = error
        finally:
            took = time.monotonic() - began
            self.last_cost = self.last_cost or took
            self._spent += took
        self._view = self._new_view(outcome, took)

    def glance(self) -> None:
        """Read the process's counters alone; what is in the way the next look will tell. Raises TargetError."""
        with suppress(NotPermitted):
            seen = glance(self.inspector)
            self._view = replace(self._view, glance=seen, glanced=time.monotonic())

    def look_closely(self, closely: bool) -> None:
        """Read, after a look, what only somebody wants who has opened the process; or let go of it. Raises TargetError.

        Its time counts for that look.
        """
        if not closely:
            self._close_ups = None
            self._view = replace(self._view, close_up=None)
            return
        self._close_ups = self._close_ups or CloseUps(self.inspector)
        self._view = replace(self._view, close_up=self._close_ups.take(self._session.look))

    def belongs_to(self, workload: Workload) -> None:
        """Take what is known now of where the process belongs."""
        self._view = replace(self._view, workload=workload)

    def close(self) -> None:
        """Let go of the process."""
        self._session.close()
        self.inspector.close()
        self.inspector.target.close()

    def _look(self) -> Report:
        self._pauses.mind()
        if self._events is not None:
            self._events.govern()
        self.apply()
        session = self._session
        session.take_look()
        seconds = time.monotonic() - session.began
        overhead = session.backend.overhead(self._spent, session.target_cpu(), seconds)
        limits = [*session.limits(), *self._limits_now()]
        watched = seconds if self._events is not None else 0.0
        return session.report(session.facts, "", watched, overhead, limits, session.backend.lost)

    def _new_view(self, outcome: Report | GomemError, took: float) -> TargetView:
        """Return what is known after a look that took so many seconds; if it failed, the last report stays."""
        old = replace(self._view, follows_events=self._events is not None and not self._events.paused)
        if isinstance(outcome, GomemError):
            why = outcome.in_one_line()
            return replace(old, state=TargetState.UNREADABLE, why=why, failed_looks=old.failed_looks + 1)
        state, why = _state(outcome)
        now = time.time()
        return replace(
            old,
            state=state,
            why=why,
            report=outcome,
            look_seconds=took,
            looked_at=now,
            looked=time.monotonic(),
            spans_at=now if outcome.spans is not None else None,
            looks=old.looks + 1,
        )


def _state(report: Report) -> tuple[TargetState, str]:
    """Return the state of a process that a look has succeeded at, and why it is no better one."""
    if report.heap is not None:
        return TargetState.FOLLOWED, ""
    missing = next((limit for limit in report.limits if limit.id in WITHOUT_GO), None)
    if missing is None:
        return TargetState.KERNEL_ONLY, "the Go runtime was not read"
    return TargetState.KERNEL_ONLY, "; ".join(filter(None, (f"{missing.what}: {missing.why}", missing.fix)))


def _plan_plugin(plugin: GoProgram) -> tuple[Sequence[UprobeSpec], Sequence[Limit]]:
    planned = plan_probes(plugin)
    slim(plugin)
    return planned.parts()


def _name(exe: str, comm: str) -> str:
    return exe.rsplit("/", 1)[-1] or comm
