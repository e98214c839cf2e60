"""One trace, from the request to the report: a process, or a command, through all programs that it executes.

The process is opened, or the command started; a backend begins to tell what happens; a session takes that and a look
now and then (tracer/watch/trace.py), until the time is over or the process ends. When the process executes another
program, that is the end of a chapter: the new program gets a session and probes of its own. While these are put on, the
old source goes on telling the system calls, so that none is lost between the chapters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from msgspec import structs

from gomem.tracer.ending.watch import EndWatch
from gomem.tracer.errors import GomemError, TargetError, TargetExecuted, TargetGone
from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events
from gomem.tracer.machine import usage
from gomem.tracer.process.launch import Launched
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram, load_program
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.report import Limit, ProcessEnding, ProcessFacts, Report
from gomem.tracer.report.findings.rules import find
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.backend import StartedBackend, TraceRequest, next_program, start_backend
from gomem.tracer.watch.chapters import Chapters, programs, symbolizer
from gomem.tracer.watch.children import Children
from gomem.tracer.watch.from_exec import FromExec
from gomem.tracer.watch.live import LiveSession
from gomem.tracer.watch.moments import rfc3339
from gomem.tracer.watch.session import Ended
from gomem.tracer.watch.snapshot_report import snapshot_target
from gomem.tracer.watch.trace import Stop, Tick, at_its_end, begin_session, run

NextRecorder = Callable[[], Recorder]  # gives each program of a process a recorder of its own

_TRIES = 5  # to open a program before the process executes the next one
_STANDARD_ERROR = 2
_TICK = 0.05  # seconds
_SECONDS_FOR_EXEC = 2.0  # until strace must have told of an exec that has happened

_LATE = Limit(
    "probes-late",
    "the runtime's own events at the very beginning of this program",
    "its probes could be put on only when the process had executed it; system calls were seen from the first one on",
    "trace the program itself, without what executes it",
)


_LIBRARY_LATE = Limit(
    "library-late",
    "the runtime's own events",
    "its Go library was loaded while the process was watched, and has no probes; system calls were seen all the time",
    "trace the process again, by its pid, now that it has loaded the library",
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who asked for the trace: `say` tells how it goes, `stopping` is the block within which it may be stopped.

    `progress` is the block within which its Tick is called a few times a second; what it does must be cheap.
    """

    say: Callable[[str], None]
    stopping: Callable[[], AbstractContextManager[Stop]]
    progress: Callable[[Inspector], AbstractContextManager[Tick]]
    check: Callable[[GoProgram, str], None]  # raises TargetError for a program that was not meant
    begins: Callable[[LiveSession], None] = lambda session: None  # is told the session of each program


def trace(request: TraceRequest, person: Person, next_recorder: NextRecorder | None = None) -> Report:
    """Watch as the request asks, and return the report. Recorders get all that is seen."""
    with ExitStack() as stack:
        if request.pid is not None:
            return _Process(request, person, stack, next_recorder).watch_running(request.pid)
        return _Process(request, person, stack, next_recorder).watch_command()


@dataclass(frozen=True, slots=True)
class _Image:
    """A program that the process runs, and where its events come from.

    `earlier`: what it did before it could be looked at; `since`: when it was executed, CLOCK_MONOTONIC ns.
    """

    inspector: Inspector
    backend: StartedBackend
    facts: ProcessFacts
    earlier: EventBatch = field(default_factory=no_events)
    since: int | None = None
    probed: int | None = None  # since when its probes are on, if it has any and they came late

    def after(self, earlier: EventBatch) -> _Image:
        """Return the image with what it did before it was opened, and a mark from when on all of it is seen."""
        earlier = earlier[earlier["kind"] != EventKind.EXIT]
        if self.probed is None:
            return replace(self, earlier=earlier)
        mark = np.zeros(1, EVENT)
        mark["kind"], mark["time"] = EventKind.STATES_UNSEEN, self.probed
        backend = replace(self.backend, limits=[*self.backend.limits, _LATE])
        return replace(self, backend=backend, earlier=np.concatenate((earlier, mark)))


