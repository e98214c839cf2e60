"""Jobs that a file system may keep waiting for ever: one after the other, in a thread that can be abandoned."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gomem.tracer.process.abandonable import MOST_STUCK, AbandonableWorker

_MOST_STUCK_IN_ALL = 4 * MOST_STUCK

_Owner = TypeVar("_Owner")


@dataclass(slots=True, eq=False)
class Job(Generic[_Owner]):
    """Work for `owner`; `error` is what it raised, when it is done."""

    owner: _Owner
    worker: AbandonableWorker
    began: float  # time.monotonic()
    error: Exception | None = None
    done: bool = False
    was_stuck: bool = False
    idle: float = 0.0  # seconds that we have waited while its thread did nothing
    used: int = -1  # ns of CPU time of its thread, as of then


class Jobs(Generic[_Owner]):
    """Runs jobs. For one thread."""

    def __init__(self, name: str, patience: float) -> None:
        """`name` is that of the threads. `patience`: seconds without any use of the CPU after which one is stuck."""
        self.current: Job[_Owner] | None = None
        self.stuck: list[Job[_Owner]] = []
        self._name = name
        self._patience = patience
        self._worker: AbandonableWorker | None = None

    @property
    def free(self) -> bool:
        """Whether another job may begin."""
        return self.current is None and len(self.stuck) < _MOST_STUCK_IN_ALL

    @property
    def free_for_all(self) -> bool:
        """Whether a job may begin that might never end."""
        return self.current is None and len(self.stuck) < MOST_STUCK

    def begin(self, owner: _Owner, work: Callable[[], None]) -> Job[_Owner]:
        """Begin some work; only when `free`."""
        assert self.free
        worker = self._worker = self._worker or AbandonableWorker(self._name)
        job = self.current = Job(owner, worker, time.monotonic())

        def run() -> None:
            try:
                work()
            except Exception as error:
                job.error = error
            finally:
                job.done = True

        worker.begin(run)
        return job

    def wait(self, seconds: float) -> Job[_Owner] | None:
        """Wait for what is under way, at most so long; return it if that made it stuck.

        Whoever computes is not stuck, however long that takes; nor is one that waits because all of us were stopped.
        """
        job = self.current
        if job is None:
            return None
        began = time.monotonic()
        if job.worker.wait(seconds):
            return None
        used = job.worker.cpu_time()
        waited = min(time.monotonic() - began, 2 * seconds)
        job.idle = job.idle + waited if used == job.used and not job.worker.runs else 0.0
        job.used = used
        if job.idle < self._patience:
            return None
        job.was_stuck = True
        job.worker.leave()
        self.stuck.append(job)
        self.current = self._worker = None
        return job

    def finished(self) -> list[Job[_Owner]]:
        """Return what was done since this was asked last, also what was stuck."""
        done = [job for job in self.stuck if job.done]
        self.stuck = [job for job in self.stuck if not job.done]
        if self.current is not None and not self.current.worker.busy:
            done.append(self.current)
            self.current = None
        return done

    def close(self) -> None:
        """Let the threads end."""
        if self._worker is not None:
            self._worker.leave()
            if self.current is None:
                self._worker.join()
            self._worker = None
