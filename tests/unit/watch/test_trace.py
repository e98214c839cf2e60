from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from gomem.tracer.errors import GomemError, NotPermitted, SnapshotError, TargetError, TargetExecuted, TargetGone
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.model.activity import Activity
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Limit, Overhead, ProcessEnding, ProcessFacts
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.watch import live
from gomem.tracer.watch import trace as trace_module
from gomem.tracer.watch.backend import StartedBackend
from gomem.tracer.watch.live import LiveSession
from gomem.tracer.watch.session import Ended, Outcome
from gomem.tracer.watch.trace import at_its_end, run

PID = 4711


class Clock:
    """Time that passes only where somebody waits or works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        clocks = {"monotonic": lambda: self.now, "monotonic_ns": lambda: int(self.now * 1e9), "sleep": self.sleep}
        for module in (live, trace_module):
            monkeypatch.setattr(module, "time", SimpleNamespace(**clocks))

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def batch(*kinds: EventKind) -> EventBatch:
    made = np.zeros(len(kinds), no_events().dtype)
    made["kind"] = kinds
    made["time"] = range(1, len(kinds) + 1)
    made["args"][:, 1] = 4096
    return made


class Source:
    """Delivers the given batches, one a poll, then waits in vain; the last ones come after `stop`."""

    name = "bpf"

    def __init__(self, clock: Clock, *batches: EventBatch, buffered: EventBatch | None = None) -> None:
        self.clock, self.batches, self.buffered = clock, list(batches), buffered
        self.lost, self.stopped = 0, 0

    def start(self) -> None:
        """Be started already."""

    def poll(self, timeout: float) -> EventBatch:
        if self.stopped:
            left, self.buffered = self.buffered, None
            return no_events() if left is None else left
        if self.batches:
            return self.batches.pop(0)
        self.clock.now += timeout
        return no_events()

    def stop(self) -> None:
        self.stopped += 1

    def probes(self) -> list[ProbeStatus]:
        return []

    def add_uprobes(self, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        return []

    def watch_closely(self) -> None:
        return

    def limits(self) -> list[Limit]:
        return []


class Fake:
    """An inspector whose looks take `cost` seconds, and fail with what `failures` has for their number."""

    def __init__(self, clock: Clock, cost: float = 0.001, failures: dict[int, GomemError] | None = None,
                 ends: float = 1e9) -> None:  # fmt: skip
        self.clock, self.cost, self.failures, self.ends = clock, cost, failures or {}, ends
        self.looks: list[float] = []
        self.last_looks = 0
        self.target = SimpleNamespace(pid=PID, check_alive=self.check, check_same_program=self.check)
        self.program = GoProgram(None, None, None, None)

    def check(self) -> None:
        if self.clock.now >= self.ends:
            raise TargetGone(f"process {PID} has exited")

    def target_cpu_seconds(self) -> float:
        return 0.0

    def symbolize(self, address: int) -> None:
        return None

    def last_look(self) -> object:
        self.last_looks += 1
        return self.look()

    def look(self) -> object:
        self.looks.append(round(self.clock.now - 1000.0, 2))
        failure = self.failures.get(len(self.looks) - 1)
        if failure is not None:
            raise failure
        self.check()
        self.clock.now += self.cost
        resident = SimpleNamespace(total=len(self.looks) << 20, file=0, shmem=0)
        kernel = SimpleNamespace(
            taken_at=f"look {len(self.looks)}", resident=lambda: resident, status=SimpleNamespace(threads=1)
        )
        nothing = np.zeros(0, np.int64)
        return SimpleNamespace(kernel=kernel, runtime=None, space=SimpleNamespace(kind=nothing, resident=nothing))


class Watch:
    """A session of a fake process, whose events are only counted, and the run of it."""

    def __init__(self, fake: Fake, source: Source | None = None, *, launched: bool = False) -> None:
        backend = StartedBackend("bpf" if source else "procfs", "", source)
        facts = ProcessFacts(PID, PID, "", "", [])
        self.launched = launched
        self.session = LiveSession(cast(Inspector, fake), backend, facts, launched=launched)
        self.session.reconciler = None

    @property
    def look(self) -> object:
        return self.session.look

    def run(self, seconds: float | None, stop: Callable[[], bool]) -> Outcome:
        return run(self.session, seconds, stop, launched=self.launched)

    def finish(self) -> None:
        self.session.finish()


def watching(fake: Fake, source: Source | None = None, *, launched: bool = False) -> tuple[Watch, Activity]:
    watch = Watch(fake, source, launched=launched)
    return watch, watch.session.activity


def never() -> bool:
    return False


def counts(activity: Activity) -> dict[str, int]:
    return {name: row.count for name, row in activity.events().items() if row.count}


def test_it_watches_for_as_long_as_asked_and_looks_a_last_time_at_the_end(clock: Clock) -> None:
    fake = Fake(clock)
    watch, activity = watching(fake, Source(clock, batch(EventKind.MUNMAP), batch(EventKind.MUNMAP, EventKind.GROW)))
    ending = watch.run(5.0, never)
    assert ending.seconds == pytest.approx(5.0, abs=0.01)
    assert ending.limit is None
    assert ending.why is Ended.TIME
    assert fake.looks == [0.0, pytest.approx(2.0, abs=0.11), pytest.approx(4.0, abs=0.21), pytest.approx(5.0, abs=0.01)]
    assert fake.last_looks == 1
    assert counts(activity) == {"munmap": 2, "grow": 1}


def test_looks_that_are_asked_for_at_a_price_come_more_often_and_make_a_course(clock: Clock) -> None:
    fake = Fake(clock, cost=0.05)
    session = watching(fake)[0].session
    run(session, 10.0, never, look_every=0.5, look_share=0.25)
    assert 15 <= len(fake.looks) <= 21
    session.look = None  # a fake one makes no report
    report = session.report(session.facts, "", 10.0, Overhead(0.0, 0, [], None), [])
    assert report.courses is not None
    course = report.courses["rss"]
    assert (course.looks, course.first, course.last) == (len(fake.looks), 1 << 20, len(fake.looks) << 20)
    assert course.per_second == pytest.approx(2 * (1 << 20), rel=0.2)


def test_a_target_that_is_slow_to_look_at_is_looked_at_less_often(clock: Clock) -> None:
    fake = Fake(clock, cost=0.2)
    watching(fake)[0].run(25.0, never)
    assert fake.looks[:3] == [0.0, pytest.approx(10.2, abs=0.2), pytest.approx(20.4, abs=0.4)]


def test_no_time_at_all_still_gives_one_look(clock: Clock) -> None:
    fake = Fake(clock)
    watch, _ = watching(fake, Source(clock))
    assert watch.run(0.0, never).limit is None
    assert (len(fake.looks), watch.look is not None) == (1, True)


def test_stopping_ends_it_before_its_time_with_a_look_and_no_complaint(clock: Clock) -> None:
    fake = Fake(clock)
    watch, _ = watching(fake, Source(clock))
    ending = watch.run(None, lambda: clock.now > 1001)
    assert ending.limit is None
    assert ending.why is Ended.STOP
    assert ending.seconds == pytest.approx(1.0, abs=0.15)
    assert fake.looks[-1] == pytest.approx(1.0, abs=0.15)


def test_the_targets_exit_ends_it_with_the_last_look_and_the_last_events(clock: Clock) -> None:
    source = Source(clock, batch(EventKind.MUNMAP), batch(EventKind.MUNMAP, EventKind.EXIT), batch(EventKind.MADVISE),
                    buffered=batch(EventKind.BRK))  # fmt: skip
    watch, activity = watching(Fake(clock), source)
    ending = watch.run(10.0, never)
    watch.finish()
    assert ending.limit is not None
    assert ending.why is Ended.EXIT
    assert f"process {PID} has exited" in ending.limit.why
    assert "look 1" in ending.limit.why
    assert watch.look is not None
    assert counts(activity) == {"munmap": 2, "madvise": 1, "brk": 1}
    assert source.stopped == 1


def test_without_a_source_the_end_is_noticed_all_the_same(clock: Clock) -> None:
    watch, _ = watching(Fake(clock, ends=1003.0))
    ending = watch.run(10.0, never)
    assert ending.limit is not None
    assert ending.seconds == pytest.approx(3.0, abs=0.15)


def test_a_source_that_says_nothing_does_not_hide_the_end(clock: Clock) -> None:
    watch, _ = watching(Fake(clock, ends=1001.0), Source(clock))
    ending = watch.run(None, never)
    assert ending.limit is not None
    assert ending.seconds == pytest.approx(1.0, abs=0.15)


def test_an_exec_ends_it_and_what_another_program_does_is_not_counted(clock: Clock) -> None:
    source = Source(clock, batch(EventKind.MUNMAP, EventKind.EXEC, EventKind.MADVISE), batch(EventKind.MADVISE),
                    buffered=batch(EventKind.GROW))  # fmt: skip
    watch, activity = watching(Fake(clock), source)
    ending = watch.run(10.0, never)
    watch.finish()
    assert ending.why is Ended.EXEC
    assert ending.limit is not None
    assert "executed another program" in ending.limit.why
    assert counts(activity) == {"munmap": 1}
    assert watch.session.own.behind["kind"].tolist() == [EventKind.MADVISE, EventKind.GROW], "the next session's"


def test_a_target_that_is_gone_before_any_look_says_so(clock: Clock) -> None:
    watch, _ = watching(Fake(clock, ends=0.0))
    ending = watch.run(10.0, never)
    assert ending.limit is not None
    assert "no state could be read" in ending.limit.why
    assert watch.look is None


def test_a_look_that_comes_too_late_waits_for_the_last_events(clock: Clock) -> None:
    # The target has exited; its EXIT is still in the source, behind other events.
    source = Source(clock, batch(EventKind.MUNMAP), batch(EventKind.EXIT))
    watch, activity = watching(Fake(clock, failures={0: TargetGone("gone")}), source)
    ending = watch.run(10.0, never)
    assert ending.limit is not None
    assert counts(activity) == {"munmap": 1}


def test_another_program_found_by_a_look_ends_it(clock: Clock) -> None:
    watch, _ = watching(Fake(clock, failures={1: TargetExecuted("runs another program now")}), Source(clock))
    ending = watch.run(10.0, never)
    assert ending.why is Ended.EXEC
    assert ending.limit is not None
    assert "runs another program" in ending.limit.why
    assert watch.look is not None


def test_a_target_that_cannot_be_read_any_more_ends_it_too(clock: Clock) -> None:
    watch, _ = watching(Fake(clock, failures={1: TargetError("more than 64 MB of maps")}), Source(clock))
    ending = watch.run(10.0, never)
    assert (ending.why, ending.limit is not None) == (Ended.UNREADABLE, True)


@pytest.mark.parametrize("error", [NotPermitted("no"), SnapshotError("torn")])
def test_other_failures_of_a_look_are_not_swallowed(clock: Clock, error: GomemError) -> None:
    watch, _ = watching(Fake(clock, failures={0: error}), Source(clock))
    with pytest.raises(type(error)):
        watch.run(10.0, never)


def test_a_launched_program_is_looked_at_early_and_may_be_unreadable_at_first(clock: Clock) -> None:
    fake = Fake(clock, failures={0: SnapshotError("mallocinit has not run yet")})
    watch, _ = watching(fake, Source(clock), launched=True)
    ending = watch.run(3.0, never)
    assert ending.limit is None
    assert fake.looks[0] == pytest.approx(0.05, abs=0.11)
    assert fake.looks[1] < 0.6
    assert watch.look is not None


def test_events_that_are_not_accepted_are_not_counted(clock: Clock) -> None:
    source = Source(clock, batch(EventKind.MUNMAP), batch(EventKind.EXEC, EventKind.BRK), batch(EventKind.MADVISE))
    watch, activity = watching(Fake(clock), source, launched=True)
    assert watch.run(1.0, never).limit is None
    assert counts(activity) == {"brk": 1, "madvise": 1}


def test_finishing_without_a_source_takes_no_look_and_keeps_the_last_one(clock: Clock) -> None:
    fake = Fake(clock)
    watch, activity = watching(fake)
    watch.run(5.0, never)
    taken, last = list(fake.looks), watch.look
    assert taken
    watch.finish()
    watch.finish()
    assert fake.looks == taken
    assert watch.look is last
    assert counts(activity) == {}


def test_after_a_process_has_ended_nothing_was_missed_but_of_one_that_cannot_be_read_any_longer() -> None:
    limit = Limit("ended-early", "the rest of the time", "after 3.3 s: its main thread has ended, others run", "")
    look = cast(Snapshot, SimpleNamespace(kernel=SimpleNamespace(taken_at="2026-03-02T09:14:27.512Z"), runtime=None))
    ended, untold = ProcessEnding(0, None, False), ProcessEnding(None, None, None)
    assert at_its_end(look, limit, None) == at_its_end(look, limit, untold) == limit
    told = at_its_end(look, limit, ended)
    assert (told.kind, told.what) == ("note", "its memory")
    assert "2026-03-02T09:14:27.512Z" in told.why
    assert at_its_end(None, limit, ended).kind == "gap"
