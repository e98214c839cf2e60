"""bpf/programs.c, compiled and loaded for many targets, and the table of targets that it shares with us.

The table is an array map that both sides have mapped: what the kernel counted for a target is read without a system
call, and a target is paused or resumed with one store.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bpf import syscalls, uprobes
from bpf.bcc_import import KPROBE, RAW_TRACEPOINT, TRACEPOINT
from bpf.call_tracepoints import CallTracepoints, refused_tracepoint
from bpf.loading import Wanted, load_in_child
from bpf.program import SOURCE, Counter, TargetIds, common_constants, offset_in, target_ids
from bpf.ringbuf import RingBuffer
from bpf.uprobes import SkippedUprobe, UprobeSpec
from tracer.errors import BackendUnavailable, GomemError
from tracer.events import EVENT

MAX_TARGETS = 1024
MAX_UPROBES = 64  # bpf/shared_targets.h: UPROBES
MAX_NAMESPACES = 32
_TGID_BITS = 24  # bpf/shared_targets.h: KEY_TGID_BITS

TARGET = np.dtype(
    [
        ("key", "<u4"),
        ("id", "<u4"),
        ("budget", "<u4"),  # events in a second
        ("paused", "<u4"),
        ("used", "<u4"),  # of the budget, since `window`
        ("leader_exited", "<u4"),
        ("window", "<u8"),  # CLOCK_MONOTONIC ns
        ("over_budget", "<u8"),
        ("counters", "<u8", (Counter.HITS + MAX_UPROBES,)),
    ]
)
ADDRESSED = np.dtype([("event", EVENT), ("target", "<u4"), ("unused", "<u4")])  # bpf/shared_targets.h: struct record

_TRACEPOINTS = {name: Wanted(name, RAW_TRACEPOINT) for name in ("on_exec", "on_exit", "on_sys_enter", "on_sys_exit")}
_EXIT_OF_GROUP = Wanted("on_exit_of_group", RAW_TRACEPOINT, required=False)
_CALL_BEGINS = Wanted("on_call_enter", TRACEPOINT, required=False)
_CALL_ENDS = Wanted("on_call_exit", TRACEPOINT, required=False)
_MULTI = Wanted("on_uprobe", KPROBE, syscalls.BPF_TRACE_UPROBE_MULTI, required=False)
_PERF = Wanted("on_uprobe", KPROBE)


class PartOfOne:
    """A SharedProgram as the governed uprobes of one target see it; implements bpf.governor.Probed."""

    def __init__(self, program: SharedProgram, row: Callable[[], np.void]) -> None:
        """`row` returns the target's row of the table."""
        self._fd = program.uprobe_fd
        self._row = row

    def uprobe(self, backend: Literal["multi", "perf"]) -> int:
        """Return the fd of the uprobe program, which is loaded for the SharedProgram's backend."""
        del backend
        return self._fd

    def span_uprobe(self, backend: Literal["multi", "perf"]) -> int:
        """Raise BackendUnavailable: programs for many targets are compiled without OPERANDS."""
        raise BackendUnavailable(f"span events of many processes ({backend})", "use gomem trace --with spans")

    def set_operands(self, index: int, packed: bytes) -> None:
        """Raise ValueError for the same reason."""
        raise ValueError(f"uprobe {index} of a shared program has no operands, not {packed!r}")

    def counter(self, index: int) -> int:
        """Return one of the target's counters, as it is just now."""
        return int(self._row()["counters"][index])


