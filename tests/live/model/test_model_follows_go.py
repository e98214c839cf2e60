"""The model against real Go programs: what the events lead to is what every look sees, byte for byte."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.support.builds import Mode, build
from tracer import session
from tracer.events import EventBatch, Kind
from tracer.inspection import Inspector, Look
from tracer.join import PREPARED
from tracer.model.activity import Activity
from tracer.model.explained import Explained
from tracer.program import load_program
from tracer.report import Report
from tracer.sources.launch import Launched
from tracer.target import Target
from tracer.watch import Watch

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(60)]

SECONDS = 1.3  # of the program's run
LIMIT = 30.0  # seconds until it has failed


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a program runs: its environment, and how it is linked."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    mode: Mode = "exe"

    def lines(self, which: str) -> bool:
        """Tell whether the program writes the lines of gctrace or scavtrace.

        Never both: the one holds the lock of print and may need a stack from the heap, the other holds the heap's lock
        and prints, so that Go 1.23 sometimes stands still.
        """
        return f"{which}=1" in self.environment.get("GODEBUG", "")


SCENARIOS = (
    Scenario("defaults", {"GODEBUG": "scavtrace=1"}),
    Scenario("lazily freed", {"GODEBUG": "madvdontneed=0,gctrace=1"}),
    Scenario("decommitted", {"GODEBUG": "harddecommit=1,scavtrace=1"}),
    Scenario("memory limit", {"GODEBUG": "scavtrace=1", "GOMEMLIMIT": "40MiB", "GOGC": "off"}),
    Scenario("cgo", {"GODEBUG": "gctrace=1"}, mode="cgo"),
)


@dataclass(slots=True)
class Seen:
    """What gomem saw of a program, and what the program wrote itself."""

    report: Report
    looks: list[Look]
    scavenged: list[tuple[int, int]]  # time and bytes of every `unused`
    last_cycle: int  # when the last GC cycle ended
    stdout: str = ""
    stderr: str = ""


def trace(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> Seen:
    """Trace a command from its exec to its end, with a look every 100 ms."""
    looks: list[Look] = []
    scavenged: list[tuple[int, int]] = []
    ends: list[int] = [0]
    take_look, feed = Watch.take_look, Activity.feed

    def look(watch: Watch) -> None:
        take_look(watch)
        if watch.look is not None:
            looks.append(watch.look)

    def count(activity: Activity, batch: EventBatch, explained: Explained | None = None) -> None:
        unused = batch[batch["kind"] == Kind.UNUSED]
        scavenged.extend(zip(unused["time"].tolist(), unused["args"][:, 1].tolist(), strict=True))
        ends.extend(batch["time"][batch["kind"] == Kind.GC_DONE].tolist())
        feed(activity, batch, explained)

    monkeypatch.setattr(Watch, "take_look", look)
    monkeypatch.setattr(Activity, "feed", count)
    monkeypatch.setattr("tracer.watch._LOOK_EVERY", 0.1)
    monkeypatch.setattr("tracer.watch._LOOK_SHARE", 0.9)
    with Launched(command) as launched:
        program = load_program(launched.image)
        plan = session.start_source("bpf", launched.pid, program, launched)
        launched.resume()
        try:
            with Target.open(launched.pid) as target, Inspector(target, program) as inspector:
                inspector.prepare()
                report = session.watch_target(inspector, plan, LIMIT, lambda: False, launched)
            assert launched.poll() == 0, "the program failed"
        finally:
            if launched.poll() is None:
                os.kill(launched.pid, signal.SIGKILL)
    return Seen(report, looks, scavenged, max(ends))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_events_lead_to_what_every_look_sees(
    release: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    binary = build("restless", release, mode=scenario.mode)
    for name, value in scenario.environment.items():
        monkeypatch.setenv(name, value)
    seen = trace(monkeypatch, (str(binary), "-seconds", str(SECONDS)))
    seen.stdout, seen.stderr = capfd.readouterr()
    report = seen.report

    assert report.event_loss is not None
    assert report.drift is not None
    assert (report.event_loss.lost, report.event_loss.resyncs) == (0, 0)
    assert report.event_loss.drift_bytes == 0, report.drift
    assert report.drift.unsure == 0
    assert report.drift.illegal_count == 0, report.drift.illegal
    assert report.drift.exact_looks >= 3, f"of {report.drift.looks} looks"
    if scenario.name == "decommitted":
        assert decommitted(seen.looks) > 0
    check_collections(seen, scenario.lines("gctrace"))
    if scenario.lines("scavtrace"):
        check_scavenging(seen, release)


def decommitted(looks: list[Look]) -> int:
    """Return how many Prepared bytes of arenas the looks found without access, as harddecommit leaves them."""
    total = 0
    for look in looks:
        space, mappings = look.space, look.kernel.mappings
        found = (space.state == PREPARED) & (space.arena >= 0) & ~mappings.readable[space.mapping]
        total += int(np.sum(space.size[found]))
    return total


def check_collections(seen: Seen, traced: bool) -> None:
    """Compare the GC cycles with the program's gctrace lines, and with its own count."""
    assert seen.report.events is not None
    cycles = seen.report.gc_cycles
    assert cycles is not None
    assert seen.report.events["gc_done"].count == len(cycles)
    for cycle in cycles:
        assert cycle.started is not None
        assert cycle.ended is not None
        assert cycle.started < cycle.ended
    assert json.loads(seen.stdout)["NumGC"] == len(cycles) - 1, "the last one comes after the program counted"
    if traced:
        assert len(re.findall(r"(?m)^gc \d+ @", seen.stderr)) == len(cycles)


def check_scavenging(seen: Seen, release: str) -> None:
    """Compare what was given back, by source, with the program's scavtrace lines.

    What the background scavenger does after the last line, between a cycle and the end, no line tells.
    """
    told: Counter[str] = Counter()
    lines = re.findall(r"(?m)^scav (\d+) KiB work(?: \(bg\), (\d+) KiB work \(eager\))?,.*% util(.*)$", seen.stderr)
    for background, eager, rest in lines:
        forced = "forced" in rest
        told["FreeOSMemory" if forced else "background"] += int(background) << 10
        told["FreeOSMemory" if forced else "allocation"] += int(eager or 0) << 10
    assert seen.report.scavenged_by is not None
    found = {source: row.bytes for source, row in seen.report.scavenged_by.items()}
    assert set(found) <= {"FreeOSMemory", "background", "allocation"}
    untold = sum(size for time, size in seen.scavenged if time > seen.last_cycle)
    assert told["FreeOSMemory"] == found.get("FreeOSMemory", 0) > 0
    assert 0 <= found.get("background", 0) - told["background"] <= untold, (told, found)
    if release != "1.19":  # whose lines leave out what allocations scavenged
        assert 0 <= found.get("allocation", 0) - told["allocation"] <= untold
