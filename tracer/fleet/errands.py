"""What may have to wait for a file system, done one after the other in a thread that can be left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tracer.runner import MOST_STUCK, Runner

_Owner = TypeVar("_Owner")


@dataclass(slots=True, eq=False)
class Errand(Generic[_Owner]):
    """Work for `owner`; `error` is what it raised, when it is done."""

    owner: _Owner
    runner: Runner
    began: float  # time.monotonic()
    error: Exception | None = None
    done: bool = False
    was_stuck: bool = False
    idle: float = 0.0  # seconds that we have waited while its thread did nothing
    used: int = -1  # ns of CPU time of its thread, as of then


class Errands(Generic[_Owner]):
    """Runs errands. For one thread."""

    def __init__(self, name: str, patience: float) -> None:
        """`name` is that of the threads. `patience`: seconds without any use of the CPU after which one is stuck."""
        self.current: Errand[_Owner] | None = None
        self.stuck: list[Errand[_Owner]] = []
        self._name = name
        self._patience = patience
        self._runner: Runner | None = None

    @property
    def free(self) -> bool:
        """Whether another errand may begin."""
        return self.current is None and len(self.stuck) < MOST_STUCK

    def begin(self, owner: _Owner, work: Callable[[], None]) -> Errand[_Owner]:
        """Begin some work; only when `free`."""
        assert self.free
        runner = self._runner = self._runner or Runner(self._name)
        errand = self.current = Errand(owner, runner, time.monotonic())

        def run() -> None:
            try:
                work()
            except Exception as error:
                errand.error = error
            finally:
                errand.done = True

        runner.begin(run)
        return errand

    def wait(self, seconds: float) -> Errand[_Owner] | None:
        """Wait for what is under way, at most so long; return it if that made it stuck.

        Whoever computes is not stuck, however long that takes; nor is one that waits because all of us were stopped.
        """
        errand = self.current
        if errand is None:
            return None
        began = time.monotonic()
        if errand.runner.wait(seconds):
            return None
        used = errand.runner.cpu_time()
        waited = min(time.monotonic() - began, 2 * seconds)
        errand.idle = errand.idle + waited if used == errand.used and not errand.runner.runs else 0.0
        errand.used = used
        if errand.idle < self._patience:
            return None
        errand.was_stuck = True
        errand.runner.leave()
        self.stuck.append(errand)
        self.current = self._runner = None
        return errand

    def finished(self) -> list[Errand[_Owner]]:
        """Return what was done since this was asked last, also what was stuck."""
        done = [errand for errand in self.stuck if errand.done]
        self.stuck = [errand for errand in self.stuck if not errand.done]
        if self.current is not None and not self.current.runner.busy:
            done.append(self.current)
            self.current = None
        return done

    def close(self) -> None:
        """Let the threads end."""
        if self._runner is not None:
            self._runner.leave()
            if self.current is None:
                self._runner.join()
            self._runner = None
