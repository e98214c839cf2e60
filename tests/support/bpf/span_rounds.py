"""The target of the tests of span events: it makes spans come and go when it is told to, and stands still otherwise."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.runtime.spans import IN_USE, MANUAL
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import build
from tests.support.parked import ended

# Of what: a span class, or "manual"; of that: spans and pages.
SpanTable = Counter[tuple[int | str, str]]


class Rounds:
    """A target that stands still between rounds. `figures`: HeapInuse, StackInuse, HeapReleased, NumGC of the last."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.figures: tuple[int, ...] = ()
        self._line = b""

    def round(self, meanwhile: Callable[[], object]) -> None:
        """Have one round made; `meanwhile` is called again and again until it stands still."""
        self.begin()
        self.wait(meanwhile)

    def begin(self) -> None:
        """Have one round made; who wants to know when asks `rests`."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def wait(self, meanwhile: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until it stands still."""
        deadline = time.monotonic() + seconds
        while not self.rests(0.02):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no round ended within {seconds} s")
            meanwhile()

    def rests(self, seconds: float = 0.0) -> bool:
        """Return whether it stands still (again), which it says once; wait for that at most so long."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return False
        part = os.read(self.process.stdout.fileno(), 4096)
        assert part, f"the target ended with status {self.process.wait()}"
        self._line += part
        if not self._line.endswith(b"\n"):
            return False
        self.figures, self._line = tuple(map(int, self._line.split())), b""
        return True

    def spans(self) -> SpanTable:
        """Return the spans that a snapshot shows, by span class."""
        with Target.open(self.pid) as target, Inspector.open(target) as inspector:
            runtime = inspector.look().runtime
            assert runtime is not None
            assert runtime.consistency.exact
            rows = (runtime.spans.state, runtime.spans.span_class, runtime.spans.pages)
        table: SpanTable = Counter()
        for state, span_class, pages in zip(*(row.tolist() for row in rows), strict=True):
            if state in (IN_USE, MANUAL):
                what = span_class if state == IN_USE else "manual"
                table[what, "spans"] += 1
                table[what, "pages"] += pages
        return table


@contextmanager
def rounds(release: str, *words: object, warm: bool = True, path: Path | None = None) -> Iterator[Rounds]:
    """Run the target until the block ends; the block begins when it stands still after its first round.

    With "-rounds" among the words it never stands still; when not `warm` it is about to stand still before any round.
    `path` is another build of it.
    """
    path = path or build("rounds", release)
    # Without asyncpreemptoff, sysmon signals the goroutine in its raw system call every 10 ms.
    process = subprocess.Popen(
        [str(path), *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        env={**os.environ, "GODEBUG": "asyncpreemptoff=1"},
    )  # fmt: skip
    try:
        target = Rounds(process)
        if warm and "-rounds" not in words:
            target.wait(lambda: None)
            target.round(lambda: None)
        yield target
    finally:
        ended(process)


@contextmanager
def program_of(pid: int) -> Iterator[GoProgram]:
    """Open what a process runs."""
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        yield inspector.program
