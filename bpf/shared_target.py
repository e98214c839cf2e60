"""One of the processes that a SharedSource follows."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from gomem.bpf.compat_watch import TargetCalls
from gomem.bpf.memory_calls import SeenBy
from gomem.bpf.program import Counter, TargetIds
from gomem.bpf.target_events import TargetEvents
from gomem.bpf.target_probes import TargetProbes
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.report import Limit


class Owner(Protocol):
    """The source of a target (bpf/shared_source.py)."""

    lock: threading.RLock
    seen_by: SeenBy  # what system calls are seen by

    def gather(self, timeout: float) -> None:
        """Wait for events of all targets, and give each its own."""

    def let_go(self, target: SharedTarget) -> None:
        """Follow it no longer."""

    def add_uprobes(self, pid: int, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Put more uprobes on a target."""

    def watch_closely(self, target: SharedTarget) -> None:
        """See for a while what is not seen all the time."""


class SharedTarget:
    """Implements EventSource for one process of a SharedSource, which creates it.

    It has started already. To stop it is to remove it from the source; what was not polled yet can be polled then.
    """

    name = "bpf"

    def __init__(
        self, pid: int, pidfd: int, ids: TargetIds, owner: Owner, row: Callable[[], np.void], probes: TargetProbes
    ) -> None:
        """`row` returns the kernel's row of it."""
        self.pid = pid
        self.pidfd = pidfd
        self.gone = False  # the whole process has ended
        self.events = TargetEvents(pid, owner.lock, foreign=ids.foreign)
        self.uprobes = probes
        self.calls = TargetCalls()
        self._owner = owner
        self._row = row
        self._last_row: np.void | None = None

    @property
    def lost(self) -> int:
        """How many events are missing: no room in the kernel, or dropped because there were too many of them."""
        return self.no_room + self.over_budget

    @property
    def no_room(self) -> int:
        """How many events found no room in the ring buffer, among the calls under way, or here."""
        counters = self.row["counters"]
        return int(counters[Counter.LOST_RING]) + int(counters[Counter.LOST_PENDING]) + self.events.dropped

    @property
    def over_budget(self) -> int:
        """How many events were counted and dropped while the target was paused."""
        return int(self.row["over_budget"])

    @property
    def paused(self) -> bool:
        """Whether the target went over its budget, so that its events are dropped until `resume`."""
        return bool(self.row["paused"])

    def resume(self) -> None:
        """Deliver again, with a fresh budget; what happened meanwhile is lost."""
        if self._last_row is None:
            row = self._row()
            row["spent"] = 0
            row["paused"] = 0

    def pause(self) -> None:
        """Count what happens, and drop it, until `resume`."""
        if self._last_row is None:
            self._row()["paused"] = 1

    def govern(self) -> None:
        """Put the governed probes on or off, as their budget wants it; the next poll tells. Takes a while sometimes.

        In any thread, but one at a time.
        """
        if not self.uprobes.governed or self._last_row is not None:
            return
        marks = self.uprobes.tick()
        with self._owner.lock:
            if self._last_row is None:
                for some in marks:
                    self.events.tell(some)
                return
        self.take_probes_off()  # it was removed meanwhile

    @property
    def row(self) -> np.void:
        """The kernel's row of this target (bpf/target_table.py: target_dtype), as it was last once it is removed."""
        return self._row() if self._last_row is None else self._last_row

    def freeze(self) -> None:
        """Keep the counters as they are now: the row will be another target's."""
        if self._last_row is None:
            self._last_row = self._row().copy()

    def start(self) -> None:
        """Do nothing: it was started when it was added."""

    def stop(self) -> None:
        """Remove it from the source. Idempotent."""
        self._owner.let_go(self)

    def poll(self, timeout: float) -> EventBatch:
        """Return this target's events; those of the others wait for their own poll. See SharedSource.poll."""
        if not self.events.unread and not self.events.ended and self._last_row is None:
            self._owner.gather(timeout)
        return self.events.take()

    def probes(self) -> list[ProbeStatus]:
        """Return syscalls and placed uprobes with their hits, also of events that were lost."""
        return self.uprobes.statuses(self.row["counters"], self._owner.seen_by)

    def add_uprobes(self, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Put more uprobes on it; see SharedSource.add_uprobes."""
        return self._owner.add_uprobes(self.pid, specs)

    def watch_closely(self) -> None:
        """Look for 32-bit calls for some seconds (bpf/compat_watch.py)."""
        if self._last_row is None:
            self._owner.watch_closely(self)

    def limits(self) -> list[Limit]:
        """Return what its governed probes and its 32-bit calls have not shown.

        What was refused at once SharedSource.add has returned.
        """
        return [*self.uprobes.limits(), *self.calls.limits()]

    def settle(self, now: int) -> None:
        """End with an EXIT, once, if the process is gone; see TargetEvents.settle."""
        if self.gone:
            self.events.settle(now)

    def take_probes_off(self) -> list[threading.Event]:
        """Let its uprobes be taken off, once; return what is set when they are, or have to wait for a debugger."""
        marks, leaving = self.uprobes.take_off()
        for some in marks:
            self.events.tell(some)
        return leaving

    def surrender(self) -> None:
        """Let go of all that it has. Idempotent."""
        self.take_probes_off()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def is_gone(self) -> bool:
        """Whether the whole process has ended, as of now."""
        if not self.gone and self.pidfd >= 0:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            self.gone = bool(poll.poll(0))
        return self.gone
