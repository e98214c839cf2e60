"""The events of one target, from the ring buffer until somebody polls them: in order, and with its EXIT at the end."""

from __future__ import annotations

import threading

import numpy as np

from gomem.bpf.thread_numbers import ThreadNumbers
from gomem.tracer.events.record import EVENT, EventBatch, EventKind, no_events


class TargetEvents:
    """What waits to be polled. One thread puts in, any may take out."""

    def __init__(self, pid: int, lock: threading.RLock, *, foreign: bool) -> None:
        """`foreign`: the kernel tells the thread numbers of another PID namespace."""
        self.unread = 0  # events that wait to be polled
        self.dropped = 0  # events for which there was no room here
        self.ended = False  # its EXIT was put in
        self._pid = pid
        self._lock = lock
        self._threads = ThreadNumbers(pid) if foreign else None
        self._queue: list[EventBatch] = []
        self._exit = no_events()

    def accept(self, batch: EventBatch) -> None:
        """Take events from the ring buffer, sorted by time. After the process's EXIT there are none."""
        if self.ended:
            return
        if self._threads is not None and len(batch):
            self._threads.translate(batch)
        self._put(self._without_exit(batch))

    def tell(self, marks: EventBatch) -> None:
        """Take events that we make ourselves; none after the process's EXIT."""
        if not self.ended:
            self._put(marks)

    def settle(self, now: int) -> None:
        """End with an EXIT, once, as the process is gone: the kernel's, or one of the time `now` if that was lost."""
        if self.ended:
            return
        if not len(self._exit):
            self._exit = np.zeros(1, EVENT)
            self._exit["time"], self._exit["tid"], self._exit["kind"] = now, self._pid, EventKind.EXIT
        if self._queue:
            self._exit["time"] = max(self._exit["time"][0], *(batch["time"][-1] for batch in self._queue))
        self._put(self._exit)
        self.ended = True

    def take(self) -> EventBatch:
        """Remove and return what waits to be polled, sorted by time."""
        with self._lock:
            batches, self._queue = self._queue, []
            self.unread = 0
        return in_order(batches)

    def _put(self, batch: EventBatch) -> None:
        if len(batch):
            self._queue.append(batch)
            self.unread += len(batch)

    def _without_exit(self, batch: EventBatch) -> EventBatch:
        """Hold an EXIT back until the whole process is gone: its leader also exits when another thread calls execve."""
        exits = batch["kind"] == EventKind.EXIT
        if exits.any():
            self._exit = batch[exits][-1:]
            batch = batch[~exits]
        if len(self._exit) and np.any((batch["kind"] == EventKind.EXEC) & (batch["time"] >= self._exit["time"][0])):
            self._exit = no_events()
        return batch


def in_order(batches: list[EventBatch]) -> EventBatch:
    """Return the events of some batches, sorted by time."""
    if len(batches) < 2:
        return batches[0] if batches else no_events()
    batch = np.concatenate(batches)
    if np.any(batch["time"][1:] < batch["time"][:-1]):
        batch = batch[np.argsort(batch["time"], kind="stable")]
    return batch
