"""The BPF event source of one process: what it asks of the kernel's memory, and what its Go runtime does."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from gomem.bpf.governor import GovernedUprobes
from gomem.bpf.memory_calls import SeenBy
from gomem.bpf.probes.uprobes import Backend
from gomem.bpf.program import ensure_pidfds, target_ids
from gomem.bpf.residency_roles import Residency
from gomem.bpf.shared_program import ONE
from gomem.bpf.shared_source import SharedSource
from gomem.bpf.shared_target import SharedTarget
from gomem.bpf.target_events import in_order
from gomem.tracer.errors import TargetGone
from gomem.tracer.events.optional_roles import RESIDENCY_ROLES, OptionalRole
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch, EventKind, no_events
from gomem.tracer.events.source import ProbeStatus
from gomem.tracer.process.guardian import Guardian
from gomem.tracer.report import Limit

_OTHER_PROBES = 0.2  # seconds; the target runs another program meanwhile, or the same one anew
_LAST_PROBES = 5.0  # seconds that taking the last probes off may take before we end, on a machine that is busy
_UNLIMITED = (1 << 32) - 1  # events a second
RING_BYTES = 16 << 20  # 76,000 events: what a busy target makes while a look is taken


class BpfSource:
    """Implements EventSource: a SharedSource of one, and the optional roles that only one can have.

    `pid` may be a child that has not called execve yet: the uprobes wait in the file that it will run. Syscalls of the
    target are seen whole: one under way when the source starts is not. process_madvise is
    seen when the target calls it; the kernel tells no tracepoint which process another caller's
    pidfd means, so advice given from outside shows only in the residency.
    """

    name = "bpf"

    def __init__(
        self,
        pid: int,
        uprobes: Sequence[UprobeSpec] = (),
        ring_bytes: int = RING_BYTES,
        uprobe_backend: Backend = "auto",
        governed: Sequence[GovernedUprobes] = (),
        optional: Collection[OptionalRole] = frozenset(),
        has_int_0x80: bool = False,
    ) -> None:
        """Begin nothing yet. For `has_int_0x80` see SharedSource.add.

        `optional`: the roles that are asked for. Without SPANS, none of the `governed` ones may be for span events, now
        or later: the program for them takes time to compile.
        """
        self.pid = pid
        self.lost = 0
        self._specs = tuple(uprobes)
        self._governed = tuple(governed)
        self._residency_roles = RESIDENCY_ROLES.intersection(optional)
        self._residency: Residency | None = None
        self._has_int_0x80 = has_int_0x80
        self._execs = 0
        capacity = replace(ONE, spans=OptionalRole.SPANS in optional)
        self._source = SharedSource(
            ring_bytes, _UNLIMITED, share_for_used=None, capacity=capacity, backend=uprobe_backend
        )
        self._target: SharedTarget | None = None
        self._stopped = False
        self._rest = no_events()  # what was not polled before it was stopped

    def start(self) -> None:
        """Compile, load and attach. Raises BackendUnavailable, NotPermitted or TargetGone."""
        ensure_pidfds()
        try:
            os.close(os.pidfd_open(self.pid))  # before the programs are compiled for nobody
        except ProcessLookupError as error:
            raise TargetGone(f"process {self.pid} is gone") from error
        self._source.start()
        try:
            self._source.add(self.pid, self._specs, governed=self._governed, has_int_0x80=self._has_int_0x80)
            self._target = self._source.target(self.pid)
            if self._residency_roles:
                ids = target_ids(self.pid)
                self._residency = Residency(self.pid, ids, self._residency_roles, self._source.guardian)
        except BaseException:
            self.stop()
            raise

    @property
    def seen_by(self) -> SeenBy:
        """What system calls are seen by just now."""
        return self._source.seen_by

    @property
    def keeper(self) -> Guardian:
        """Who holds what keeps probes on."""
        return self._source.guardian

    @property
    def skipped(self) -> list[SkippedUprobe]:
        """The uprobes that the kernel refused, others than the governed ones; known after start."""
        return self._target.uprobes.skipped if self._target is not None else []

    def change_program(
        self, specs: Sequence[UprobeSpec], governed: Sequence[GovernedUprobes] = (), *, has_int_0x80: bool = False
    ) -> None:
        """Take the uprobes off the program that the target ran before, and put others on the one that it runs now.

        System calls are seen all the time. What cannot be put on is in `skipped`, as after `start`.
        """
        self._source.change_program(self.pid, specs, governed, _OTHER_PROBES, has_int_0x80=has_int_0x80)

    def add_uprobes(self, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Put more uprobes on the target while it is watched; return those that were refused. Raises NotPermitted."""
        return self._source.add_uprobes(self.pid, specs)

    def watch_closely(self) -> None:
        """Look for 32-bit calls for some seconds (bpf/compat_watch.py)."""
        if self._target is not None:
            self._target.watch_closely()

    def limits(self) -> list[Limit]:
        """Return what is not seen: probes that the kernel refused, roles of the residency, 32-bit calls."""
        missing = self._residency.limits() if self._residency is not None else ()
        of_governed = self._target.limits() if self._target is not None else []
        return [*(skipped.limit() for skipped in self.skipped), *of_governed, *missing]

    def poll(self, timeout: float) -> EventBatch:
        """Return the events of the last moments, sorted by time; see EventSource.poll.

        Waits for `timeout` seconds, shorter only if the ring buffer fills, or the target executes, ends, or maps code:
        each time that we wake, we take its caches' contents from whoever runs. Raises nothing when the target is gone:
        its EXIT is the last event.
        """
        deadline = time.monotonic() + timeout
        while True:
            target = self._target
            if target is None or self._stopped:
                rest, self._rest = self._rest, no_events()
                return rest
            remaining = deadline - time.monotonic()
            if remaining > 0:
                at_most = min((governed.policy.look_every for governed in target.uprobes.governed), default=inf)
                self._source.wait(min(remaining, at_most))
            batch = self._take(target)
            if len(batch) or remaining <= 0:
                return batch

    def _take(self, target: SharedTarget) -> EventBatch:
        if not target.is_gone():
            target.govern()
        self._source.collect()
        return self._told(target, [], stop=False)

    def _told(self, target: SharedTarget, marks: list[EventBatch], *, stop: bool) -> EventBatch:
        """Return what there is to tell by now; an EXIT among it is the last."""
        self.lost = target.lost
        events = target.events.take()
        batches = [*marks, events]
        if self._residency is not None:
            self._execs += int(np.count_nonzero(events["kind"] == EventKind.EXEC))
            take = self._residency.stop if stop else self._residency.take
            batches.append(take(self._execs, target.is_gone))
        return exit_last(in_order([batch for batch in batches if len(batch)]))

    def stop(self) -> None:
        """Detach everything and free the kernel's memory; keep what was not polled yet. Idempotent."""
        self._source.silence()
        target = self._target
        marks = target.uprobes.stop_governed() if target is not None else []
        self._source.stop(_LAST_PROBES)
        if target is not None and not self._stopped:
            self._stopped = True
            self._rest = self._told(target, marks, stop=True)

    def probes(self) -> list[ProbeStatus]:
        """Return syscalls and placed uprobes with their hits, also of events that were lost."""
        found = self._target.probes() if self._target is not None else []
        return [*found, *(self._residency.probes() if self._residency is not None else ())]


def exit_last(batch: EventBatch) -> EventBatch:
    """Return events with an EXIT among them at the end."""
    is_exit = batch["kind"] == EventKind.EXIT
    if not is_exit.any() or is_exit[-1]:
        return batch
    last = batch[is_exit][-1:].copy()
    last["time"] = batch["time"][-1]
    return np.concatenate([batch[~is_exit], last])
