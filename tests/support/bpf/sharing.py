"""What the live tests of the shared BPF source share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from gomem.bpf.governor import DEFAULT_BUDGET, SHARE_FOR_USED
from gomem.bpf.memory_calls import SeenBy
from gomem.bpf.shared_source import SharedSource
from gomem.tracer.events.record import USED_MARKS, EventBatch, EventKind, no_events

UNLIMITED = (1 << 32) - 1  # events a second


class Gathered:
    """The events of each process of a source, since its first poll; apart, when role used was watched for."""

    def __init__(self, source: SharedSource) -> None:
        self.source = source
        self._batches: dict[int, list[EventBatch]] = {}
        self._marks: dict[int, list[EventKind]] = {}

    def of(self, pid: int) -> EventBatch:
        """Return the events of one process, in the order in which they were delivered."""
        return np.concatenate(self._batches.get(pid, [no_events()]))

    def kinds(self, pid: int) -> list[EventKind]:
        """Return the kinds of the events of one process."""
        return [EventKind(kind) for kind in self.of(pid)["kind"]]

    def marks(self, pid: int) -> list[EventKind]:
        """Return the kinds of the marks of one process."""
        return self._marks.get(pid, [])

    def poll(self, timeout: float = 0.1) -> None:
        """Poll once."""
        for pid, batch in self.source.poll(timeout).items():
            assert (batch["time"][1:] >= batch["time"][:-1]).all()
            marks = np.isin(batch["kind"], USED_MARKS)
            self._marks.setdefault(pid, []).extend(EventKind(kind) for kind in batch["kind"][marks])
            self._batches.setdefault(pid, []).append(batch[~marks])

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        """Poll until `condition` comes true; raise TimeoutError if it does not."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds} s")
            self.poll()

    def until_exit(self, *pids: int) -> None:
        """Poll until each of the processes has ended."""
        self.until(lambda: all(EventKind.EXIT in self.of(pid)["kind"] for pid in pids), f"EXIT of {pids}")


@contextmanager
def sharing(
    ring_bytes: int = 16 << 20,
    budget: int = UNLIMITED,
    tells_last: bool | None = None,
    seen_by: SeenBy | None = None,
    share_for_used: float = DEFAULT_BUDGET * SHARE_FOR_USED,
) -> Iterator[SharedSource]:
    """Have a source until the block ends."""
    source = SharedSource(ring_bytes, budget, tells_last, seen_by, share_for_used)
    source.start()
    try:
        yield source
    finally:
        source.stop()
