"""The BPF event source: what a process asks of the kernel's memory, and what its Go runtime does."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection, Sequence
from math import inf

import numpy as np

from bpf import syscalls, uprobes
from bpf.call_tracepoints import MemoryCalls, refused_tracepoint
from bpf.governor import GovernedUprobes
from bpf.operands import pack_operands
from bpf.program import SYSCALLS, Counter, Program, TargetIds, target_ids
from bpf.residency import Residency
from bpf.ringbuf import RECORD_BYTES, RingBuffer
from bpf.thread_numbers import ThreadNumbers
from bpf.uprobes import Backend, SkippedUprobe, UprobeSpec
from tracer.errors import BackendUnavailable, TargetGone
from tracer.events import EventBatch, Kind, ProbeStatus, no_events
from tracer.optional_roles import OptionalRole
from tracer.report import Limit

RING_BYTES = 16 << 20  # 77,000 events: what a busy target makes while a look is taken
# Raw tracepoints: no tracefs, no CAP_SYS_ADMIN, and they detach without the wait that each perf event costs.
_TRACEPOINTS = (("sched_process_exec", "on_exec"), ("sched_process_exit", "on_exit"))


class BpfSource:
    """Implements tracer.events.EventSource with BPF programs on raw tracepoints and uprobes.

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
        residency: Collection[OptionalRole] = frozenset(),
    ) -> None:
        if ring_bytes < 4096 or ring_bytes & (ring_bytes - 1):
            raise ValueError(f"the ring buffer's size must be a power of two of at least 4096, not {ring_bytes}")
        self.pid = pid
        self.lost = 0
        self.skipped: list[SkippedUprobe] = []  # uprobes that the kernel refused, known after start
        self.uprobe_backend: Backend = uprobe_backend  # after start: the one in use
        self._specs = tuple(uprobes)
        self.governed = tuple(governed)
        self.missing: list[Limit] = []  # of the roles in `residency`, known after start
        self._residency_roles = residency
        self._residency: Residency | None = None
        self._execs = 0
        self._ring_bytes = ring_bytes
        self._ids = TargetIds(pid)
        self._program: Program | None = None
        self._ring: RingBuffer | None = None
        self._held: list[int] = []
        self._uprobe_fd = -1
        self._added: list[UprobeSpec] = []
        self._calls: MemoryCalls | None = None
        self._pidfd = -1
        self._exit: EventBatch = no_events()
        self._rest: list[EventBatch] = []
        self._hits: list[ProbeStatus] = []
        self._threads = ThreadNumbers(pid)

    def start(self) -> None:
        """Compile, load and attach. Raises BackendUnavailable, NotPermitted or TargetGone."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError as error:
            raise TargetGone(f"process {self.pid} is gone") from error
        self._ids = target_ids(self.pid)
        records = self._ring_bytes // RECORD_BYTES
        wake_every = 1 << max(records // 8 // (os.cpu_count() or 1), 1).bit_length() - 1
        specs = [*self._specs, *(spec for governed in self.governed for spec in governed.specs)]
        operands = any(spec.operands for spec in specs)
        self._program = Program(self._ids, self._ring_bytes, wake_every, operands=operands)
        self._ring = RingBuffer(self._program.ring_fd(), self._ring_bytes)
        self._ring.wake_also(self._pidfd)
        self._attach_tracepoints(self._program)
        if self._process_is_gone():  # before its exit could be seen; from here on it is
            raise TargetGone(f"process {self.pid} has exited")
        if self._specs:
            self._attach_uprobes(self._program)
        self._start_governed(self._program)
        self._program.forget_compiler()
        if self._residency_roles:
            self._residency = Residency(self.pid, self._ids, self._residency_roles)
            self.missing = self._residency.missing

    def _attach_tracepoints(self, program: Program) -> None:
        for name, function in _TRACEPOINTS:
            try:
                self._held.append(syscalls.open_raw_tracepoint(program.tracepoint(function), name))
            except OSError as error:
                raise refused_tracepoint(name, error) from error
        self._calls = MemoryCalls(program)

    def _start_governed(self, program: Program) -> None:
        if self.governed and self.uprobe_backend == "auto":
            self.uprobe_backend = "multi" if _multi_program(program, required=False) is not None else "perf"
        first = len(self._specs)
        for governed in self.governed:
            governed.start(program, self.pid, self.uprobe_backend, first)
            first += len(governed.specs)

    def _attach_uprobes(self, program: Program) -> None:
        backend = self.uprobe_backend
        if backend != "perf":
            program_fd = _multi_program(program, required=backend == "multi")
            backend = "multi" if program_fd is not None else "perf"
        if backend == "perf":
            program_fd = program.uprobe("perf")
        assert program_fd is not None
        self._uprobe_fd = program_fd
        for index, spec in enumerate(self._specs):
            if spec.operands:
                program.set_operands(index, pack_operands(spec.operands, on=True))
        held, self.skipped = uprobes.attach(program_fd, self._specs, self.pid, backend)
        self._held += held
        self.uprobe_backend = backend
        if not held:
            raise uprobes.unavailable(self.skipped)

    def add_uprobes(self, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Put more uprobes on the target while it is watched; return those that were refused. Raises NotPermitted.

        Only after `start` was given some: those that come later are of the same kinds.
        """
        first = self._first_added() + len(self._added)
        room = uprobes.MAX_UPROBES - first if self._program is not None and self._uprobe_fd >= 0 else 0
        taken, rest = list(specs[:room]), specs[room:]
        if taken and self._program is not None:
            for index, spec in enumerate(taken, start=first):
                if spec.operands:
                    self._program.set_operands(index, pack_operands(spec.operands, on=True))
            cookies = {spec: uprobes.cookie(spec, index) for index, spec in enumerate(taken, start=first)}
            held, skipped = uprobes.attach(self._uprobe_fd, taken, self.pid, self.uprobe_backend, cookies)
            self._held += held
            self._added += taken
        else:
            skipped = []
        return [*skipped, *(SkippedUprobe(spec, "there are too many probes") for spec in rest)]

    def _first_added(self) -> int:
        return len(self._specs) + sum(len(governed.specs) for governed in self.governed)

    def poll(self, timeout: float) -> EventBatch:
        """Return the events of the last moments, sorted by time; see EventSource.poll.

        Waits for `timeout` seconds, shorter only if the ring buffer fills, or the target executes, ends, or maps code:
        each time that we wake, we take its caches' contents from whoever runs. Raises nothing when the target is gone:
        its EXIT is the last event.
        """
        deadline = time.monotonic() + timeout
        at_most = min((governed.manner.look_every for governed in self.governed), default=inf)
        while True:
            remaining = deadline - time.monotonic()
            if self._ring is not None and remaining > 0:
                self._ring.wait(min(remaining, at_most))
            batch = self._take()
            if len(batch) or remaining <= 0 or self._ring is None:
                return batch

    def _take(self) -> EventBatch:
        if self._ring is not None:
            if self._calls is not None:
                self._calls.leave_others_alone()
            if not self._process_is_gone():
                self._rest += [marks for governed in self.governed if len(marks := governed.tick())]
            self._rest.append(self._translated(self._ring.take()))
            self._take_residency(stop=False)
            self._read_losses()
        batch = np.concatenate(self._rest) if len(self._rest) > 1 else (self._rest or [no_events()])[0]
        self._rest = []
        if np.any(batch["time"][1:] < batch["time"][:-1]):
            batch = batch[np.argsort(batch["time"], kind="stable")]
        return self._settle_exit(batch)

    def _take_residency(self, *, stop: bool) -> None:
        """Put what is to be told of the residency behind what the ring has given just now."""
        if self._residency is None:
            return
        self._execs += int(np.count_nonzero(self._rest[-1]["kind"] == Kind.EXEC))
        take = self._residency.stop if stop else self._residency.take
        batch = take(self._execs, self._process_is_gone)
        if len(batch):
            self._rest.append(batch)

    def _settle_exit(self, batch: EventBatch) -> EventBatch:
        """Hold an EXIT back until the whole process is gone.

        The thread-group leader also "exits" when another thread calls execve, and may exit before
        the others do.
        """
        exits = batch["kind"] == Kind.EXIT
        if exits.any():
            self._exit = batch[exits][-1:].copy()
            batch = batch[~exits]
        if not len(self._exit):
            return batch
        if np.any((batch["kind"] == Kind.EXEC) & (batch["time"] >= self._exit["time"][0])):
            self._exit = no_events()
        elif self._process_is_gone():
            if len(batch):
                self._exit["time"] = max(self._exit["time"][0], batch["time"][-1])
            batch = np.concatenate([batch, self._exit])
            self._exit = no_events()
        return batch

    def _process_is_gone(self) -> bool:
        return self._pidfd < 0 or bool(select.select([self._pidfd], [], [], 0)[0])

    def _translated(self, batch: EventBatch) -> EventBatch:
        """Give threads of a nested PID namespace the tracer's numbers; 0 for one that is gone already."""
        if not self._ids.foreign or not len(batch):
            return batch
        self._threads.translate(batch)
        return batch

    def _read_losses(self) -> None:
        if self._program is not None:
            self.lost = self._program.counter(Counter.LOST_RING) + self._program.counter(Counter.LOST_PENDING)

    def stop(self) -> None:
        """Detach everything and free the kernel's memory; keep what was not polled yet. Idempotent."""
        if self._program is not None:
            self._program.silence()
        self._rest += [governed.stop() for governed in self.governed]
        uprobes.close_all(self._held)
        if self._calls is not None:
            self._calls.close()
            self._calls = None
        if self._ring is not None:
            self._rest.append(self._translated(self._ring.take()))
            self._take_residency(stop=True)
            self._read_losses()
            self._hits = self.probes()
            self._ring.close()
            self._ring = None
        if self._program is not None:
            self._program.close()
            self._program = None
        if self._pidfd >= 0:
            if not self._process_is_gone():
                self._settle_leader_exit()
            os.close(self._pidfd)
            self._pidfd = -1

    def _settle_leader_exit(self) -> None:
        """Forget the exit of a leader whose process lives on: nothing more will be known of it."""
        self._exit = no_events()
        self._rest = [batch[batch["kind"] != Kind.EXIT] for batch in self._rest]

    def probes(self) -> list[ProbeStatus]:
        """Return syscalls and placed uprobes with their hits, also of events that were lost."""
        program = self._program
        if program is None:
            return list(self._hits)
        refused = {skipped.spec for skipped in self.skipped}
        found = [
            ProbeStatus(name, f"sys_{name}", program.counter(Counter.SYSCALL_HITS + kind))
            for name, kind in SYSCALLS.items()
        ]
        for index, spec in enumerate(self._specs):
            if spec not in refused:
                found.append(ProbeStatus(spec.role, spec.symbol, program.counter(Counter.HITS + index)))
        for index, spec in enumerate(self._added, start=self._first_added()):
            found.append(ProbeStatus(spec.role, spec.symbol, program.counter(Counter.HITS + index)))
        for more in (*self.governed, self._residency):
            found += more.probes() if more is not None else []
        return found


def _multi_program(program: Program, required: bool) -> int | None:
    """Load the uprobe program for uprobe_multi links, or None where the kernel has none."""
    try:
        fd = program.uprobe("multi")
        if uprobes.multi_supported(fd):
            return fd
    except BackendUnavailable:
        if required:
            raise
    if required:
        raise BackendUnavailable("this kernel has no uprobe_multi links", "needs Linux 6.6; leave the choice to gomem")
    return None
