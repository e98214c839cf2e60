"""The programs that a process runs one after the other: a chapter of the report for each but the last.

A program that was over before anybody could look at it is known by its events alone.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from msgspec import structs

from gomem.tracer.ending.watch import EndWatch
from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.machine import usage
from gomem.tracer.model.callers import Symbolize
from gomem.tracer.proc.small_files import parse_stat
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.report import Limit, ProcessFacts, Report
from gomem.tracer.watch.backend import StartedBackend
from gomem.tracer.watch.live import begin_recording, origin_of
from gomem.tracer.watch.moments import rfc3339
from gomem.tracer.watch.session import TargetSession

MOST_CHAPTERS = 32  # that are kept; of more, the last ones
_UNSEEN = Limit(
    "ended-before-look",
    "its state: virtual, resident, heap",
    "the program was over before it could be looked at",
    "trace a program that runs longer",
)


def programs(batch: EventBatch) -> list[EventBatch]:
    """Divide events at each exec: one part for each program, at least one; the execs are in none."""
    execs = (batch["kind"] == EventKind.EXEC).nonzero()[0].tolist()
    cuts = [-1, *execs, len(batch)]
    return [batch[first + 1 : end] for first, end in pairwise(cuts)]


def symbolizer(program: GoProgram) -> Symbolize:
    """Return what names addresses of a program that cannot be looked at any more: only if it is not relocated."""
    fixed = 0 if program.executable is not None and not program.executable.pie else None
    return lambda address: program.symbolize(address, fixed)


def _nameless(address: int) -> None:
    del address


class Chapters:
    """The reports of the programs that one process has run."""

    def __init__(self, pid: int, ends: EndWatch) -> None:
        """Begin with none. `ends` knows how the process ended, when it has."""
        self._pid = pid
        self._ends = ends
        self._chapters: deque[Report] = deque(maxlen=MOST_CHAPTERS)
        self._left_out = 0

    def add(self, report: Report) -> None:
        """Put a chapter to the others."""
        self._left_out += len(self._chapters) == MOST_CHAPTERS
        self._chapters.append(report)

    def add_all(self, parts: list[EventBatch], backend: StartedBackend) -> None:
        """Add chapters for programs that only events tell of."""
        for part in parts:
            self.add(self.of_events(self.unknown(), backend, part))

    def end(self, parts: list[EventBatch], backend: StartedBackend) -> Report:
        """Return the report of a process whose last programs could not be looked at."""
        self.add_all(parts[:-1], backend)
        last = parts[-1] if parts else no_events()
        return self.with_all(self.of_events(self.unknown(last=True), backend, last, last=True))

    def with_all(self, report: Report) -> Report:
        """Return the report of the last program with the chapters of those before."""
        if not self._chapters:
            return report
        limits = report.limits
        if self._left_out:
            what = f"the first {self._left_out} programs that it ran"
            limits = [*limits, Limit("chapters", what, f"only the last {MOST_CHAPTERS} before this one are kept", "")]
        return structs.replace(report, chapters=list(self._chapters), limits=limits)

    def unknown(self, *, last: bool = False) -> ProcessFacts:
        """Return who the process is when its program could not be looked at: the kernel keeps a name of the last."""
        comm = ""
        if last:
            with suppress(OSError, ValueError):
                comm = parse_stat(Path(f"/proc/{self._pid}/stat").read_bytes()).comm
        started = self._chapters[-1].process.start_time if self._chapters else rfc3339(time.time_ns())
        return ProcessFacts(self._pid, self._pid, started, "", [comm] if comm else [])

    def of_events(
        self,
        facts: ProcessFacts,
        backend: StartedBackend,
        batch: EventBatch,
        symbolize: Symbolize = _nameless,
        recorder: Recorder | None = None,
        *,
        last: bool = False,
    ) -> Report:
        """Return the report of a program that only events tell of; the process ended with the `last` one."""
        spent = usage.cpu_seconds()
        if recorder is not None:
            begin_recording(recorder, facts, backend, None, symbolize)
        session = TargetSession(origin_of(backend, compares=False), symbolize, None, recorder=recorder)
        session.feed(batch, time.monotonic_ns(), backend.lost)
        limits = [*backend.limits, _UNSEEN]
        ending = None
        if last:
            at = int(batch["time"][-1]) if len(batch) else time.monotonic_ns()
            ending, untold = self._ends.ending(lambda: session.activity.failures.before(at))
            limits += untold
        began, until = (session.activity.start, int(batch["time"].max())) if len(batch) else (0, 0)
        overhead = backend.overhead(usage.cpu_seconds() - spent)
        if not last:  # the probes are those of the next program
            overhead = structs.replace(overhead, probes=[probe for probe in overhead.probes if probe.hits])
        now = rfc3339(time.time_ns())
        return session.report(facts, now, (until - began) / 1e9, overhead, limits, backend.lost, ending)
