"""What real processes with hostile names, paths and arguments get printed: nothing that a terminal would obey."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import executable, gomem
from tests.support.processes import running, wait_until
from tests.support.requirements import absent, program
from tests.support.serving import serving

COMM = "\x1b[2J\n\u202e\x9bpwn"  # of 15 bytes at the most
NAME = "\x1b]0;pwned\x07\r\u202egnp\u2066 \x9b2J\n" + "x" * 150
LONGEST = 700  # characters of a line
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")

RENAMED = "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0); print(flush=True); input()"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go program at a path that a terminal should not see."""
    place = tmp_path_factory.mktemp("hostile") / NAME
    place.mkdir()
    shutil.copy(build("churn", "1.25.5"), place / NAME)
    return place / NAME


@pytest.fixture(scope="module")
def pid(path: Path) -> Iterator[int]:
    with running(path, "-mb", "16", "-phase", "300ms") as process:
        yield process.pid


@pytest.fixture
def renamed() -> Iterator[int]:
    """A process that is no Go program, and has given itself another name."""
    with running(sys.executable, "-c", RENAMED, COMM, NAME) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "\x1b[2J" in Path(f"/proc/{process.pid}/comm").read_text(errors="replace")
        yield process.pid


def harmless(text: str) -> str:
    """Check what a terminal would get, and return it."""
    for line in text.split("\n"):
        assert line.isprintable(), repr(line)
        assert len(line) <= LONGEST, line
    return text


def test_reports_and_progress(pid: int, path: Path) -> None:
    for words in (("trace", "--pid", pid, "--duration", "0.3"), ("snapshot", "--pid", pid), ("ps",), ("doctor",)):
        done = gomem(*words)
        assert harmless(done.stdout)
        harmless(done.stderr)
    started = gomem("trace", "--backend", "procfs", "--duration", "0.3", "--", path, "-seconds", "1")
    assert "\\x1b]0;pwned" in harmless(started.stderr)
    harmless(started.stdout)


def test_errors(pid: int, renamed: int, path: Path) -> None:
    assert "\\x1b]0;pwned" in harmless(gomem("trace", "--", path.parent / "none").refusal(127))
    message = harmless(gomem("snapshot", "--require-go", "--pid", renamed).refusal(1))
    assert message.count("\n") == 2
    if os.geteuid() != 0:
        absent("only root can become nobody")
    message = harmless(gomem("snapshot", "--pid", pid, under=NOBODY).refusal(77))
    assert "\\x1b" in message
    assert message.count("\n") == 2
    assert "Traceback" in harmless(debugged(pid))


def debugged(pid: int) -> str:
    """Return what --debug says of a refusal."""
    words = [*NOBODY, executable(), "--debug", "snapshot", "--pid", str(pid)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120).stderr


def test_a_tracer_that_is_in_the_way_is_named(renamed: int) -> None:
    strace = program("strace", "strace")
    with running(sys.executable, "-c", RENAMED, COMM) as target:
        assert target.stdout is not None
        target.stdout.readline()
        with running(strace, "-o", "/dev/null", "-p", target.pid) as tracer:
            traced = Path(f"/proc/{target.pid}/status")
            wait_until(lambda: f"TracerPid:\t{tracer.pid}" in traced.read_text(), "strace attaching")
            harmless(gomem("snapshot", "--freeze", "--pid", target.pid).refusal(1))


def test_the_log_of_serve(pid: int) -> None:
    with serving("--pid", pid, "--interval", "0.5") as served:
        served.until(lambda: served.followed(pid), "it is followed")
        assert harmless(served.log.read_text())
