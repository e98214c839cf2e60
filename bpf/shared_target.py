"""One of the processes that a SharedSource follows."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Sequence

import numpy as np

from bpf import uprobes
from bpf.governor import GovernedUprobes
from bpf.program import SYSCALLS, Counter, TargetIds
from bpf.shared_program import MAX_UPROBES
from bpf.thread_numbers import ThreadNumbers
from bpf.uprobes import SkippedUprobe, UprobeSpec
from tracer.events import EVENT, EventBatch, Kind, ProbeStatus, no_events

_SYSCALL_PROBES = [(name, f"sys_{name}", Counter.SYSCALL_HITS + kind) for name, kind in SYSCALLS.items()]


class SharedTarget:
    """Implements tracer.events.EventSource for one process of a SharedSource, which creates it.

    It has started already. To stop it is to remove it from the source; what was not polled yet can be polled then.
    """

    name = "bpf"

    def __init__(
        self, pid: int, pidfd: int, ids: TargetIds, lock: threading.RLock, row: Callable[[], np.void],
        gather: Callable[[float], None], remove: Callable[[SharedTarget], None],
    ) -> None:  # fmt: skip
        """`row` returns the kernel's row of it, `gather` waits for events of all targets, `remove` ends one.

        `lock` is the source's.
        """
        self.pid = pid
        self.pidfd = pidfd
        self.gone = False  # the whole process has ended
        self.unread = 0  # events that wait to be polled
        self.held: list[int] = []  # what keeps its uprobes attached
        self.specs: tuple[UprobeSpec, ...] = ()
        self.used: GovernedUprobes | None = None  # the uprobes of role used, among `specs`
        self.skipped: list[SkippedUprobe] = []
        self.dropped = 0  # events for which there was no room here
        self._threads = ThreadNumbers(pid) if ids.foreign else None
        self._lock = lock
        self._row = row
        self._gather = gather
        self._remove = remove
        self._last_row: np.void | None = None
        self._queue: list[EventBatch] = []
        self._exit = no_events()
        self._ended = False

    @property
    def lost(self) -> int:
        """How many events are missing: no room in the kernel, or dropped because there were too many of them."""
        return self.no_room + self.over_budget

    @property
    def no_room(self) -> int:
        """How many events found no room in the ring buffer, among the calls under way, or here."""
        counters = self.row["counters"]
        return int(counters[Counter.LOST_RING]) + int(counters[Counter.LOST_PENDING]) + self.dropped

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
            row["used"] = 0
            row["paused"] = 0

    def pause(self) -> None:
        """Count what happens, and drop it, until `resume`."""
        if self._last_row is None:
            self._row()["paused"] = 1

    def give(self, budget: int) -> None:
        """Allow so many events a second from now on."""
        if self._last_row is None:
            self._row()["budget"] = budget

    def govern(self) -> None:
        """Put the probe of role used on or off, as its budget wants it; the next poll tells. Takes a while sometimes.

        In any thread, but one at a time.
        """
        if self.used is None or self._last_row is not None:
            return
        marks = self.used.tick()
        with self._lock:
            if self._last_row is None:
                self._tell(marks)
                return
        self.used.stop()  # it was removed meanwhile

    @property
    def row(self) -> np.void:
        """The kernel's row of this target (shared_program.TARGET), as it was last once it is removed."""
        return self._row() if self._last_row is None else self._last_row

    def freeze(self) -> None:
        """Keep the counters as they are now: the row will be another target's."""
        if self._last_row is None:
            self._last_row = self._row().copy()

    def number(self, specs: Sequence[UprobeSpec]) -> tuple[dict[UprobeSpec, int], list[SkippedUprobe]]:
        """Return the cookies of more uprobes, and those for which there is no counter left."""
        refused = {skipped.spec for skipped in self.skipped}
        numbers = {(spec.role, spec.symbol): n for n, spec in enumerate(self.specs) if spec not in refused}
        cookies: dict[UprobeSpec, int] = {}
        skipped = []
        for spec in specs:
            number = numbers.get((spec.role, spec.symbol), len(self.specs))
            if number == MAX_UPROBES:
                skipped.append(SkippedUprobe(spec, "there are too many probes"))
                continue
            if number == len(self.specs):
                self.specs += (spec,)
            cookies[spec] = uprobes.cookie(spec, number)
        return cookies, skipped

    def start(self) -> None:
        """Do nothing: it was started when it was added."""

    def stop(self) -> None:
        """Remove it from the source. Idempotent."""
        self._remove(self)

    def poll(self, timeout: float) -> EventBatch:
        """Return this target's events; those of the others wait for their own poll. See SharedSource.poll."""
        if not self.unread and not self._ended and self._last_row is None:
            self._gather(timeout)
        return self.take()

    def probes(self) -> list[ProbeStatus]:
        """Return syscalls and placed uprobes with their hits, also of events that were lost."""
        counters = self.row["counters"]
        refused = {skipped.spec for skipped in self.skipped}
        found = [ProbeStatus(name, symbol, int(counters[index])) for name, symbol, index in _SYSCALL_PROBES]
        for index, spec in enumerate(self.specs):
            if spec not in refused:
                found.append(ProbeStatus(spec.role, spec.symbol, int(counters[Counter.HITS + index])))
        return found

    def begin_used(self, used: GovernedUprobes) -> None:
        """Take over governed uprobes that have just been put on."""
        self.used = used
        with self._lock:
            self._tell(used.tick())

    def take(self) -> EventBatch:
        """Remove and return what waits to be polled, sorted by time."""
        with self._lock:
            batches, self._queue = self._queue, []
            self.unread = 0
        if not batches:
            return no_events()
        if len(batches) == 1:
            return batches[0]
        batch = np.concatenate(batches)
        if np.any(batch["time"][1:] < batch["time"][:-1]):
            batch = batch[np.argsort(batch["time"], kind="stable")]
        return batch

    def accept(self, batch: EventBatch) -> None:
        """Take events from the ring buffer, sorted by time. After the process's EXIT there are none."""
        if self._ended:
            return
        if self._threads is not None and len(batch):
            self._threads.translate(batch)
        self._put(self._without_exit(batch))

    def settle(self, now: int) -> None:
        """End with an EXIT, once, if the process is gone: the kernel's, or one of the time `now` if that was lost."""
        if self._ended or not self.gone:
            return
        if not len(self._exit):
            self._exit = np.zeros(1, EVENT)
            self._exit["time"], self._exit["tid"], self._exit["kind"] = now, self.pid, Kind.EXIT
        if self._queue:
            self._exit["time"] = max(self._exit["time"][0], *(batch["time"][-1] for batch in self._queue))
        self._put(self._exit)
        self._ended = True

    def surrender_links(self) -> list[int]:
        """Return the descriptors of its uprobes, once: whoever gets them closes them. Takes the governed ones off."""
        held, self.held = self.held, []
        if self.used is not None:
            self.used.stop()
        return held

    def surrender(self) -> list[int]:
        """Return all its descriptors, once."""
        held = self.surrender_links()
        if self.pidfd >= 0:
            held.append(self.pidfd)
            self.pidfd = -1
        return held

    def is_gone(self) -> bool:
        """Whether the whole process has ended, as of now."""
        if not self.gone and self.pidfd >= 0:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            self.gone = bool(poll.poll(0))
        return self.gone

    def _tell(self, marks: EventBatch) -> None:
        if not self._ended:
            self._put(marks)

    def _put(self, batch: EventBatch) -> None:
        if len(batch):
            self._queue.append(batch)
            self.unread += len(batch)

    def _without_exit(self, batch: EventBatch) -> EventBatch:
        """Hold an EXIT back until the whole process is gone: its leader also exits when another thread calls execve."""
        exits = batch["kind"] == Kind.EXIT
        if exits.any():
            self._exit = batch[exits][-1:]
            batch = batch[~exits]
        if len(self._exit) and np.any((batch["kind"] == Kind.EXEC) & (batch["time"] >= self._exit["time"][0])):
            self._exit = no_events()
        return batch
