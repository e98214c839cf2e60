"""Programs that work as fast as they can and say how far they are: what tracers are measured on.

Each writes ten times a second a line of three numbers: nanoseconds since its start, units of work done, nanoseconds of
CPU time used. All three are taken by the program itself at one moment, so that a reader that comes late measures
nothing wrong.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.builds import built
from tests.support.processes import running

TARGETS = {
    "allocloop": "objects of 16 bytes, made as fast as possible",
    "httpserver": "requests over connections that are kept alive, with a load generator of its own",
    "scavenger": "bytes filled, dropped and given back by debug.FreeOSMemory in a loop",
    "scavenger-limit": "bytes filled under a memory limit that the scavenger has to keep",
}
_FIRST_LINES = 30.0  # seconds that no program needs to begin


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of a program: when it came here (time.monotonic), and what it says, in seconds and units of work."""

    arrived: float
    elapsed: float
    done: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Units of work per second of the program's own clock, and per second of CPU that it got."""

    by_clock: float
    by_cpu: float


class Ticker(threading.Thread):
    """Reads the lines of a running program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.ticks: list[Tick] = []

    def run(self) -> None:
        """Read until the process ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            elapsed, done, cpu = map(int, line.split())
            self.ticks.append(Tick(time.monotonic(), elapsed / 1e9, done, cpu / 1e9))

    def begun(self) -> None:
        """Wait until the program works."""
        deadline = time.monotonic() + _FIRST_LINES
        while not self.ticks or not self.ticks[-1].done:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"process {self.process.pid} does no work")
            time.sleep(0.02)

    def between(self, begin: float, end: float) -> tuple[Tick, Tick]:
        """Return the first and the last line of a time; the time is made longer until it has two.

        A tracer can keep the target from writing at all.
        """
        inside = [tick for tick in self.ticks if begin <= tick.arrived <= end]
        if len(inside) >= 2 and inside[-1].done > inside[0].done:
            return inside[0], inside[-1]
        before = [tick for tick in self.ticks if tick.arrived <= begin][-1]
        after = [tick for tick in self.ticks if tick.done > before.done]
        deadline = time.monotonic() + _FIRST_LINES
        while not after and time.monotonic() < deadline:
            time.sleep(0.05)
            after = [tick for tick in self.ticks if tick.done > before.done]
        if not after:
            raise SystemExit(f"process {self.process.pid} does no work any more")
        return before, after[0]

    def rate(self, begin: float, end: float) -> Rate:
        """Return what the program did between two moments."""
        first, last = self.between(begin, end)
        done = last.done - first.done
        return Rate(done / (last.elapsed - first.elapsed), done / max(last.cpu - first.cpu, 1e-6))


@dataclass(slots=True)
class Workload:
    """A running target, and the load generator that some need."""

    name: str
    path: Path
    target: Ticker
    load: Ticker | None = None
    processes: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Return the process to trace."""
        return self.target.process.pid


@contextmanager
def twins(name: str, release: str, flags: Sequence[str] = ()) -> Iterator[tuple[Workload, Workload]]:
    """Run one of TARGETS twice until the block ends, with a load generator each, and all of them on one CPU.

    `flags` are more of go build.

    There they take turns every few milliseconds, so whatever the machine does to one it does to the other as well. Each
    has an executable of its own: some tracers put their probes into all processes of a file.
    """
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})  # what begins now inherits it
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="gomem-overhead-")))
            first, second = (
                stack.enter_context(_workload(name, release, directory / one, flags)) for one in ("one", "other")
            )
            os.sched_setaffinity(0, cpus)
            stack.callback(_kill, first, second)
            yield first, second
    finally:
        os.sched_setaffinity(0, cpus)


def _kill(*workloads: Workload) -> None:
    """Let the CPU go at once. While one is waited for, the others would keep it from all that its end needs there.

    Linux 6.18 was seen to let nothing else run on such a CPU for minutes, kernel threads included.
    """
    for workload in workloads:
        for ticker in (workload.target, workload.load):
            if ticker is not None:
                ticker.process.kill()


@contextmanager
def _workload(name: str, release: str, path: Path, flags: Sequence[str]) -> Iterator[Workload]:
    """Run a program from a copy at `path`."""
    program, _, option = name.partition("-")
    original = built(program, release, extra_flags=flags)
    shutil.copy(original, path)
    with ExitStack() as stack:
        process = stack.enter_context(running(path, *([f"-{option}"] if option else [])))
        target = Ticker(process)
        made = Workload(name, path, target, processes=[process.pid])
        if program == "httpserver":
            assert process.stdout is not None
            address = process.stdout.readline().decode().strip()
            load = stack.enter_context(running(original, "-load", address))
            made.load = Ticker(load)
            made.load.start()
            made.processes.append(load.pid)
        target.start()
        target.begun()
        if made.load:
            made.load.begun()
        yield made
