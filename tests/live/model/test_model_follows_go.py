"""The model against real Go programs: what the events lead to is what every look sees, byte for byte.

All situations of one release run side by side, each traced on its own from its exec to its end.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time_ns

import numpy as np
import pytest

from gomem.tracer.addresses.region_states import PREPARED
from gomem.tracer.events.record import EventBatch, EventKind
from gomem.tracer.machine import usage
from gomem.tracer.model.activity import Activity
from gomem.tracer.model.explained import Explained
from gomem.tracer.model.mappings import ADDRESS_SPACE
from gomem.tracer.model.reconcile.comparison import Found
from gomem.tracer.model.sources_of_scavenging import scavenge_source
from gomem.tracer.process.launch import Launched
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram, load_program
from gomem.tracer.report import Report
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.watch import trace
from gomem.tracer.watch.backend import StartedBackend, TraceRequest, start_backend
from gomem.tracer.watch.live import LiveSession
from gomem.tracer.watch.moments import rfc3339
from gomem.tracer.watch.plugins import Plugins
from tests.support.builds import Mode, build
from tests.support.godebug import ScavengeLine, gc_lines, scavenge_lines

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(600)]

SECONDS = 10  # of a program's run, at least
LIMIT = 300.0  # seconds until it has failed
EXACT_LOOKS = 5  # what a program waits for before it ends
# ns: the scavenger counts what it has given back a bit later, and a machine may let it wait in between.
TOLD_BY = 2_000_000_000
UNCOMPARED, UNPROBED = "uncompared", "unprobed"  # files that a program waits for: looks compared, plugins probed


@dataclass(frozen=True, slots=True)
class Situation:
    """How a program runs: its environment, how it is linked, and whether it loads plugins.

    It never writes the lines of gctrace and of scavtrace: the one holds the lock of print and may need a stack from the
    heap, the other holds the heap's lock and prints, so that Go 1.23 sometimes stands still.
    """

    name: str
    godebug: str
    environment: dict[str, str] = field(default_factory=dict)
    mode: Mode = "exe"
    plugins: bool = False


SITUATIONS = (
    Situation("defaults", "scavtrace=1"),
    Situation("lazily freed", "madvdontneed=0,gctrace=1"),
    Situation("decommitted", "harddecommit=1,scavtrace=1"),
    Situation("memory limit", "scavtrace=1", {"GOMEMLIMIT": "40MiB", "GOGC": "off"}),
    Situation("cgo", "gctrace=1", mode="cgo"),
    Situation("plugins", "gctrace=1", mode="cgo", plugins=True),
)


class Run:
    """One program that is traced: what gomem saw of it, and what it wrote itself."""

    def __init__(
        self, situation: Situation, launched: Launched, program: GoProgram, backend: StartedBackend, scratch: Path
    ) -> None:
        self.situation, self.launched, self.program, self.backend = situation, launched, program, backend
        self.scratch = scratch
        self.looks: list[Snapshot] = []
        self.scavenged: dict[str, list[tuple[int, int]]] = defaultdict(list)  # by source: time and bytes of `unused`
        self.last_cycle = 0  # when the last GC cycle ended
        self.found = Found()
        self.report: Report | None = None

    def watch(self) -> None:
        """Trace it until it ends."""
        runs[threading.get_ident()] = self
        with Target.open(self.launched.pid) as target, Inspector(target, self.program) as inspector:
            inspector.prepare()
            self.report = watched(inspector, self.backend)

    def looked(self, session: LiveSession) -> None:
        """Keep a look; let the program end once enough of them were compared."""
        assert session.reconciler is not None
        self.found = session.reconciler.found
        if session.look is not None:
            self.looks.append(session.look)
        if self.found.exact_looks >= EXACT_LOOKS:
            (self.scratch / UNCOMPARED).unlink(missing_ok=True)

    def sizes(self, source: str, since: int = 0) -> list[int]:
        """Return the bytes that a source scavenged at each time."""
        return [size for time, size in self.scavenged[source] if time > since]

    def seen(self, activity: Activity, batch: EventBatch) -> None:
        """Keep what was scavenged by whom, and when the last cycle ended."""
        rows = np.flatnonzero(batch["kind"] == EventKind.UNUSED)
        for row, chain in zip(rows.tolist(), activity.callers.label(batch, rows).tolist(), strict=True):
            source = scavenge_source(activity.callers.chains[chain].callers)
            self.scavenged[source].append((int(batch["time"][row]), int(batch["args"][row, 1])))
        self.last_cycle = max(self.last_cycle, *batch["time"][batch["kind"] == EventKind.GC_DONE].tolist(), 0)


runs: dict[int, Run] = {}


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what the watches of this module's threads see, which look more often than others."""
    take_look, feed, see = LiveSession.take_look, Activity.feed, Plugins.see

    def look(session: LiveSession, *, last: bool = False) -> None:
        take_look(session, last=last)
        runs[threading.get_ident()].looked(session)

    def count(activity: Activity, batch: EventBatch, explained: Explained | None = None) -> None:
        feed(activity, batch, explained)
        runs[threading.get_ident()].seen(activity, batch)

    def probe(plugins: Plugins, batch: EventBatch) -> EventBatch:
        batch = see(plugins, batch)
        if len(plugins.loaded) == 2:
            (runs[threading.get_ident()].scratch / UNPROBED).unlink(missing_ok=True)
        return batch

    monkeypatch.setattr(Plugins, "see", probe)
    monkeypatch.setattr(LiveSession, "take_look", look)
    monkeypatch.setattr(Activity, "feed", count)
    monkeypatch.setattr("gomem.tracer.watch.trace.LOOK_EVERY", 0.4)
    monkeypatch.setattr("gomem.tracer.watch.trace.LOOK_SHARE", 0.5)
    yield
    runs.clear()


