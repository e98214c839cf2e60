"""One set of BPF programs and one ring buffer for any number of processes."""

from __future__ import annotations

import os
import resource
import select
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from bpf import uprobes
from bpf.governor import DEFAULT_BUDGET, OF_USED, GovernedUprobes, used_apart
from bpf.program import target_ids
from bpf.shared_program import ADDRESSED, MAX_UPROBES, PartOfOne, SharedProgram
from bpf.shared_target import SharedTarget
from bpf.uprobes import SkippedUprobe, UprobeSpec
from tracer.errors import BackendUnavailable, GomemError, NotPermitted, TargetGone
from tracer.events import EventBatch, ProbeStatus

RING_BYTES = 4 << 20
BUDGET = 10_000  # events a second of one target; a Go heap that grows fast makes some thousands
_RECORD_BYTES = 8 + ADDRESSED.itemsize
_MOST_UNREAD = 1 << 17  # events of all targets that wait to be polled
_MOST_DESCRIPTORS = 1 << 16
_CLOSERS = 16  # threads, which mostly wait
NEEDS_PTRACE = "needs CAP_SYS_PTRACE in the target's user namespace"


class SharedSource:
    """Delivers the events of many processes, which come and go while it runs.

    A process costs three or four descriptors: a pidfd, and links for the uprobes in each of its files, one of its own
    for that of role used. It sees what BpfSource does, in the same records. One thread polls; any may add and remove.
    """

    def __init__(
        self,
        ring_bytes: int = RING_BYTES,
        budget: int = BUDGET,
        tells_last: bool | None = None,
        single_calls: bool | None = None,
        used_budget: float = DEFAULT_BUDGET * OF_USED,
    ) -> None:
        """`budget`: events a second, above which a target is paused until `SharedTarget.resume`.

        `used_budget`: share of a target's time that its probe of role used may take (see `SharedTarget.govern`).
        For `tells_last` and `single_calls` see SharedProgram.attach_tracepoints.
        """
        if ring_bytes < 4096 or ring_bytes & (ring_bytes - 1):
            raise ValueError(f"the ring buffer's size must be a power of two of at least 4096, not {ring_bytes}")
        self.budget = budget
        self._ring_bytes = ring_bytes
        self._tells_last = tells_last
        self._single_calls = single_calls
        self._used_budget = used_budget
        self._program: SharedProgram | None = None
        self._targets: dict[int, SharedTarget] = {}
        self._by_id: dict[int, SharedTarget] = {}
        self._slots: dict[int, int] = {}  # by pid
        self._by_pidfd: dict[int, SharedTarget] = {}
        self._lost_before = 0  # by targets that were removed
        self._lock = threading.RLock()
        self._epoll: select.epoll | None = None
        self._closer = _Closer()

    def start(self) -> None:
        """Compile, load and attach. Raises BackendUnavailable or NotPermitted."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        _allow_descriptors()
        wake_every = 1 << max(self._ring_bytes // _RECORD_BYTES // 8 // (os.cpu_count() or 1), 1).bit_length() - 1
        program = self._program = SharedProgram(self._ring_bytes, wake_every)
        program.attach_tracepoints(self._tells_last, self._single_calls)
        self._epoll = select.epoll()
        # Edge-triggered: the programs wake us when much has come, and waiting data alone shall not.
        self._epoll.register(program.ring_fd, select.EPOLLIN | select.EPOLLET)

    def add(self, pid: int, specs: Sequence[UprobeSpec] = (), budget: int | None = None) -> list[SkippedUprobe]:
        """Deliver the events of a process from now on; return the uprobes that the kernel refused.

        Raises TargetGone, BackendUnavailable (too many targets, or no uprobe could be attached), NotPermitted, and
        ValueError for a process that is there already. None of them changes anything.
        """
        if len(specs) > MAX_UPROBES:
            raise ValueError(f"at most {MAX_UPROBES} uprobes in one of many targets, not {len(specs)}")
        target = self._enter(pid, self.budget if budget is None else budget)
        try:
            if specs:
                self._attach(target, specs)
            if target.is_gone():
                raise TargetGone(f"process {pid} has exited")
        except BaseException:
            self.remove(pid)
            raise
        return target.skipped

    def _enter(self, pid: int, budget: int) -> SharedTarget:
        with self._lock:
            program, epoll = self._program, self._epoll
            if program is None or epoll is None:
                raise ValueError("the source has not started")
            if pid in self._targets:
                if not self._targets[pid].is_gone():
                    raise ValueError(f"process {pid} is followed already")
                self.remove(pid)
            try:
                return self._entered(program, epoll, pid, budget)
            except (ProcessLookupError, FileNotFoundError) as error:
                raise TargetGone(f"process {pid} is gone") from error
            except PermissionError as error:
                raise NotPermitted(f"process {pid} cannot be followed: {error.strerror}", NEEDS_PTRACE) from error
            except OSError as error:
                what = f"process {pid} cannot be followed: {error.strerror}"
                raise BackendUnavailable(what, "allow more open files: ulimit -n, LimitNOFILE=") from error

    def _entered(self, program: SharedProgram, epoll: select.epoll, pid: int, budget: int) -> SharedTarget:
        pidfd = os.pidfd_open(pid)
        try:
            ids = target_ids(pid)
            epoll.register(pidfd, select.EPOLLIN | select.EPOLLET)
            slot = program.enter(ids, budget)
        except BaseException:
            os.close(pidfd)
            raise
        target = SharedTarget(
            pid, pidfd, ids, self._lock, lambda: program.row(slot), self._gather, self._remove
        )
        self._targets[pid], self._slots[pid], self._by_pidfd[pidfd] = target, slot, target
        self._by_id[int(target.row["id"])] = target
        return target

    def _attach(self, target: SharedTarget, specs: Sequence[UprobeSpec]) -> None:
        program = self._program
        assert program is not None
        others, used = used_apart(specs, self._used_budget, self._closer.close)
        target.specs = (*others, *(used.specs if used is not None else ()))
        try:
            held, skipped = program.attach(others, target.pid)
        except GomemError:
            if target.is_gone():
                raise TargetGone(f"process {target.pid} has exited") from None
            raise
        if used is not None:
            used.start(PartOfOne(program, lambda: target.row), target.pid, program.backend, len(others))
            skipped += used.refused
        self._hold(target, held, skipped, used)
        if not held and not (used is not None and used.attached) and not target.is_gone():
            raise uprobes.unavailable(skipped)

    def _hold(
        self, target: SharedTarget, held: list[int], skipped: list[SkippedUprobe], used: GovernedUprobes | None = None
    ) -> None:
        """Keep uprobes attached until the target is removed, which it may have been while they were."""
        with self._lock:
            there = self._targets.get(target.pid) is target
            if there:
                target.held += held
                target.skipped += skipped
                if used is not None:
                    target.begin_used(used)
        if held and not there:
            self._closer.close(held)
        if used is not None and not there:
            used.stop()

    def add_uprobes(self, pid: int, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Put more uprobes on a process that was added, and return those that were refused; they go when it is removed.

        One of the role and the function of an earlier one, in another file, counts its hits with it. Raises
        NotPermitted.
        """
        with self._lock:
            program, target = self._program, self._targets.get(pid)
            if program is None or target is None:
                return [SkippedUprobe(spec, "the process is not followed any more") for spec in specs]
            cookies, skipped = target.number(specs)
        held, refused = program.attach(list(cookies), pid, cookies)
        self._hold(target, held, refused)
        return skipped + refused

    def remove(self, pid: int) -> None:
        """Follow a process no longer. Idempotent; its uprobes are gone soon after."""
        with self._lock:
            target = self._targets.get(pid)
        if target is not None:
            self._remove(target)

    def _remove(self, target: SharedTarget) -> None:
        with self._lock:
            program, epoll = self._program, self._epoll
            if program is None or epoll is None or self._targets.get(target.pid) is not target:
                return
            slot = self._slots.pop(target.pid)
            program.forget(slot)
            self._take(program)
            target.freeze()
            program.release(slot)
            self._lost_before += target.lost
            del self._targets[target.pid], self._by_pidfd[target.pidfd], self._by_id[int(target.row["id"])]
            epoll.unregister(target.pidfd)
        self._closer.close(target.surrender())

    def target(self, pid: int) -> SharedTarget:
        """Return what is known of a process that was added. Raises KeyError for others."""
        return self._targets[pid]

    def find(self, pid: int) -> SharedTarget | None:
        """Return what is known of a process, None if it was not added."""
        return self._targets.get(pid)

    @property
    def pids(self) -> list[int]:
        """The processes that were added and not removed."""
        return list(self._targets)

    def poll(self, timeout: float) -> dict[int, EventBatch]:
        """Return the events of each process that had some, sorted by time.

        Waits for `timeout` seconds, shorter only if the ring buffer fills, or a process executes, ends, or maps code.
        The last event of a process that has ended is its EXIT, always; it stays among the targets until it is removed.
        After `stop`, returns what was still buffered.
        """
        with self._lock:
            waiting = any(target.unread for target in self._targets.values())
        self._gather(0 if waiting else timeout)
        with self._lock:
            return {pid: target.take() for pid, target in self._targets.items() if target.unread}

    def _gather(self, timeout: float) -> None:
        """Wait, and give all events of the ring buffer to their targets."""
        epoll = self._epoll
        if epoll is None:
            return
        ready = epoll.poll(timeout)
        with self._lock:
            if self._program is None:
                return
            for fd, _ in ready:
                target = self._by_pidfd.get(fd)  # by now perhaps one that was added after the one that ended
                if target is not None and target.is_gone():
                    self._program.forget(self._slots[target.pid])
            self._take(self._program)

    def _take(self, program: SharedProgram) -> None:
        room = _MOST_UNREAD - sum(target.unread for target in self._targets.values())
        for number, events in divided(program.ring.take()):
            target = self._by_id.get(number)
            if target is None:
                continue
            if len(events) > room:
                target.dropped += len(events)
                continue
            target.accept(events)
            room -= len(events)
        now = time.monotonic_ns()
        for target in self._targets.values():
            target.settle(now)

    def lost(self, pid: int) -> int:
        """Return how many events of a process are missing, those over its budget included."""
        return self._targets[pid].lost

    @property
    def lost_total(self) -> int:
        """How many events of all processes ever added are missing."""
        with self._lock:
            return self._lost_before + sum(target.lost for target in self._targets.values())

    def probes(self, pid: int) -> list[ProbeStatus]:
        """Return a process's syscalls and placed uprobes with their hits, also of events that were lost."""
        return self._targets[pid].probes()

    def stop(self) -> None:
        """Detach everything and free the kernel's memory; keep what was not polled yet. Idempotent.

        Not while another thread polls.
        """
        with self._lock:
            program, self._program = self._program, None
            epoll, self._epoll = self._epoll, None
            targets = list(self._targets.values())
            if program is not None:
                for slot in self._slots.values():
                    program.forget(slot)  # at once, while detaching takes long enough for the ring buffer to fill
        if epoll is not None:
            epoll.close()
        if program is not None:
            program.detach_tracepoints()
        for target in targets:
            self._closer.close(target.surrender_links())
        self._closer.finish()
        for target in targets:
            target.is_gone()
            uprobes.close_all(target.surrender())
        if program is None:
            return
        with self._lock:
            self._take(program)
            for target in targets:
                target.freeze()
        program.close()


def divided(records: EventBatch) -> Iterator[tuple[int, EventBatch]]:
    """Yield the events of each target in records of dtype ADDRESSED, sorted by time."""
    if not len(records):
        return
    order = np.lexsort((records["event"]["time"], records["target"]))
    numbers, events = records["target"][order], records["event"][order]
    starts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(numbers)]
    for start, end in pairwise(starts):
        # A copy: whoever keeps a few events for long must not keep everybody's with them.
        yield int(numbers[start]), events[start:end].copy()


def _allow_descriptors() -> None:
    """Raise the soft limit of open descriptors to the hard one: processes are often started with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Closer:
    """Closes descriptors in threads of its own: taking uprobes off waits for the kernel's grace periods."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def close(self, descriptors: list[int]) -> None:
        """Close them soon."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_CLOSERS, thread_name_prefix="closer")
        self._threads.submit(uprobes.close_all, descriptors)

    def finish(self) -> None:
        """Wait until all are closed."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