class SharedProgram:
    """The loaded programs and their maps. Raises what load_in_child does."""

    def __init__(self, ring_bytes: int, wake_every: int) -> None:
        constants = common_constants(ring_bytes, wake_every) | {
            "MANY_TARGETS": MAX_TARGETS,
            "TARGET_BYTES": TARGET.itemsize,
            "TARGET_COUNTERS_AT": offset_in(TARGET, "counters"),
        }
        own = target_ids(os.getpid())
        self._nested = own.inode is not None
        self._namespaces: list[TargetIds] = []
        self._members = [0] * MAX_NAMESPACES  # how many targets each has
        self._held: list[int] = []
        self._calls: CallTracepoints | None = None
        maps = ["events", "targets", "slots"]
        if self._nested:
            constants["PID_NAMESPACES"] = MAX_NAMESPACES
            maps.append("namespaces")
        wanted = [*_TRACEPOINTS.values(), _EXIT_OF_GROUP, _CALL_BEGINS, _CALL_ENDS, _MULTI, _PERF]
        self._loaded = load_in_child(SOURCE, constants, wanted, maps)
        try:
            self._map(ring_bytes)
            if self._nested:
                self._namespace_of(own)
        except BaseException:
            self._loaded.close()
            raise
        self._free = deque(range(MAX_TARGETS))  # first in, first out: a slot rests before it is used again
        self._last_id = 0
        self._multi = self._loaded.program(_MULTI)
        if self._multi is not None and not uprobes.multi_supported(self._multi):
            self._multi = None

    def _map(self, ring_bytes: int) -> None:
        """Map ring buffer and table. Raises OSError."""
        self.ring = RingBuffer(self._loaded.maps["events"], ring_bytes, ADDRESSED)
        size = -(-TARGET.itemsize * MAX_TARGETS // mmap.PAGESIZE) * mmap.PAGESIZE
        self._mapped = mmap.mmap(self._loaded.maps["targets"], size, mmap.MAP_SHARED)
        self._table: NDArray[np.void] = np.frombuffer(self._mapped, TARGET, MAX_TARGETS)

    @property
    def ring_fd(self) -> int:
        """The fd of the ring buffer."""
        return self._loaded.maps["events"]

    def attach_tracepoints(self, tells_last: bool | None = None, single_calls: bool | None = None) -> None:
        """Run the programs at their tracepoints. Raises NotPermitted or BackendUnavailable.

        `tells_last`: whether sched_process_exit says which thread is a process's last. `single_calls`: whether to use
        the tracepoints of single system calls, which cost the machine's other calls less. None: find out.
        """
        self._attach_raw("sched_process_exec", "on_exec")
        last = self._loaded.program(_EXIT_OF_GROUP) if tells_last is not False else None
        try:
            if last is not None:
                self._held.append(syscalls.open_raw_tracepoint(last, "sched_process_exit"))
        except OSError:
            last = None
        if last is None:
            self._attach_raw("sched_process_exit", "on_exit")
        begins, ends = self._loaded.program(_CALL_BEGINS), self._loaded.program(_CALL_ENDS)
        if single_calls is not False and begins is not None and ends is not None:
            with contextlib.suppress(OSError, GomemError):
                self._calls = CallTracepoints(begins, ends)
        if self._calls is None:
            # The exit comes first, or a call entered between the two would never be seen to end.
            self._attach_raw("sys_exit", "on_sys_exit")
            self._attach_raw("sys_enter", "on_sys_enter")

    @property
    def sees_single_calls(self) -> bool:
        """Whether the programs run at the tracepoints of single system calls, not at those of all."""
        return self._calls is not None

    def _attach_raw(self, name: str, function: str) -> None:
        program = self._loaded.programs[_TRACEPOINTS[function].label]
        try:
            self._held.append(syscalls.open_raw_tracepoint(program, name))
        except OSError as error:
            raise refused_tracepoint(name, error) from error

    def detach_tracepoints(self) -> None:
        """Run them no more. Idempotent."""
        uprobes.close_all(self._held)
        calls, self._calls = self._calls, None
        rest = calls.close() if calls is not None else None
        if rest is not None:
            rest.join()

    @property
    def backend(self) -> Literal["multi", "perf"]:
        """The way in which uprobes are attached."""
        return "perf" if self._multi is None else "multi"

    @property
    def uprobe_fd(self) -> int:
        """The fd of the program that runs at uprobes."""
        return self._loaded.programs[_PERF.label] if self._multi is None else self._multi

    def attach(
        self, specs: Sequence[UprobeSpec], pid: int, cookies: Mapping[UprobeSpec, int] | None = None
    ) -> tuple[list[int], list[SkippedUprobe]]:
        """Put uprobes on one process; see uprobes.attach."""
        return uprobes.attach(self.uprobe_fd, specs, pid, self.backend, cookies)

    def enter(self, ids: TargetIds, budget: int) -> int:
        """Make a process a target, with a budget of events a second; return its slot. Raises BackendUnavailable."""
        if not self._free:
            raise BackendUnavailable(f"{MAX_TARGETS} processes are followed already", "select fewer with a filter")
        namespace = self._namespace_of(ids)
        key = ids.tgid | namespace << _TGID_BITS
        slot = self._free.popleft()
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        row = np.zeros(1, TARGET)
        row["key"], row["id"], row["budget"] = key, self._last_id, budget
        self._table[slot] = row[0]
        try:
            syscalls.map_update(self._loaded.maps["slots"], key, struct.pack("<I", slot))
        except OSError:
            self._free.append(slot)
            raise
        if self._nested:
            self._members[namespace] += 1
        return slot

    def forget(self, slot: int) -> None:
        """Let the kernel find the process no more, so that another may have its id. The row stays readable."""
        with contextlib.suppress(FileNotFoundError):  # the kernel removed it when the process ended
            syscalls.map_delete(self._loaded.maps["slots"], int(self._table[slot]["key"]))

    def release(self, slot: int) -> None:
        """Let another target have the slot of one that was forgotten."""
        if self._nested:
            self._members[int(self._table[slot]["key"]) >> _TGID_BITS] -= 1
        self._free.append(slot)

    def row(self, slot: int) -> np.void:
        """Return the target's row of the table: what is read is what the kernel has just now."""
        row: np.void = self._table[slot]
        return row

    def _namespace_of(self, ids: TargetIds) -> int:
        if not self._nested:
            return 0
        for number, known in enumerate(self._namespaces):
            if (known.device, known.inode) == (ids.device, ids.inode):
                return number
        number = self._free_number()
        value = struct.pack("<QQ", ids.device, ids.inode)
        syscalls.map_update(self._loaded.maps["namespaces"], number, value)
        self._namespaces[number:] = [ids, *self._namespaces[number + 1 :]]
        return number

    def _free_number(self) -> int:
        """Return the number for another namespace: the next one, or that of one that has no targets any more.

        Not the first, which is our own. Nobody is found by the number of a namespace without targets.
        """
        if len(self._namespaces) < MAX_NAMESPACES:
            return len(self._namespaces)
        for number in range(1, MAX_NAMESPACES):
            if not self._members[number]:
                return number
        raise BackendUnavailable(
            f"processes in more than {MAX_NAMESPACES} PID namespaces at a time, with our own, cannot be told apart",
            "run gomem in the initial PID namespace: hostPID, docker run --pid=host",
        )

    def close(self) -> None:
        """Detach, and close maps and programs. A row that somebody still has keeps the table's memory."""
        self.detach_tracepoints()
        self.ring.close()
        self._loaded.close()
        del self._table
        with contextlib.suppress(BufferError):
            self._mapped.close()
