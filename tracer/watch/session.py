"""One session: all that is known of one process while it runs one program, from its events and its looks to its report.

A trace, a recording, each process that is served, and a replay have the same one; they differ in who drives it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from gomem.tracer.events.record import EventBatch
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.callers import Symbolize
from gomem.tracer.model.courses import Courses
from gomem.tracer.model.event_log import DEFAULT_LOG
from gomem.tracer.model.gc_cycles import MOST_CYCLES
from gomem.tracer.model.live_heap import LiveHeap
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.model.reconcile.reconciler import Reconciler
from gomem.tracer.model.space import AddressSpaceModel
from gomem.tracer.recording.watching import Ending
from gomem.tracer.report import GoroutineGrowth, Limit, Overhead, ProcessEnding, ProcessFacts, Report
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.watch.assemble import Watched, assemble
from gomem.tracer.watch.look_figures import figures_of

if TYPE_CHECKING:  # nobody waits for what a recording or a map takes to import, unless one is asked for
    from gomem.tracer.recording.recorder import Recorder
    from gomem.tracer.watch.album import OnLook

NO_OVERHEAD = Overhead(tracer_cpu_seconds=0.0, tracer_rss=0, probes=[], target_slowdown_estimate=None)


class Ended(Enum):
    """Why a session ended. After EXEC the same pid runs another program, which is another session's."""

    TIME = "its time was over"
    STOP = "somebody stopped it"
    EXIT = "the process exited"
    EXEC = "the process executed another program"
    UNREADABLE = "the process could not be read any more"


class Outcome(Struct, frozen=True):
    """How a session ended: why, after how many seconds, and what is not known for that if it was early."""

    why: Ended
    seconds: float
    limit: Limit | None = None


class Origin(Struct, frozen=True):
    """Where the events of a session come from, and why from there; without `has_events` there are looks only.

    `sees_states`: every transition between region states is an event. `compares`: a model is made of the events and
    compared with the looks; else events are only counted. `os_page`: bytes.
    """

    backend: Literal["bpf", "strace", "procfs", "replay"]
    reason: str
    has_events: bool = True
    sees_states: bool = False
    compares: bool = True
    os_page: int = 4096


class Memory(Struct, frozen=True):
    """How much of what happens a session remembers: rare events for the log (the first, or the `latest`), GC cycles."""

    events: int = DEFAULT_LOG
    cycles: int = MOST_CYCLES
    latest: bool = False


class TargetSession:
    """Takes the events and looks of one process in the order in which they come, and makes its report.

    Knows no clock and no process. Never for two threads at once.
    """

    def __init__(
        self,
        origin: Origin,
        symbolize: Symbolize,
        started: int | None,
        memory: Memory | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Know nothing yet. `started`: what seconds count from, CLOCK_MONOTONIC ns; None: the first event.

        A `recorder` that has begun gets all that comes in, and so can make the report again.
        """
        memory = memory or Memory()
        self.origin = origin
        self.look: Snapshot | None = None  # the last one that succeeded
        self.goroutine_growth: GoroutineGrowth | None = None  # from the first look at goroutines to the last
        self.activity = Activity(
            symbolize, os_page=origin.os_page, log_limit=memory.events, log_latest=memory.latest,
            most_cycles=memory.cycles,
        )  # fmt: skip
        if started is not None:
            self.activity.mark_start(started)
        self.reconciler: Reconciler | None = None
        if origin.compares:
            model = AddressSpaceModel(callers=self.activity.callers, most_cycles=memory.cycles)
            self.reconciler = Reconciler(self.activity, model, follows_states=origin.sees_states)
        self.on_look: OnLook | None = None  # is told each look as well
        self._recorder = recorder
        self._live, self._courses = LiveHeap(), Courses()
        self._lost = 0  # events, that the source said it has lost

    @property
    def pending(self) -> bool:
        """Whether a look waits to be compared with the model."""
        return self.reconciler is not None and self.reconciler.pending

    @property
    def suspicious(self) -> bool:
        """Whether another look should come soon: the last one differed from the model."""
        return self.reconciler is not None and self.reconciler.suspicious

    def feed(self, batch: EventBatch, until: int, lost: int = 0) -> None:
        """Take the next events; all that happened before `until` (CLOCK_MONOTONIC ns) have been fed by now.

        `lost`: how many the source has lost since its start.
        """
        self._live.reach(until)
        if lost > self._lost:
            self._lost = lost
            self.activity.mapping_callers.forget()
        if self.reconciler is not None:
            self.reconciler.feed(batch, until, lost)
        else:
            self.activity.feed(batch)
        if self._recorder is not None:
            self._recorder.events(batch, until, lost)

    def see(self, look: Snapshot, ended: int) -> None:
        """Take a look that `ended` just now, CLOCK_MONOTONIC ns."""
        self.look = look
        if self.on_look is not None:
            self.on_look(look, ended)
        if self._recorder is None:  # a replay has not all looks
            self._courses.note(ended, figures_of(look))
        if self._recorder is None and self.reconciler is None:
            if look.runtime is not None:
                self._live.note(look.kernel.mappings_read[1], look.runtime.collector.live)
            return
        model_input = ModelInput.of(look)
        if self._recorder is not None:
            self._recorder.look(look, model_input, ended)
        self.compare(model_input)

    def compare(self, model_input: ModelInput) -> None:
        """Take of a look only what the model is compared with."""
        self._live.note(model_input.ended, model_input.heap[-1] if model_input.heap is not None else None)
        if self.reconciler is not None:
            self.reconciler.look(model_input)

    def flush(self) -> None:
        """Take all that is held back: no more events will come."""
        if self.reconciler is not None:
            self.reconciler.flush()

    def report(
        self,
        facts: ProcessFacts,
        taken_at: str,
        seconds: float,
        overhead: Overhead,
        limits: list[Limit],
        lost: int = 0,
        ending: ProcessEnding | None = None,
    ) -> Report:
        """Return the report of `seconds` of watching; `taken_at` (RFC 3339) counts only where no look succeeded.

        `ending`: how the process ended, if it was seen to.
        """
        watched = Watched(
            backend=self.origin.backend,
            reason=self.origin.reason,
            seconds=round(seconds, 3),
            activity=self.activity if self.origin.has_events else None,
            lost=lost,
            overhead=overhead,
            limits=limits,
            reconciler=self.reconciler if self.origin.has_events else None,
            ending=ending,
            live_course=self._live.course(self.reconciler.model.cycles.cycles if self.reconciler is not None else ()),
            courses=self._courses.courses(),
            goroutine_growth=self.goroutine_growth,
        )
        if self._recorder is not None:
            self._recorder.end(Ending(watched.seconds, taken_at, overhead, lost, limits, ending, self.goroutine_growth))
        return assemble(facts, self.look, watched, taken_at)
