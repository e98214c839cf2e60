"""One set of BPF programs and one ring buffer for any number of processes."""

from __future__ import annotations

import os
import resource
import select
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gomem.bpf.compat_watch import SUSPECTED_FOR
from gomem.bpf.governor import DEFAULT_BUDGET, SHARE_FOR_USED, GovernedUprobes, govern_used
from gomem.bpf.memory_calls import SeenBy
from gomem.bpf.probes import uprobes
from gomem.bpf.probes.uprobes import Backend
from gomem.bpf.program import Counter, ensure_pidfds, target_ids
from gomem.bpf.shared_program import ADDRESSED, MANY, Capacity, SharedProgram, TargetPrograms
from gomem.bpf.shared_target import SharedTarget
from gomem.bpf.target_probes import TargetProbes, wait_until_off
from gomem.tracer.errors import BackendUnavailable, GomemError, NotPermitted, TargetGone
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EventBatch
from gomem.tracer.machine.rights import remedy_for
from gomem.tracer.process.guardian import Guardian, Hold, appointed

RING_BYTES = 4 << 20
BUDGET = 10_000  # events a second of one target; a Go heap that grows fast makes some thousands
_RECORD_BYTES = 8 + ADDRESSED.itemsize
_MOST_UNREAD = 1 << 17  # events of all targets that wait to be polled
_MOST_DESCRIPTORS = 1 << 16
_LAST_PROBES = 3.0  # seconds that taking the last probes off may take before we end, on a machine that is busy