@contextmanager
def output_to(directory: Path) -> Iterator[None]:
    """Within the block, what this process forks writes to files."""
    kept = os.dup(1), os.dup(2)
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(descriptor, number)
            os.close(descriptor)
        yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def command(situation: Situation, release: str, scratch: Path) -> list[str]:
    """Return the words that run restless in a situation, at a pace that leaves CPU for the others."""
    tags = ["-tags=plugins"] if situation.plugins else []
    words = [str(build("restless", release, mode=situation.mode, extra_flags=tags))]
    words += ["-seconds", str(SECONDS), "-while", str(scratch / UNCOMPARED), "-mb", "10", "-rest", "150ms"]
    if situation.plugins:
        flags = [["-buildmode=plugin"], ["-buildmode=plugin", "-modfile=another.mod"]]
        plugins = [str(build("extension", release, mode="cgo", extra_flags=flag)) for flag in flags]
        words += ["-plugins", ",".join(plugins), "-after", str(scratch / UNPROBED)]
    return words


@contextmanager
def started(situation: Situation, release: str, scratch: Path) -> Iterator[Run]:
    """Launch a program and attach to it; it runs when it is resumed, and not behind the block."""
    for name in (UNCOMPARED, UNPROBED):
        (scratch / name).touch()
    argv = command(situation, release, scratch)
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        for name, value in {"GODEBUG": situation.godebug, **situation.environment}.items():
            environment.setenv(name, value)
        with output_to(scratch):
            launched = stack.enter_context(Launched(argv))
        program = load_program(launched.image)
        request = TraceRequest(None, tuple(argv), None, "bpf", True)
        backend = start_backend(request, launched.pid, program, launched=True)
        assert backend.source is not None
        stack.callback(backend.source.stop)
        try:
            yield Run(situation, launched, program, backend, scratch)
        finally:
            if launched.resumed and launched.poll() is None:
                os.kill(launched.pid, signal.SIGKILL)
                launched.wait()


