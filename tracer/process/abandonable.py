"""Threads that can be abandoned.

The kernel may keep whoever looks at a file waiting for ever: its file system can be one that a program serves
(FUSE) and no longer answers, or a server that is gone (NFS). Then the thread that looks waits, and another one goes on
with the other processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MOST_STUCK = 16  # threads that wait for one purpose; with so many, nothing is begun until one is back


class AbandonableWorker(threading.Thread):
    """One thread that does one job after the other. All but `left` belongs to the thread that gives the jobs."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.left = False  # nobody waits for it any more
        self._changed = threading.Condition()
        self._job: Callable[[], None] | None = None
        self._busy = False

    def begin(self, job: Callable[[], None]) -> None:
        """Have it do a job; the one before is done."""
        with self._changed:
            self._job, self._busy = job, True
            self._changed.notify_all()
        if self.ident is None:
            self.start()

    @property
    def busy(self) -> bool:
        """Whether a job has begun that is not done yet."""
        return self._busy

    def wait(self, seconds: float) -> bool:
        """Wait until the job is done, at most so long; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, seconds)

    def cpu_time(self) -> int:
        """Return the ns of CPU time that it has used. Only while it is busy: the clock ends with the thread."""
        assert self.ident is not None
        return time.clock_gettime_ns(time.pthread_getcpuclockid(self.ident))

    @property
    def runs(self) -> bool:
        """Whether it runs, or would if a CPU were free. Only while it is busy."""
        try:
            with open(f"/proc/self/task/{self.native_id}/stat", "rb") as file:
                return file.read().rpartition(b") ")[2][:1] == b"R"
        except OSError:
            return False

    def leave(self) -> None:
        """Let it end when its job is done."""
        with self._changed:
            self.left = True
            self._changed.notify_all()

    def run(self) -> None:
        """Do the jobs, until nobody waits for it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._job is not None or self.left)
                job, self._job = self._job, None
            if job is None:
                return
            try:
                job()
            finally:
                del job  # and what it holds, while there is no other
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
