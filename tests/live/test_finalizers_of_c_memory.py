"""C memory that finalizers free, and collections that do not come: what looks tell of it, and of a twin that closes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.report import Report
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.watch.look_figures import figures_of
from gomem.tracer.watch.session import NO_OVERHEAD, Origin, TargetSession
from tests.support.builds import build
from tests.support.processes import PATIENCE, running
from tests.support.seen import findings

SECOND = 10**9
APART = 4.0  # seconds that a look is said to come after the one before: what is seen is real, the time is not
EACH = 96 << 10
STEP = 40  # objects that are made between two looks


class Watch:
    """Looks at a process until it has gone on, and tells a session."""

    def __init__(self, process: subprocess.Popen[bytes], inspector: Inspector) -> None:
        self._process, self._inspector, self._looks = process, inspector, 0
        self._session = TargetSession(Origin("procfs", "", has_events=False, compares=False), lambda _: None, None)

    def look(self) -> dict[str, int | None]:
        look: Snapshot = self._inspector.look()
        self._looks += 1
        self._session.see(look, round(self._looks * APART * SECOND))
        return figures_of(look)

    def collect(self) -> None:
        """Let it collect, and wait until it has found out which objects nobody has."""
        before = self.look()["finalizers"] or 0
        self._process.send_signal(signal.SIGUSR1)
        self.until(lambda now: now < before)  # until a collection there are only more
        time.sleep(0.3)  # finalizers run after it

    def until(self, done: Callable[[int], bool]) -> None:
        limit = time.monotonic() + 60 * PATIENCE
        while not done(figures_of(self._inspector.look())["finalizers"] or 0):
            assert time.monotonic() < limit, "it makes no progress"
            time.sleep(0.05)

    def report(self) -> Report:
        facts = self._inspector.facts()
        return self._session.report(facts, "2026-01-01T00:00:00Z", self._looks * APART, NO_OVERHEAD, [])


@contextmanager
def watching(program: str) -> Iterator[Watch]:
    path = build("ccases", "1.27.3", mode="cgo", stripped=True)
    # What glibc frees goes back to the kernel at once, so that it is seen when.
    with running("env", f"MALLOC_MMAP_THRESHOLD_={EACH // 2}", path, program) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with Target.open(process.pid) as target, Inspector.open(target) as inspector:
            yield Watch(process, inspector)


def rising(watch: Watch, looks: int) -> None:
    """Look again and again, each time when there are more objects."""
    for _ in range(looks):
        wanted = (watch.look()["finalizers"] or 0) + STEP
        watch.until(wanted.__le__)


def test_c_memory_that_waits_for_a_collection_is_said_to() -> None:
    with watching("finalized") as watch:
        rising(watch, 9)
        report = watch.report()
    found = findings(report)["finalizers-wait-for-gc"]
    assert found.evidence["collections"] == 0
    assert int(found.evidence["more_objects"] or 0) >= 5 * STEP
    assert found.evidence["bytes_per_object"] == pytest.approx(EACH, rel=0.15)
    assert "only the next collection can tell" in found.explanation


def test_what_a_collection_frees_was_waiting_for_it() -> None:
    with watching("finalized") as watch:
        for _ in range(2):
            rising(watch, 5)
            watch.collect()
            watch.look()
        report = watch.report()
    found = findings(report)["finalizers-wait-for-gc"]
    assert found.evidence["collections"] == 2
    assert EACH / 2 < float(found.evidence["bytes_per_object"] or 0) < 1.15 * EACH
    assert "went with them: 2 collections" in found.title


def test_c_memory_that_is_closed_by_hand_waits_for_nothing() -> None:
    with watching("closed") as watch:
        watch.until(lambda now: now >= 100)
        for _ in range(9):
            watch.look()
            time.sleep(0.2)
        report = watch.report()
    assert "finalizers-wait-for-gc" not in findings(report)
    assert report.courses is not None
    assert report.courses["finalizers"].last <= 110
