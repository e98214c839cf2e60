"""The session of a process that runs: it takes its own looks, probes the plugins that come, and measures its cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from gomem.tracer.errors import TargetExecuted, TargetGone
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.machine import usage
from gomem.tracer.model.callers import Symbolize
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.recording.watching import Beginning
from gomem.tracer.report import Limit, ProcessFacts
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.backend import StartedBackend
from gomem.tracer.watch.goroutine_growth import GoroutineWatch
from gomem.tracer.watch.own_events import OwnEvents
from gomem.tracer.watch.plugins import Plugins, ProbePlanner, naming
from gomem.tracer.watch.session import Memory, Origin, TargetSession

_LAST_DRAIN = 0.05  # seconds


class LiveSession(TargetSession):
    """A session that is told its process, and where the events of that come from.

    It sees one program: what a launched command did before it became the program is dropped, and what the process did
    after it executed the next one is kept in `own.behind`, for the session of that.
    """

    def __init__(
        self,
        inspector: Inspector,
        backend: StartedBackend,
        facts: ProcessFacts,
        *,
        launched: bool = False,
        since: int | None = None,
        plan_plugin: ProbePlanner | None = None,
        share: float = 1.0,
        memory: Memory | None = None,
        recorder: Recorder | None = None,
        goroutines: bool = False,
    ) -> None:
        """Begin now, with a backend that delivers already; whoever opened `inspector` and `backend` closes them.

        `launched`: it has just been let go, and seconds count from its first event, which is before any look; else they
        count from `since` (CLOCK_MONOTONIC ns) or from now.
        `plan_plugin` says which uprobes a plugin gets, None for a program that loads none; for `share` see Plugins.
        `goroutines`: look at these, too, now and then.
        """
        self.inspector = inspector
        self.backend = backend
        self.facts = facts
        self.cost = 0.0  # seconds that the last look took
        self.own = OwnEvents(launched=launched)
        self._goroutines = GoroutineWatch(inspector) if goroutines else None
        self.plugins = None
        if plan_plugin is not None:
            attach = backend.source.add_uprobes if backend.source is not None else _nothing
            self.plugins = Plugins(inspector.target, inspector.program, plan_plugin, attach, share)
        symbolize = naming(inspector, self.plugins)
        started = None if launched else time.monotonic_ns() if since is None else since
        if recorder is not None:
            begin_recording(recorder, facts, backend, started, symbolize)
        super().__init__(origin_of(backend), symbolize, started, memory, recorder)
        self._probing = self.plugins is not None
        self._lost = 0
        self._drift = 0  # bytes
        if self.plugins is not None and backend.uprobes:
            self.plugins.search()
        self.began = time.monotonic() if since is None else since / 1e9
        self._cpu_at_start = inspector.target_cpu_seconds()

    def poll(self, timeout: float) -> None:
        """Take what happens in the next `timeout` seconds.

        Raises TargetGone or TargetExecuted when its events say so, or there are none and the process does.
        """
        source, target = self.backend.source, self.inspector.target
        if source is None:
            time.sleep(timeout)
            target.check_same_program()
            return
        began = time.monotonic_ns()
        kinds = self._take_own(source.poll(timeout), began)["kind"]
        if (kinds == EventKind.EXIT).any():
            self._take_own(source.poll(_LAST_DRAIN), began)
            raise TargetGone(f"process {target.pid} has exited")
        if self.own.executed:
            raise TargetExecuted(f"process {target.pid} executed another program")
        if not len(kinds):
            target.check_alive()

    def take(self, batch: EventBatch, until: int) -> None:
        """Take events of this program; all that happened before `until` (CLOCK_MONOTONIC ns) have been taken by now."""
        lost = self.backend.lost
        if self.plugins is not None and self._probing:
            if lost > self._lost:  # perhaps the mapping of a plugin
                self.plugins.search()
            batch = self.plugins.see(batch)
        self._lost = lost
        self.feed(batch, until, lost)
        drift = self.reconciler.found.drift if self.reconciler is not None else 0
        if drift > self._drift and self.backend.source is not None:
            self.backend.source.watch_closely()
        self._drift = drift

    def take_look(self, *, last: bool = False) -> None:
        """Look at the process now; raises as Inspector.look does.

        For the `last` look the process is stopped, if that was asked for; its goroutines are looked at behind it.
        """
        begin = time.monotonic_ns()
        look = self.inspector.last_look() if last else self.inspector.look()
        end = time.monotonic_ns()
        self.cost = (end - begin) / 1e9
        self.see(look, end)
        if self._goroutines is not None and look.runtime is not None:
            self._goroutines.see(last=last)
            self.goroutine_growth = self._goroutines.growth

    def finish(self) -> None:
        """Stop the source, and take what was still buffered."""
        source = self.backend.source
        if source is None:
            return
        source.stop()
        self._probing = False  # nothing can be probed any more
        self._take_own(source.poll(0), time.monotonic_ns())
        self.flush()

    def leave(self) -> None:
        """Take no more from the source, which goes on delivering to somebody else."""
        self._probing = False
        self.flush()

    def close(self) -> None:
        """Close the files of plugins."""
        if self.plugins is not None:
            self.plugins.close()

    def target_cpu(self) -> float | None:
        """Return the CPU time that the process has used since the beginning, seconds; None when it is gone."""
        now, then = self.inspector.target_cpu_seconds(), self._cpu_at_start
        return None if now is None or then is None else now - then

    def limits(self, more: Iterable[Limit] = ()) -> list[Limit]:
        """Return what was not seen until now: by the backend, `more`, what came later, and of plugins."""
        of_plugins = self.plugins.limits if self.plugins is not None else ()
        return [*self.backend.limits, *more, *self.backend.later_limits(), *of_plugins]

    def _take_own(self, batch: EventBatch, until: int) -> EventBatch:
        """Take of a batch of the source what is this program's, and return that."""
        batch = self.own.of(batch)
        self.take(batch, until)
        return batch


def origin_of(backend: StartedBackend, *, compares: bool = True) -> Origin:
    """Return where the events of a started backend come from."""
    has_events = backend.source is not None
    return Origin(backend.name, backend.reason, has_events, backend.sees_states, has_events and compares)


def begin_recording(
    recorder: Recorder, facts: ProcessFacts, backend: StartedBackend, started: int | None, symbolize: Symbolize
) -> None:
    """Begin a recording of what a backend delivers; for `started` see TargetSession."""
    spent = usage.cpu_seconds()
    now, clock = time.monotonic_ns(), time.time_ns()
    beginning = Beginning(
        facts, backend.name, backend.reason, list(backend.limits), backend.sees_states, started, now, clock
    )
    recorder.begin(beginning, symbolize, lambda: backend.overhead(usage.cpu_seconds() - spent))


def _nothing(specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
    del specs
    return []