class SharedSource:
    """Delivers the events of many processes, which come and go while it runs.

    A process costs three or four descriptors: a pidfd, and links for the uprobes in each of its files, one of its own
    for that of role used. One thread polls; any may add and remove. For the source of one process see bpf/source.py.
    """

    def __init__(
        self,
        ring_bytes: int = RING_BYTES,
        budget: int = BUDGET,
        tells_last: bool | None = None,
        seen_by: SeenBy | None = None,
        share_for_used: float | None = DEFAULT_BUDGET * SHARE_FOR_USED,
        *,
        capacity: Capacity = MANY,
        backend: Backend = "auto",
    ) -> None:
        """`budget`: events a second, above which a target is paused until `SharedTarget.resume`.

        `share_for_used`: share of a target's time that its probe of role used may take (see `SharedTarget.govern`);
        None does not govern it. For `tells_last` and `seen_by` see Tracepoints, for the rest SharedProgram.
        """
        if ring_bytes < 4096 or ring_bytes & (ring_bytes - 1):
            raise ValueError(f"the ring buffer's size must be a power of two of at least 4096, not {ring_bytes}")
        self.budget = budget
        self.lock = threading.RLock()
        self.seen_by: SeenBy = "all calls"
        self._made_for = _MadeFor(ring_bytes, capacity, backend, tells_last, seen_by, share_for_used)
        self._program: SharedProgram | None = None
        self._targets: dict[int, SharedTarget] = {}
        self._by_id: dict[int, SharedTarget] = {}
        self._slots: dict[int, int] = {}  # by pid
        self._by_pidfd: dict[int, SharedTarget] = {}
        self._lost_before = 0  # by targets that were removed
        self._epoll: select.epoll | None = None
        self.guardian = appointed() or Guardian()  # who holds what keeps probes on

    def start(self) -> None:
        """Compile, load and attach. Raises BackendUnavailable or NotPermitted."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        ensure_pidfds()
        made_for = self._made_for
        if made_for.capacity.targets > 1:
            _allow_descriptors()
        self.guardian.start()  # so that it is there when the programs are compiled
        wake_every = 1 << max(made_for.ring_bytes // _RECORD_BYTES // 8 // (os.cpu_count() or 1), 1).bit_length() - 1
        program = self._program = SharedProgram(made_for.ring_bytes, wake_every, made_for.capacity, made_for.backend)
        program.attach_tracepoints(made_for.tells_last, made_for.seen_by)
        self.seen_by = program.calls.seen_by
        self._epoll = select.epoll()
        # Edge-triggered: the programs wake us when much has come, and waiting data alone shall not.
        self._epoll.register(program.ring_fd, select.EPOLLIN | select.EPOLLET)

    @property
    def backend(self) -> Backend:
        """The way in which uprobes are attached; after start never "auto"."""
        return self._made_for.backend if self._program is None else self._program.backend

    def add(
        self,
        pid: int,
        specs: Sequence[UprobeSpec] = (),
        budget: int | None = None,
        governed: Sequence[GovernedUprobes] = (),
        *,
        has_int_0x80: bool = False,
    ) -> list[SkippedUprobe]:
        """Deliver the events of a process from now on; return the uprobes that the kernel refused.

        `has_int_0x80`: its program may make 32-bit system calls; it is one of 32 bits, or has the instruction for it.
        Raises TargetGone, BackendUnavailable (too many targets, or no uprobe could be attached), NotPermitted, and
        ValueError for a process that is there already. None of them changes anything.
        """
        most = self._made_for.capacity.uprobes
        if len(specs) > most:
            raise ValueError(f"at most {most} uprobes in a target, not {len(specs)}")
        target = self._enter(pid, self.budget if budget is None else budget)
        self._expect_compat(target, has_int_0x80)
        try:
            if specs or governed:
                skipped = self._attach(target, specs, governed)
                if specs and skipped and not target.uprobes.attached and not target.is_gone():
                    raise uprobes.unavailable(skipped)
            if target.is_gone():
                raise TargetGone(f"process {pid} has exited")
        except BaseException:
            self.remove(pid)
            raise
        return [*target.uprobes.skipped, *(one for probes in target.uprobes.governed for one in probes.refused)]

    def _expect_compat(self, target: SharedTarget, has_int_0x80: bool) -> None:
        """Watch 32-bit calls all the time as long as there is a target with the instruction."""
        with self.lock:
            target.calls.has_int_0x80 = has_int_0x80
            self._expect_compat_as_is()
            target.calls.watched_since = time.monotonic()

    def _expect_compat_as_is(self) -> None:
        if self._program is not None:
            self._program.calls.expect_compat(any(one.calls.expected for one in self._targets.values()))

    def watch_closely(self, target: SharedTarget) -> None:
        """Watch 32-bit calls for a while: the target's memory has changed, and no event has told of that."""
        with self.lock:
            target.calls.suspected_until = time.monotonic() + SUSPECTED_FOR
            self._expect_compat_as_is()

    def _enter(self, pid: int, budget: int) -> SharedTarget:
        with self.lock:
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
                what = f"process {pid} cannot be followed: {error.strerror}"
                raise NotPermitted(what, remedy_for(pid, "ns/pid")) from error
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
        capacity = self._made_for.capacity
        probes = TargetProbes(capacity.uprobes, by_file=capacity.by_file)
        target = SharedTarget(pid, pidfd, ids, self, lambda: program.row(slot), probes)
        target.calls.told = program.calls.compat.told
        self._targets[pid], self._slots[pid], self._by_pidfd[pidfd] = target, slot, target
        self._by_id[int(target.row["id"])] = target
        return target

    def _attach(
        self, target: SharedTarget, specs: Sequence[UprobeSpec], governed: Sequence[GovernedUprobes]
    ) -> list[SkippedUprobe]:
        """Put the uprobes of a program on a target; return those that were refused, the governed ones included."""
        program = self._program
        assert program is not None
        if self._made_for.share_for_used is not None:
            specs, of_used = govern_used(specs, self._made_for.share_for_used)
            governed = [*governed, *([of_used] if of_used is not None else [])]
        cookies, numbered = target.uprobes.begin(specs, governed)
        held: Hold | None = None
        skipped: list[SkippedUprobe] = []
        if cookies:
            try:
                held, skipped = program.attach(self.guardian, list(cookies), target.pid, cookies)
            except GomemError:
                if target.is_gone():
                    raise TargetGone(f"process {target.pid} has exited") from None
                raise
        part = TargetPrograms(program, lambda: target.row)
        for one, first in numbered:
            one.start(part, target.pid, first, self.guardian)
        with self.lock:
            if self._hold(target, held, skipped):
                target.govern()
        return [*target.uprobes.skipped, *(refused for one in governed for refused in one.refused)]

    def _hold(self, target: SharedTarget, held: Hold | None, skipped: Sequence[SkippedUprobe]) -> bool:
        """Keep uprobes attached until the target is removed; return whether it is there still."""
        with self.lock:
            target.uprobes.hold(held, skipped)
            there = self._targets.get(target.pid) is target
        if not there:
            target.take_probes_off()
        return there

    def change_program(
        self, pid: int, specs: Sequence[UprobeSpec], governed: Sequence[GovernedUprobes] = (), seconds: float = 0.2,
        *, has_int_0x80: bool = False,
    ) -> None:  # fmt: skip
        """Take the uprobes off the program that a target ran before, and put others on the one that it runs now.

        Waits at most so many `seconds` for the former. What cannot be put on is in `SharedTarget.uprobes.skipped`.
        """
        with self.lock:
            target = self._targets.get(pid)
        if target is None:
            return
        self._expect_compat(target, has_int_0x80)
        _, leaving = target.uprobes.take_off()  # what its marks say is over with the program
        wait_until_off(leaving, seconds)
        self._attach(target, specs, governed)

    def add_uprobes(self, pid: int, specs: Sequence[UprobeSpec]) -> list[SkippedUprobe]:
        """Put more uprobes on a process that was added, and return those that were refused; they go when it is removed.

        Raises NotPermitted.
        """
        with self.lock:
            program, target = self._program, self._targets.get(pid)
            if program is None or target is None:
                return [SkippedUprobe(spec, "the process is not followed any more") for spec in specs]
            cookies, skipped = target.uprobes.number(specs)
        held, refused = program.attach(self.guardian, list(cookies), pid, cookies)
        self._hold(target, held, refused)
        return skipped + refused

    def remove(self, pid: int) -> None:
        """Follow a process no longer. Idempotent; its uprobes are gone soon after."""
        with self.lock:
            target = self._targets.get(pid)
        if target is not None:
            self.let_go(target)

    def let_go(self, target: SharedTarget) -> None:
        """Follow a target no longer. Idempotent."""
        with self.lock:
            program, epoll = self._program, self._epoll
            if program is None or epoll is None or self._targets.get(target.pid) is not target:
                return
            slot = self._slots.pop(target.pid)
            program.forget(slot)
            self._take(program)
            self._note_compat(program)
            target.freeze()
            program.release(slot)
            self._lost_before += target.lost
            del self._targets[target.pid], self._by_pidfd[target.pidfd], self._by_id[int(target.row["id"])]
            epoll.unregister(target.pidfd)
            if target.calls.expected:
                self._expect_compat_as_is()
        target.surrender()

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
        with self.lock:
            waiting = any(target.events.unread for target in self._targets.values())
        self.gather(0 if waiting else timeout)
        with self.lock:
            return {pid: target.events.take() for pid, target in self._targets.items() if target.events.unread}

    def gather(self, timeout: float) -> None:
        """Wait, and give all events of the ring buffer to their targets."""
        self.wait(timeout)
        self.collect()

    def wait(self, timeout: float) -> None:
        """Sleep until the kernel wakes us, at most `timeout` seconds; see which targets have ended.

        Shorter where `collect` has something to do before.
        """
        epoll = self._epoll
        if epoll is None:
            return
        program = self._program
        ready = epoll.poll(timeout if program is None else min(timeout, program.calls.due))
        with self.lock:
            if self._program is None:
                return
            for fd, _ in ready:
                target = self._by_pidfd.get(fd)  # by now perhaps one that was added after the one that ended
                if target is not None and target.is_gone():
                    self._program.forget(self._slots[target.pid])

    def collect(self) -> None:
        """Give all events of the ring buffer to their targets."""
        with self.lock:
            if self._program is not None:
                if self._program.calls.leave_others_alone():
                    self._expect_compat_as_is()  # from now on nobody may be suspected
                    self._note_compat(self._program)
                self.seen_by = self._program.calls.seen_by
                self._take(self._program)

    def _take(self, program: SharedProgram) -> None:
        room = _MOST_UNREAD - sum(target.events.unread for target in self._targets.values())
        for number, events in divided(program.ring.take()):
            target = self._by_id.get(number)
            if target is None:
                continue
            if len(events) > room:
                target.events.dropped += len(events)
                continue
            target.events.accept(events)
            room -= len(events)
        now = time.monotonic_ns()
        for target in self._targets.values():
            target.settle(now)

    def _note_compat(self, program: SharedProgram) -> None:
        """Let targets know what of their 32-bit calls was missed."""
        if program.counter(Counter.COMPAT_HITS):
            for target in self._targets.values():
                target.calls.note(target.row, program.calls.compat_unwatched)

    @property
    def lost_total(self) -> int:
        """How many events of all processes ever added are missing."""
        with self.lock:
            return self._lost_before + sum(target.lost for target in self._targets.values())

    def silence(self) -> None:
        """Let the programs tell nothing more, wherever they are attached.

        Detaching takes so long that a target could fill the ring buffer.
        """
        with self.lock:
            if self._program is not None:
                for slot in self._slots.values():
                    self._program.forget(slot)

    def stop(self, seconds: float = _LAST_PROBES) -> None:
        """Detach everything and free the kernel's memory; keep what was not polled yet. Idempotent.

        Not while another thread polls. Waits at most so many `seconds` until the uprobes are off.
        """
        self.silence()
        with self.lock:
            program, self._program = self._program, None
            epoll, self._epoll = self._epoll, None
            targets = list(self._targets.values())
        if epoll is not None:
            epoll.close()
        if program is not None:
            program.detach_tracepoints()
        wait_until_off([off for target in targets for off in target.take_probes_off()], seconds)
        if self.guardian is not appointed():
            self.guardian.close()
        for target in targets:
            target.is_gone()
            target.surrender()
        if program is None:
            return
        with self.lock:
            self._take(program)
            self._note_compat(program)
            for target in targets:
                target.freeze()
        program.close()


@dataclass(frozen=True, slots=True)
class _MadeFor:
    """What a source was asked for."""

    ring_bytes: int
    capacity: Capacity
    backend: Backend
    tells_last: bool | None
    seen_by: SeenBy | None
    share_for_used: float | None


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
