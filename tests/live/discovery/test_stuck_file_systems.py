from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.prober import Prober
from gomem.tracer.discovery.recognition import ProgramKind, Recognition
from gomem.tracer.discovery.selection import parse_selection
from gomem.tracer.process import served_file
from gomem.tracer.process.guardian import Guardian
from tests.support.builds import build
from tests.support.discovery.following import following
from tests.support.discovery.fuse import deaf, executed_from_fuse
from tests.support.processes import running, state, wait_until
from tests.support.requirements import absent

PATIENCE = 0.5


@pytest.fixture(scope="module")
def becomes() -> Path:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")
    return build("becomes", "1.25.5")


@pytest.fixture(autouse=True)
def nobody_was_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_file, "_silence", served_file._Silence())


@contextmanager
def stopped(server: int) -> Iterator[None]:
    os.kill(server, signal.SIGSTOP)
    try:
        wait_until(lambda: state(server) == "T", "the server is stopped")
        yield
    finally:
        os.kill(server, signal.SIGCONT)


def test_a_go_program_on_a_file_system_that_a_program_serves_is_found(becomes: Path) -> None:
    with (
        executed_from_fuse(becomes, "x") as (_, pid),
        following(Discovery(settle=0.0, scan_every=0.1, listen=None)) as seen,
    ):
        assert seen.until_found(pid).name == "program"


def test_a_file_system_that_does_not_answer_holds_up_nobody_else(
    becomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_file, "_FIRST_PAUSE", PATIENCE)
    made = Discovery(settle=0.0, scan_every=0.1, listen=None, patience=PATIENCE)
    with executed_from_fuse(becomes, "x") as (server, pid), stopped(server), following(made) as seen:
        with running(becomes, "x") as other:
            seen.until_found(other.pid)
            seen.until(lambda: pid in made.stuck, "it is noticed")
            assert made.errors > 0
            assert pid not in seen.found
        for _ in range(3):
            seen.poll()
        threads = threading.active_count()
        for _ in range(5):
            seen.poll()
        # The one that waits is not joined by others.
        seen.until(lambda: threading.active_count() <= threads, "no more threads")
        os.kill(server, signal.SIGCONT)
        assert seen.until_found(pid).name == "program"
        seen.until(lambda: pid not in made.stuck, "its thread is back")


def test_to_ask_for_such_a_process_is_no_wait_and_it_is_there(becomes: Path) -> None:
    with (
        executed_from_fuse(becomes, "x") as (server, pid),
        deaf(server),
        following(Discovery(parse_selection(pids=[pid]))) as seen,
    ):
        assert seen.until_found(pid).name == "program"


def test_of_many_files_that_are_never_read_only_some_are_waited_for(
    becomes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], Guardian.read

    def reading(guardian: Guardian, pid: int, *rest: Any) -> None:
        asked.append(pid)
        read(guardian, pid, *rest)

    monkeypatch.setattr(Guardian, "read", reading)
    prober = Prober(Recognition())
    with ExitStack() as served, running(becomes, "x") as other:
        silent = []
        for _ in range(8):
            server, pid = served.enter_context(executed_from_fuse(becomes, "x"))
            served.enter_context(deaf(server))
            silent.append(pid)
        kinds = [look.recognized and look.recognized.kind for look in prober.look([*silent, other.pid], ())]
        assert kinds == [ProgramKind.SILENT] * len(silent) + [ProgramKind.GO]
        assert 1 <= len(asked) < len(silent)
        prober.look(silent, ())
        assert len(asked) < len(silent)
    prober.stop()


def test_a_file_system_whose_server_died_does_no_harm(becomes: Path) -> None:
    made = Discovery(settle=0.0, scan_every=0.1, listen=None)
    with executed_from_fuse(becomes, "x") as (server, pid), following(made) as seen:
        found = seen.until_found(pid)
        os.kill(server, signal.SIGKILL)
        with running(becomes, "x") as other:
            seen.until_found(other.pid)
        assert not made.stuck
        assert seen.found[pid] == found
