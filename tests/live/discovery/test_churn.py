"""A thousand short-lived processes a second, threads by the hundred, and more events than fit."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gomem.tracer.discovery import timetable
from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.kernel.process_events import Batch, ProcessEvents
from tests.support.builds import build
from tests.support.discovery.following import following
from tests.support.processes import running, wait_until
from tests.support.requirements import absent

EXEC, EXIT = 0x2, 0x8000_0000
# Starts /bin/true again and again, as fast as it can, until its standard input ends or so many were started.
CHURN = """
import os, select, sys
for _ in range(int(sys.argv[1])):
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    if select.select([0], [], [], 0)[0]:
        break
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _connector() -> None:
    try:
        ProcessEvents.open().close()
    except BackendUnavailable as why:
        absent(str(why))


@contextmanager
def churning(processes: int) -> Iterator[subprocess.Popen[bytes]]:
    with running(sys.executable, "-S", "-c", CHURN, processes) as process:
        yield process


def done(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"done\n"


def test_short_lived_processes_leave_nothing_in_any_table() -> None:
    becomes = build("becomes", "1.25.5")
    made = Discovery(settle=0.2)
    with following(made) as seen, running(becomes, "x") as process, churning(3000) as churn:
        seen.until_found(process.pid)
        before = made.processes_seen, made.recognition.files_read, len(os.listdir("/proc/self/fd"))
        seen.until(lambda: made.processes_seen - before[0] >= 2500, "most of them are heard of", 200.0)
        done(churn)
        # One more that settles, so that all before it have had their turn.
        with running(becomes, "x") as last:
            seen.until_found(last.pid)
        assert process.pid in seen.found
        assert not any(one.name == "true" for one in seen.found.values())
        assert made.recognition.files_read - before[1] < 100
        seen.until(lambda: len(os.listdir("/proc/self/fd")) <= before[2], "what was opened for them is closed")
        seen.until(lambda: made.waiting < 100, "those that ended are not waited for")


def test_the_table_of_those_that_settle_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "MOST_PENDING", 50)
    made = Discovery(settle=3600.0)
    with following(made) as seen, churning(400) as churn:
        seen.poll(0)
        done(churn)
        seen.until(lambda: made.processes_seen > 400, "all are heard of")
        assert 0 < made.waiting <= 50


def test_the_kernel_lets_only_programs_and_their_ends_through() -> None:
    events = ProcessEvents.open()
    try:
        raw = socket.socket(fileno=os.dup(events.fileno()))
        with raw, running("/bin/true") as process:
            process.wait()
            for _ in range(100):
                thread = threading.Thread(target=int)
                thread.start()
                thread.join()
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
            kinds: dict[int, set[int]] = {EXEC: set(), EXIT: set()}
            while True:
                try:
                    datagram = raw.recv(4096)
                except BlockingIOError:
                    break
                (what,) = struct.unpack_from("=I", datagram, 36)
                pid, tgid = struct.unpack_from("=II", datagram, 52)
                assert what in (0, EXEC, EXIT)  # 0: an answer to another listener
                if what:
                    assert pid == tgid
                    kinds[what].add(pid)
            assert process.pid in kinds[EXEC] & kinds[EXIT]
            assert os.getpid() not in kinds[EXIT]
    finally:
        events.close()


def test_events_are_told_in_order() -> None:
    events = ProcessEvents.open()
    try:
        pids = []
        for _ in range(5):
            pids.append(os.posix_spawn("/bin/true", ["true"], {}))
            os.waitpid(pids[-1], 0)
        batch = events.read()
        ours = [event for event in batch.events if event[0] in pids]
        assert ours == [(pid, executed) for pid in pids for executed in (True, False)]
        assert (batch.overrun, batch.more) == (False, False)
    finally:
        events.close()


def test_a_flood_is_read_in_parts() -> None:
    events = ProcessEvents.open()
    try:
        for _ in range(5):
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        batch = events.read(most=3)
        assert batch.more
        assert len(batch.events) <= 3
    finally:
        events.close()


def test_events_that_did_not_fit_are_made_up_for_by_a_scan() -> None:
    becomes = build("becomes", "1.25.5")
    made = Discovery(settle=0.0, scan_every=0.1, listen=lambda: ProcessEvents.open(receive_buffer=2048))
    with following(made) as seen:
        seen.poll(0)
        with churning(200) as churn, running(becomes, "x") as process:
            done(churn)
            wait_until(lambda: os.path.samefile(f"/proc/{process.pid}/exe", becomes), "it is executed")
            scans = made.scans
            seen.until_found(process.pid)
            seen.until(lambda: made.overruns > 0 and made.scans > scans, "the loss is noticed")
            assert made.mode == "process connector"


class Broken(ProcessEvents):
    """A connector whose socket fails."""

    def read(self, most: int = 1) -> Batch:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_connector_that_fails_leaves_the_scan() -> None:
    made = Discovery(settle=0.0, scan_every=0.1, listen=Broken.open)
    with following(made) as seen, running(build("becomes", "1.25.5"), "x") as process:
        assert made.mode == "process connector"
        seen.until_found(process.pid)
        assert made.mode == "scan"
        assert made.mode_reason == "the process connector failed: Input/output error"
        assert made.errors == 1