def test_events_lead_to_what_every_look_sees(release: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        here = []
        for situation in SITUATIONS:
            scratch = tmp_path / situation.name
            scratch.mkdir()
            here.append(stack.enter_context(started(situation, release, scratch)))
        for run in here:
            run.launched.resume()
        with ThreadPoolExecutor(len(here)) as pool:
            list(pool.map(Run.watch, here))
        for run in here:
            assert run.launched.poll() == 0, f"{run.situation.name}: {(run.scratch / 'stderr').read_text()[-2000:]}"
    for run in here:
        check(run, release)


def watched(inspector: Inspector, backend: StartedBackend) -> Report:
    """Watch a launched program with a started backend, stop it, and return the report."""
    facts, spent = inspector.facts(), usage.cpu_seconds()
    session = trace.begin_session(inspector, backend, facts, launched=True)
    try:
        outcome = trace.run(session, LIMIT, lambda: False, launched=True)
        target_cpu = session.target_cpu()
    finally:
        session.finish()
        session.close()
    overhead = backend.overhead(usage.cpu_seconds() - spent, target_cpu, outcome.seconds)
    limits = session.limits([outcome.limit] if outcome.limit else [])
    return session.report(facts, rfc3339(time_ns()), outcome.seconds, overhead, limits, backend.lost)


def check(run: Run, release: str) -> None:
    """Hold what was seen of a program against looks, and against what it wrote itself."""
    report, name = run.report, run.situation.name
    assert report is not None
    assert report.event_loss is not None
    assert report.drift is not None
    assert (report.event_loss.lost, report.event_loss.resyncs) == (0, 0), name
    assert report.drift.unsure == 0, name
    assert report.event_loss.drift_bytes == 0, (name, report.drift, run.found.examples)
    assert report.drift.illegal_count == 0, (name, report.drift.illegal)
    assert report.drift.exact_looks >= EXACT_LOOKS, f"{name}: of {report.drift.looks} looks"
    if name == "decommitted":
        assert decommitted(run.looks) > 0
    if run.situation.plugins:
        hits = [row.hits for row in report.overhead.probes if row.role == "used"]
        assert len(hits) == 3, "one each in the program and its plugins"
        assert all(hits), "the copies of the runtime have no part in what happens"
    stderr = (run.scratch / "stderr").read_text()
    check_collections(run, report, stderr)
    if "scavtrace=1" in run.situation.godebug:
        check_scavenging(run, report, scavenge_lines(stderr), release)


def decommitted(looks: list[Snapshot]) -> int:
    """Return how many Prepared bytes of arenas the looks found without access, as harddecommit leaves them."""
    total = 0
    for look in looks:
        space, mappings = look.space, look.kernel.mappings
        found = (space.state == PREPARED) & (space.arena >= 0) & ~mappings.readable[space.mapping]
        total += int(np.sum(space.size[found]))
    return total


def check_collections(run: Run, report: Report, stderr: str) -> None:
    """Compare the GC cycles with the program's gctrace lines, and with its own count."""
    name, cycles = run.situation.name, report.gc_cycles
    assert report.events is not None
    assert cycles is not None
    assert report.events["gc_start"].count == report.events["gc_done"].count == len(cycles), name
    for cycle in cycles:
        assert cycle.started is not None
        assert cycle.ended is not None
        assert cycle.started < cycle.ended, name
    count = json.loads((run.scratch / "stdout").read_text())["NumGC"]
    assert count == len(cycles) - 1, f"{name}: the last one comes after the program counted"
    if "gctrace=1" in run.situation.godebug:
        lines = gc_lines(stderr)
        assert [line.number for line in lines] == list(range(1, len(cycles) + 1)), name
        # The events of the next cycle's start tell what the last one marked, and the goal that it had.
        for line, cycle in zip(lines[:-1], cycles, strict=False):
            assert cycle.heap_before is not None, (name, line)
            assert cycle.heap_after is not None, (name, line)
            assert (cycle.heap_before >> 20, cycle.heap_after >> 20) == (line.live_mb, line.marked_mb), (name, line)
            if line.goal_mb << 20 < ADDRESS_SPACE:  # without GOGC and GOMEMLIMIT it is as large as can be
                assert (cycle.goal or 0) >> 20 == line.goal_mb, (name, line)


def check_scavenging(run: Run, report: Report, lines: list[ScavengeLine], release: str) -> None:
    """Compare what was given back, by source, with every one of the program's scavtrace lines."""
    name = run.situation.name
    found = {source: [size for _, size in rows] for source, rows in run.scavenged.items()}
    assert report.scavenged_by is not None
    assert {source: sum(sizes) for source, sizes in found.items()} == {
        source: row.bytes for source, row in report.scavenged_by.items()
    }
    assert set(found) <= {"FreeOSMemory", "background", "allocation"}, name
    freed = [line.free_os_memory for line in lines if line.free_os_memory]
    assert freed, name
    assert told_in_full(freed, found["FreeOSMemory"]) == len(found["FreeOSMemory"]), (name, lines)
    # Go 1.19 reads its count, prints it, and sets it to 0: what is scavenged meanwhile, no line tells.
    told = told_in_full([line.background for line in lines], found.get("background", []), skips=release == "1.19")
    # What comes after the last line's moment, between a cycle and the end, no line tells either.
    late = run.last_cycle - TOLD_BY
    for time, size in run.scavenged["background"][told:]:
        assert time > late, (name, size)
    if release != "1.19":  # whose lines leave out what allocations scavenged
        rest = sum(run.sizes("allocation")) - sum(line.by_allocations or 0 for line in lines)
        assert 0 <= rest <= sum(run.sizes("allocation", since=late)), name


def told_in_full(told: Sequence[int], sizes: Sequence[int], *, skips: bool = False) -> int:
    """Check that each of `told` is the sum of the next of `sizes`; return how many of them that takes.

    Some may be skipped before each, if `skips`.
    """
    at = 0
    for number, wanted in enumerate(told):
        for first in range(at, len(sizes) + 1 if skips else at + 1):
            sums = np.cumsum([0, *sizes[first:]])
            if wanted in sums:
                at = first + int(np.flatnonzero(sums == wanted)[0])
                break
        else:
            pytest.fail(f"of {list(told)}, number {number} is no sum of what was seen from {at} on: {list(sizes)}")
    return at
