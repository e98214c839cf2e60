"""A file system that stops answering after a process of it was found: the fleet goes on with all others.

FUSE is asked nothing any more; that of a far server (NFS) may be, when the link /proc/PID/exe is followed. There is
none here, so a lock stands in for its wait.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from gomem.tracer.discovery.selection import Selection
from gomem.tracer.fleet.session import FleetSession
from gomem.tracer.fleet.view import FleetView, TargetState
from gomem.tracer.process import guardian
from tests.live.discovery.test_stuck_file_systems import stopped
from tests.support.bpf.sharing import sharing
from tests.support.builds import build
from tests.support.discovery.fuse import deaf, executed_from_fuse
from tests.support.fleets import of, watching
from tests.support.processes import running, wait_until
from tests.support.requirements import absent

pytestmark = pytest.mark.timeout(300)

PATIENCE = 1.0
CHURN = ("-mb", "16", "-phase", "300ms", "-seconds", "600")


@pytest.fixture(scope="module")
def churn() -> Path:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")
    return build("churn", "1.25.5")


Waits = Callable[..., AbstractContextManager[None]]


def looked_at(pid: int, looks: int = 1) -> Callable[[FleetView], bool]:
    return lambda view: bool((one := of(view, pid)) and one.state is TargetState.FOLLOWED and one.looks >= looks)


def unanswered(pid: int) -> Callable[[FleetView], bool]:
    return lambda view: bool(
        (one := of(view, pid)) and one.state is TargetState.UNREADABLE and "does not answer" in one.why
    )


@pytest.fixture(autouse=True)
def appointed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a guardian read files and try processes, as `gomem serve` does."""
    one = guardian.Guardian()
    one.ensure_answers(os.getpid())
    monkeypatch.setattr(guardian, "_appointed", [one])
    yield
    one.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Within the block whoever asks for the executable of one of these processes waits, as long as that is there."""

    opened: list[int] = []

    @contextmanager
    def waiting(*pids: int) -> Iterator[None]:
        answered = os.eventfd(0)
        ends = {pid: os.pidfd_open(pid) for pid in pids}

        def ask(following: FleetSession) -> None:
            if following.pid in pids:
                select.select([ends[following.pid], answered], [], [])

        monkeypatch.setattr(FleetSession, "touch_executable", ask)
        try:
            yield
        finally:
            os.eventfd_write(answered, 1)
            opened.extend((answered, *ends.values()))

    yield waiting
    for fd in opened:
        os.close(fd)


@pytest.mark.bpf
def test_a_process_whose_file_system_stops_answering_costs_only_itself(
    churn: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gomem.tracer.fleet.schedule.LOOK_SHARE", 0.5)
    with (
        executed_from_fuse(churn, *CHURN) as (_, silent),
        running(churn, *CHURN) as other,
        sharing() as source,
        watching(Selection(pids=frozenset((silent, other.pid))), source, patience=PATIENCE) as watched,
    ):
        watched.until(lambda view: looked_at(silent)(view) and looked_at(other.pid)(view), "both were looked at")
        with waits(silent):
            view = watched.until(unanswered(silent), "it is left alone")
            before, after = of(view, silent), of(view, other.pid)
            assert before is not None
            assert after is not None
            assert before.report is not None  # what was known stays
            assert not before.follows_events
            threads, looks, rounds = threading.active_count(), after.looks, view.health.rounds
            view = watched.until(
                lambda view: looked_at(other.pid, looks + 4)(view) and view.health.rounds > rounds, "the other's looks"
            )
            assert unanswered(silent)(view)
            assert threading.active_count() <= threads + 3  # discovery may have noticed later; a closer
        watched.until(looked_at(silent, before.looks + 2), "it is looked at again")
        view = watched.until(looked_at(other.pid, after.looks + 8), "the other's looks")
        report = after.report if (after := of(view, other.pid)) else None
        assert report is not None
        assert report.event_loss is not None
        assert (report.event_loss.lost, report.event_loss.drift_bytes) == (0, 0)
        resumed = of(view, silent)
        assert resumed is not None
        assert resumed.follows_events
        assert resumed.report is not None
        assert resumed.report.event_loss is not None
        assert resumed.report.event_loss.lost > 0  # told, and not taken for silence
        assert not watched.complaints


@pytest.mark.bpf
def test_many_processes_of_such_a_file_system_keep_nobody_waiting(churn: Path, waits: Waits) -> None:
    with (
        executed_from_fuse(churn, *CHURN, count=4) as (_, *silent),
        running(churn, *CHURN) as other,
        sharing() as source,
        watching(Selection(pids=frozenset((*silent, other.pid))), source, patience=PATIENCE) as watched,
    ):
        watched.until(lambda view: all(looked_at(pid)(view) for pid in (*silent, other.pid)), "all were looked at")
        threads = threading.active_count()
        with waits(*silent):
            view = watched.until(lambda view: all(unanswered(pid)(view) for pid in silent), "all are left alone")
            before = of(view, other.pid)
            assert before is not None
            view = watched.until(looked_at(other.pid, before.looks + 4), "the other's looks")
            assert all(unanswered(pid)(view) for pid in silent)
            # One waits for them all, perhaps one of discovery's, and one closes descriptors.
            assert threading.active_count() <= threads + 3
            seen = {pid: one.looks for pid in silent if (one := of(view, pid))}
        watched.until(
            lambda view: all(looked_at(pid, looks + 2)(view) for pid, looks in seen.items()), "all are looked at again"
        )
        assert not watched.complaints


def test_a_process_that_ends_while_its_file_system_does_not_answer_leaves_nothing_behind(
    churn: Path, waits: Waits
) -> None:
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with ExitStack() as gone, running(churn, *CHURN) as other:
        _, silent = gone.enter_context(executed_from_fuse(churn, *CHURN))
        selection = Selection(pids=frozenset((silent, other.pid)))
        with watching(selection, patience=PATIENCE) as watched:
            watched.until(lambda view: looked_at(silent)(view) and looked_at(other.pid)(view), "both were looked at")
            with waits(silent):
                watched.until(unanswered(silent), "it is left alone")
                gone.close()  # server and program are killed, the file system is unmounted
                view = watched.until(lambda view: of(view, silent) is None, "it left the view")
            assert view.health.targets_ended == 1
            assert not watched.complaints
    wait_until(lambda: threading.active_count() <= threads, "the threads that waited end")
    assert len(os.listdir("/proc/self/fd")) == descriptors + 2  # those of the wait


def test_a_fleet_that_ends_does_not_wait_for_such_a_file_system(churn: Path, waits: Waits) -> None:
    with (
        executed_from_fuse(churn, *CHURN) as (_, silent),
        ExitStack() as answers,
        watching(Selection(pids=frozenset((silent,))), patience=PATIENCE) as watched,
    ):
        watched.until(looked_at(silent), "it was looked at")
        answers.enter_context(waits(silent))
        watched.until(unanswered(silent), "it is left alone")


def test_a_process_is_followed_while_nobody_serves_its_file_system_any_more(churn: Path) -> None:
    with (
        executed_from_fuse(churn, *CHURN) as (server, silent),
        watching(Selection(pids=frozenset((silent,))), patience=PATIENCE) as watched,
    ):
        watched.until(looked_at(silent, 2), "it was looked at")
        with deaf(server), stopped(server):
            watched.until(looked_at(silent, 6), "what is known of its file suffices")
        assert not watched.complaints