class _Process:
    """Watches one process; what it opens, `stack` closes."""

    def __init__(
        self, request: TraceRequest, person: Person, stack: ExitStack, next_recorder: NextRecorder | None = None
    ) -> None:
        self._request = request
        self._person = person
        self._stack = stack
        self._next_recorder = next_recorder
        self._launched: Launched | None = None
        self._pid = 0
        self._stop: Stop = bool
        self._deadline: float | None = None

    def watch_running(self, pid: int) -> Report:
        """Watch a process that runs."""
        self._pid = pid
        target = self._stack.enter_context(Target.open(pid))
        inspector = self._stack.enter_context(Inspector.open(target, self._request.module))
        self._stop = self._stack.enter_context(self._person.stopping())
        self._person.check(inspector.program, f"process {pid} ({target.exe})")
        inspector.prove_layout()
        facts = inspector.facts()
        self._mind_end(EndWatch(pid))
        backend = self._started(inspector.program)
        seconds = self._request.seconds
        how_long = "until it ends" if seconds is None else f"for {seconds:g} s"
        self._announce(backend, f"watching process {pid} ({target.comm}) {how_long}")
        return self._with_children(backend, lambda: self._follow(_Image(inspector, backend, facts)))

    def watch_command(self) -> Report:
        """Start a command, and watch it from its first system call on."""
        request = self._request
        output = _STANDARD_ERROR if request.output_aside else None
        launched = self._launched = self._stack.enter_context(Launched(request.command, output))
        self._pid = launched.pid
        self._stop = self._stack.enter_context(self._person.stopping())
        program = load_program(launched.image)
        self._stack.callback(program.close)
        self._person.check(program, launched.image)
        self._mind_end(EndWatch(launched.pid, launched))
        backend = self._started(program, launched=True)
        self._announce(backend, f"started {request.command[0]} (process {launched.pid})")
        if backend.allocations is not None:
            backend.allocations.start()
        launched.resume()
        report = self._with_children(backend, lambda: self._watch_launched(launched, program, backend))
        if launched.poll() is None:
            self._person.say(f"process {launched.pid} is still running, and is left running")
        return report

    def _with_children(self, backend: StartedBackend, follow: Callable[[], Report]) -> Report:
        """Return the report of `follow`, with those of the Go processes that were started meanwhile if asked for."""
        if not self._request.follow_children:
            return follow()

        def watch(pid: int, over: Stop) -> Report:
            # strace follows children, too: nobody else can trace them.
            name = "procfs" if backend.name == "strace" else self._request.backend
            request = replace(
                self._request, pid=pid, command=(), seconds=None, backend=name, require_go=False, follow_children=False,
                module="",
            )  # fmt: skip
            person = Person(
                say=self._person.say,
                stopping=lambda: nullcontext(over),
                progress=lambda inspector: nullcontext(lambda watched, left: None),
                check=lambda program, who: None,
            )
            with Target.open(pid) as target, Inspector.open(target) as inspector, EndWatch(pid) as ends:
                seen = snapshot_target(inspector)
                try:
                    return trace(request, person)
                except TargetGone as error:  # before the probes were on
                    ending, untold = ends.ending(list)
                    gone = Limit("ended-early", "the rest of the time", error.what, error.fix)
                    seen = structs.replace(seen, ending=ending, limits=[*seen.limits, *untold, gone])
                    return structs.replace(seen, findings=find(seen))

        children = Children(self._pid, watch, self._person.say)
        children.start()
        try:
            report = follow()
        finally:
            reports, limits = children.finish()
        return structs.replace(report, children=reports, limits=[*report.limits, *limits])

    def _watch_launched(self, launched: Launched, program: GoProgram, backend: StartedBackend) -> Report:
        """Watch the program that has just been let go; it may be over before anybody could look at it."""
        facts = _facts_of(launched, program)
        try:
            target = self._stack.enter_context(Target.open(launched.pid))
        except TargetGone:
            return self._follow_late(facts, program, backend, None)
        if not _runs(target, program):
            return self._follow_late(facts, program, backend, self._next(backend, None))
        inspector = self._stack.enter_context(Inspector(target, program, owns_program=False))
        with suppress(TargetError):
            inspector.prepare()
        return self._follow(_Image(inspector, backend, facts), launched=True)

    def _follow_late(
        self, facts: ProcessFacts, program: GoProgram, backend: StartedBackend, following: _Image | None
    ) -> Report:
        """Watch on from `following`; what came before is known by its events alone."""
        parts = programs(self._taken_until_now(backend, goes_on=following is not None))
        recorder = self._next_recorder() if self._next_recorder is not None else None
        chapters, symbolize = self._chapters, symbolizer(program)
        if following is None and len(parts) == 1:
            return chapters.with_all(chapters.of_events(facts, backend, parts[0], symbolize, recorder, last=True))
        chapters.add(chapters.of_events(facts, backend, parts[0], symbolize, recorder))
        if following is None:
            return chapters.end(parts[1:], backend)
        chapters.add_all(parts[1:-1], backend)
        return self._follow(following.after(parts[-1] if len(parts) > 1 else no_events()))

    def _taken_until_now(self, backend: StartedBackend, *, goes_on: bool) -> EventBatch:
        """Return all events since the command was executed; stops the source unless it goes on."""
        source, from_exec = backend.source, FromExec()
        if source is None:
            return no_events()
        if not goes_on:
            source.stop()
            return from_exec(source.poll(0))
        batch, deadline = from_exec(source.poll(_TICK)), time.monotonic() + _SECONDS_FOR_EXEC
        while not len(batch) and time.monotonic() < deadline:
            batch = from_exec(source.poll(_TICK))
        return batch

    def _follow(self, image: _Image, *, launched: bool = False) -> Report:
        """Watch a program, and all that come after it."""
        while True:
            spent, fresh = usage.cpu_seconds(), launched or image.since is not None
            session = self._session(image, launched)
            following: _Image | None = None
            allocations = image.backend.allocations
            try:
                if allocations is not None:
                    allocations.begin(image.inspector, from_start=launched)
                if len(image.earlier):
                    session.take(image.earlier, time.monotonic_ns())
                with self._progress(image.inspector) as tick:
                    outcome = run(
                        session, self._seconds_left(), self._stop,
                        launched=fresh, tick=tick, ends=self._ends, look_every=self._request.look_every,
                        look_share=self._request.look_share,
                    )  # fmt: skip
                counted = allocations.finish(outcome.seconds) if allocations is not None else None
                target_cpu = session.target_cpu()
                cost = image.backend.overhead(usage.cpu_seconds() - spent, target_cpu, outcome.seconds)
                lost = image.backend.lost
                facts = image.facts
                if outcome.why is Ended.EXEC:
                    if self._was_another(image):
                        session.look = session.goroutine_growth = None
                        facts = self._chapters.unknown()
                        following = replace(image, earlier=no_events(), since=session.own.ended_at, probed=None)
                    else:
                        following = self._next(image.backend, session.own.ended_at)
            finally:
                if allocations is not None:
                    allocations.close()
                if following is not None:
                    session.leave()
                else:
                    session.finish()
                session.close()
            if following is None:
                cost = image.backend.overhead(usage.cpu_seconds() - spent, target_cpu, outcome.seconds)
                lost = image.backend.lost
            parts = programs(session.own.behind)
            ending, limits = self._ending(session, outcome.why)
            if counted is not None:
                limits += counted[1]
            if outcome.limit is not None:
                exec_ = outcome.why is Ended.EXEC
                limits.append(
                    _at_the_end_of_its_program(session) if exec_ else at_its_end(session.look, outcome.limit, ending)
                )
            if facts is image.facts and image.inspector.late_facts is not None:
                facts = image.inspector.late_facts
                limits.append(_LIBRARY_LATE)
            report = session.report(
                facts=facts,
                taken_at=rfc3339(time.time_ns()),
                seconds=outcome.seconds,
                overhead=cost,
                limits=session.limits(limits),
                lost=lost,
                ending=ending,
            )
            if counted is not None:
                report = structs.replace(report, allocations=counted[0])
            if outcome.why is not Ended.EXEC:
                return self._chapters.with_all(report)
            self._chapters.add(report)
            if following is None:
                return self._chapters.end(parts, image.backend)
            self._chapters.add_all(parts[:-1], image.backend)
            image, launched = following.after(parts[-1]), False

    def _session(self, image: _Image, launched: bool) -> LiveSession:
        image.inspector.freeze_last, image.inspector.stop_filtered = self._request.freeze, self._request.stop_filtered
        image.inspector.search_again = True
        if self._deadline is None and self._request.seconds is not None:
            self._deadline = time.monotonic() + self._request.seconds
        recorder = self._next_recorder() if self._next_recorder is not None else None
        session = begin_session(
            image.inspector, image.backend, image.facts, launched=launched, since=image.since, recorder=recorder
        )
        self._person.begins(session)
        return session

    def _progress(self, inspector: Inspector) -> AbstractContextManager[Tick | None]:
        """Return the block within which progress is shown: not where a command writes to the same terminal."""
        return nullcontext(None) if self._launched is not None else self._person.progress(inspector)

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def _was_another(self, image: _Image) -> bool:
        """Tell, after an exec, whether the process runs the image still: then what came before was another program's.

        strace tells of an exec later than /proc shows it.
        """
        try:
            image.inspector.target.check_same_program()
        except TargetError:
            return False
        return True

    def _ending(self, session: LiveSession, why: Ended) -> tuple[ProcessEnding | None, list[Limit]]:
        if why is Ended.EXEC or (why is not Ended.EXIT and not self._command_is_over()):
            return None, []
        at = session.own.ended_at or time.monotonic_ns()
        return self._ends.ending(lambda: session.activity.failures.before(at))

    def _command_is_over(self) -> bool:
        return self._launched is not None and self._launched.poll() is not None

    # From one program to the next

    def _next(self, old: StartedBackend, executed: int | None) -> _Image | None:
        """Open what the process runs now, with a backend that has begun to tell of it; None if nothing can be seen."""
        for _ in range(_TRIES):
            opened = ExitStack()
            try:
                target = opened.enter_context(Target.open(self._pid))
                inspector = opened.enter_context(Inspector.open(target))
                inspector.prove_layout()
                facts = inspector.facts()
                backend = next_program(old, self._request, inspector.program)
                target.check_same_program()
            except TargetExecuted:
                opened.close()
                continue
            except TargetGone:
                opened.close()
                return None
            except GomemError as error:
                opened.close()
                self._person.say(f"process {self._pid} executed a program that cannot be followed: {error.what}")
                return None
            self._stack.push(opened)
            release = facts.go_version or "no Go"
            self._person.say(f"process {self._pid} executed {facts.exe} ({release}); following it")
            now = time.monotonic_ns()
            return _Image(inspector, backend, facts, since=executed or now, probed=now if backend.uprobes else None)
        return None

    def _mind_end(self, ends: EndWatch) -> None:
        self._ends = self._stack.enter_context(ends)
        self._chapters = Chapters(self._pid, ends)

    def _announce(self, backend: StartedBackend, what: str) -> None:
        self._person.say(f"{what}; backend {backend.name} ({backend.reason})")

    def _started(self, program: GoProgram, *, launched: bool = False) -> StartedBackend:
        backend = start_backend(self._request, self._pid, program, launched=launched)
        if backend.source is not None:
            self._stack.callback(backend.source.stop)
        if backend.allocations is not None:
            self._stack.callback(backend.allocations.close)
        return backend


def _at_the_end_of_its_program(session: LiveSession) -> Limit:
    what = "this program's memory at its end"
    if session.look is None:
        return Limit("chapter-end", what, "the next program was executed before it could be looked at", "")
    why = f"the state shown is the last one that was read ({session.look.kernel.taken_at})"
    return Limit("chapter-end", what, why, "")


def _runs(target: Target, program: GoProgram) -> bool:
    """Tell whether the process runs the program, as far as that can be told."""
    if program.executable is None:
        return True
    file, identity = program.executable.status, target.exe_identity
    return (file.st_dev, file.st_ino) == (identity.device, identity.inode)


def _facts_of(launched: Launched, program: GoProgram) -> ProcessFacts:
    """Return who a launched program is, without asking the process: it may be gone."""
    return program.describe(
        ProcessFacts(
            pid=launched.pid,
            ns_pid=launched.pid,
            start_time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            exe=launched.image,
            cmdline=launched.argv,
        )
    )
