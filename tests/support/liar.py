"""A Go process that says untrue things of its own runtime: tests/targets/liar."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import build
from tests.support.discovery.fuse import executed_from_fuse
from tests.support.processes import running, wait_until
from tests.support.processes import state as process_state
from tests.support.requirements import absent


@dataclass
class Liar:
    """The running process, and what it can be told to do; all addresses and sizes in bytes."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def told(self, *words: object) -> int:
        """Let it obey a line, and return the number that it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def block(self, trap: int) -> None:
        """Let it hold its own mmap_lock until the file that is mapped at `trap` answers."""
        self.told("block", trap)
        wait_until(lambda: waits_for_its_map(self.pid), "a thread waits for the lock")

    @cached_property
    def all_spans(self) -> int:
        """Where the header of the slice mheap_.allspans lies."""
        with Target.open(self.pid) as target, Inspector.open(target) as inspector:
            inspector.prepare()
            layout = inspector.program.layout
            assert layout is not None
            assert inspector.bias is not None
            return inspector.program.globals["mheap_"] + inspector.bias + layout.offset("mheap", "allspans")

    def claim_spans(self, address: int, count: int) -> None:
        """Say that mheap_.allspans lies at `address` and has `count` elements."""
        self.told("words", self.all_spans, address, count, count)


def waits_for_its_map(pid: int) -> bool:
    """Tell whether a thread is in mmap, and does not come back."""
    found = False
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            found |= state == "D" and (task / "syscall").read_text().split()[0] == "9"
    return found


@contextmanager
def trap(program: Path) -> Iterator[tuple[int, str]]:
    """Mount a file system that is served by a process; gives its pid, and the path of a file in it for others.

    While that process is stopped, whoever reads the file waits; at the end of the block nobody does.
    """
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        absent("there is no /dev/fuse that we may open, or we may not mount")
    with executed_from_fuse(program, count=0) as (server,):
        mounts = Path(f"/proc/{server}/mountinfo").read_text()
        mounted = next(line.split()[4] for line in mounts.splitlines() if " - fuse " in line)
        yield server, f"/proc/{server}/root{mounted}/program"


@contextmanager
def silenced(server: int) -> Iterator[None]:
    """Stop a process that serves a file system until the block ends."""
    os.kill(server, signal.SIGSTOP)
    try:
        wait_until(lambda: process_state(server) == "T", "the server is stopped")
        yield
    finally:
        os.kill(server, signal.SIGCONT)


@contextmanager
def liar(release: str = "1.25.5") -> Iterator[Liar]:
    """Run one until the block ends."""
    with running(build("liar", release)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Liar(process)
