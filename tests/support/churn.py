"""Go programs that come, become others, crash and go, with a record of what each pid was.

All are copies under names of their own in one directory: a watcher that is told to follow that directory's programs
sees nobody else's, and whatever it says of a pid can be compared with the record.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.parked import ended
from tests.support.toolchains import goroot

# Starts so many processes a second that are no Go programs and end at once, until its standard input ends.
_SHORT_LIVED = """
import os, select, sys, time
rate, started, began = float(sys.argv[1]), 0, time.monotonic()
while not select.select([0], [], [], max(0.0, began + started / rate - time.monotonic()))[0]:
    os.posix_spawn("/bin/true", ["true"], os.environ)
    started += 1
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
print(started)
"""


@dataclass(frozen=True, slots=True)
class Program:
    """An executable of the crowd's, which no other program is a copy of."""

    path: Path
    go_version: str  # as runtime.Version() says it


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """What identifies a process: what a watcher says, "" where it knows nothing yet, or what was true."""

    pid: int
    process: str
    exe: str
    go_version: str


class Crowd:
    """Starts processes and remembers what they were. `end_all` ends them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lives = 0  # processes that were started and have ended, of crash loops and exec chains
        self._true: set[Label] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._living: set[subprocess.Popen[bytes]] = set()  # of loops
        self._steady: list[subprocess.Popen[bytes]] = []
        self._short: subprocess.Popen[bytes] | None = None

    def program(self, name: str, binary: Path, release: str) -> Program:
        """Return a copy of a program, built by a Go release, under a name of its own."""
        version = (goroot(release) / "VERSION").read_text().split()[0]
        return Program(Path(shutil.copy(binary, self.directory / name)), version)

    def steady(self, program: Program, *words: object) -> int:
        """Start a process that lives as long as the crowd, and return its pid."""
        # Some targets end when their standard input does.
        process = self._start([str(program.path), *map(str, words)], [program], subprocess.PIPE)
        self._steady.append(process)
        return process.pid

    def loop(self, stages: Sequence[Program], shortest: float, longest: float) -> None:
        """Let one process after the other live; they are builds of tests/targets/tiny.

        Each process executes one of `stages` after the other, every one for some time between `shortest` and
        `longest` seconds. Every second process is killed in its last stage instead of ending by itself.
        """
        thread = threading.Thread(target=self._loop, args=(stages, shortest, longest), daemon=True)
        self._threads.append(thread)
        thread.start()

    def short_lived(self, rate: float) -> None:
        """Let so many processes a second start and end at once that are no Go programs."""
        command = [sys.executable, "-S", "-c", _SHORT_LIVED, str(rate)]
        self._short = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end_churn(self) -> int:
        """End all but the steady ones; return how many short-lived processes there were."""
        self._stop.set()
        with self._lock:
            for process in self._living:
                process.kill()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self._short is None:
            return 0
        short, self._short = self._short, None
        return int(short.communicate()[0])

    def end_all(self) -> None:
        """End everything."""
        try:
            self.end_churn()
        finally:
            for process in self._steady:
                ended(process)

    def untrue(self, said: Iterable[Label]) -> list[Label]:
        """Return what of `said` has not been true of any process of the crowd: ask when the churn has ended."""
        with self._lock:
            known = {known for one in self._true for known in _as_it_becomes_known(one)}
        return sorted(one for one in said if one not in known)

    def missing(self, scrape: str) -> list[int]:
        """Return the steady processes that a scrape does not show as followed."""
        states = followed_in(scrape)
        return [process.pid for process in self._steady if process.pid not in states]

    def _start(
        self, command: Sequence[str], stages: Sequence[Program], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL)
        with self._lock:
            self._true.update(Label(process.pid, one.path.name, str(one.path), one.go_version) for one in stages)
        return process

    def _loop(self, stages: Sequence[Program], shortest: float, longest: float) -> None:
        times = random.Random(str(stages))
        while not self._stop.is_set():
            seconds = [times.uniform(shortest, longest) for _ in stages]
            killed = self.lives % 2 == 1
            process = self._start(_chain(stages, [*seconds[:-1], 3600.0 if killed else seconds[-1]]), stages)
            with self._lock:
                self._living.add(process)
            if killed:
                self._stop.wait(sum(seconds))
                process.kill()
            process.wait()
            with self._lock:
                self._living.remove(process)
                self.lives += 1


def _as_it_becomes_known(label: Label) -> Iterator[Label]:
    """Yield a label as a watcher may tell it: the executable and the release are read when it is looked at."""
    yield label
    yield replace(label, exe="", go_version="")


def _chain(stages: Sequence[Program], seconds: Sequence[float]) -> list[str]:
    """Return the command of a process that executes one program after the other."""
    words: list[str] = []
    for stage, hold in zip(reversed(stages), reversed(seconds), strict=True):
        following = ["-exec", words[0], "--", *words[1:]] if words else []
        words = [str(stage.path), "-hold", f"{hold:.3f}s", *following]
    return words


@contextmanager
def crowd(directory: Path) -> Iterator[Crowd]:
    """Have processes whose programs are in `directory` until the block ends."""
    made = Crowd(directory)
    try:
        yield made
    finally:
        made.end_all()


def labels_in(scrape: str) -> set[Label]:
    """Return who is there by the info metric of a scrape."""
    return {
        Label(int(found["pid"]), found["process"], found["exe"], found["go_version"])
        for found, _ in _samples(scrape, "gomem_process_info")
    }


def followed_in(scrape: str) -> set[int]:
    """Return the pids that a scrape shows as followed."""
    samples = _samples(scrape, "gomem_process_state")
    return {int(found["pid"]) for found, value in samples if found["state"] == "followed" and value == 1}


def pids_in(scrape: str) -> set[int]:
    """Return the pids that any series of a scrape has."""
    return {int(pid) for pid in set(re.findall(r'^gomem_[a-z_]+\{[^}]*?\bpid="(\d+)"', scrape, re.MULTILINE))}


def _samples(scrape: str, name: str) -> list[tuple[dict[str, str], float]]:
    lines = "".join(f"{line}\n" for line in scrape.splitlines() if line.startswith(name + "{"))
    return [
        (dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(lines)
        for sample in family.samples
    ]
