"""Processes that tests look at from outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# How many times as long as usual tests wait for what should come: in machines that are interpreted all takes longer.
PATIENCE = float(os.environ.get("GOMEM_TEST_PATIENCE", "1"))


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends; the block begins when it has executed it."""
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll `condition`; raise TimeoutError if it does not come true: the limit is for what never will."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds * PATIENCE} s")
        time.sleep(0.02)


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that does nothing until the block ends; the block begins when it has begun to do nothing."""
    with running("sleep", "1000") as process:
        wait_until(lambda: state(process.pid) == "S" and _waits_in_nanosleep(process.pid), "the sleep")
        yield process


def rss(pid: int) -> int:
    """Return Rss of smaps_rollup in bytes."""
    return _kilobytes(f"/proc/{pid}/smaps_rollup", "Rss:")


def vm_size(pid: int) -> int:
    """Return VmSize in bytes."""
    return _kilobytes(f"/proc/{pid}/status", "VmSize:")


def state(pid: int) -> str:
    """Return the letter of the process's state, e.g. S or Z."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def start_ticks(pid: int) -> int:
    """Return field 22 of /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def without_capabilities() -> Sequence[str]:
    """Return the words that run a command as this user with no capability left, also as root."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"]


def _waits_in_nanosleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("35", "230")  # nanosleep, clock_nanosleep


def _kilobytes(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{path} has no {name}")
