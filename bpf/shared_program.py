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

import numpy as np
from numpy.typing import NDArray

from bpf import syscalls, uprobes
from bpf.bcc_import import KPROBE, RAW_TRACEPOINT
from bpf.loading import Wanted, load_in_child
from bpf.program import SOURCE, Counter, TargetIds, common_constants, offset_in, target_ids
from bpf.ringbuf import RingBuffer
from bpf.uprobes import SkippedUprobe, UprobeSpec
from tracer.errors import BackendUnavailable
from tracer.events import EVENT

MAX_TARGETS = 1024
MAX_UPROBES = 64  # bpf/shared_targets.h: UPROBES
_MAX_NAMESPACES = 16
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
_MULTI = Wanted("on_uprobe", KPROBE, syscalls.BPF_TRACE_UPROBE_MULTI, required=False)
_PERF = Wanted("on_uprobe", KPROBE)


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
        maps = ["events", "targets", "slots"]
        if self._nested:
            constants["PID_NAMESPACES"] = _MAX_NAMESPACES
            maps.append("namespaces")
        wanted = [*_TRACEPOINTS.values(), _EXIT_OF_GROUP, _MULTI, _PERF]
        self._loaded = load_in_child(SOURCE, constants, wanted, maps)
        self.ring = RingBuffer(self._loaded.maps["events"], ring_bytes, ADDRESSED)
        size = -(-TARGET.itemsize * MAX_TARGETS // mmap.PAGESIZE) * mmap.PAGESIZE
        self._mapped = mmap.mmap(self._loaded.maps["targets"], size, mmap.MAP_SHARED)
        self._table: NDArray[np.void] = np.frombuffer(self._mapped, TARGET, MAX_TARGETS)
        self._free = deque(range(MAX_TARGETS))  # first in, first out: a slot rests before it is used again
        self._last_id = 0
        self._multi = self._loaded.program(_MULTI)
        if self._multi is not None and not uprobes.multi_supported(self._multi):
            self._multi = None
        if self._nested:
            self._namespace_of(own)

    @property
    def ring_fd(self) -> int:
        """The fd of the ring buffer."""
        return self._loaded.maps["events"]

    def open_tracepoints(self, tells_last: bool | None = None) -> list[int]:
        """Run the programs at their raw tracepoints; return the fds that keep them there. Raises OSError.

        `tells_last`: whether sched_process_exit says which thread is a process's last; None: find out.
        The exit of system calls comes first, or a call entered between the two would never be seen to end.
        """
        held: list[int] = []
        last = self._loaded.program(_EXIT_OF_GROUP) if tells_last is not False else None
        try:
            held.append(self._open("sched_process_exec", "on_exec"))
            try:
                if last is not None:
                    held.append(syscalls.open_raw_tracepoint(last, "sched_process_exit"))
            except OSError:
                last = None
            if last is None:
                held.append(self._open("sched_process_exit", "on_exit"))
            held.append(self._open("sys_exit", "on_sys_exit"))
            held.append(self._open("sys_enter", "on_sys_enter"))
        except OSError:
            uprobes.close_all(held)
            raise
        return held

    def _open(self, name: str, function: str) -> int:
        return syscalls.open_raw_tracepoint(self._loaded.programs[_TRACEPOINTS[function].label], name)

    def attach(self, specs: list[UprobeSpec], pid: int) -> tuple[list[int], list[SkippedUprobe]]:
        """Put uprobes on one process; see uprobes.attach."""
        if self._multi is not None:
            return uprobes.attach(self._multi, specs, pid, "multi")
        return uprobes.attach(self._loaded.programs[_PERF.label], specs, pid, "perf")

    def enter(self, ids: TargetIds, budget: int) -> int:
        """Make a process a target, with a budget of events a second; return its slot. Raises BackendUnavailable."""
        if not self._free:
            raise BackendUnavailable(f"{MAX_TARGETS} processes are followed already", "select fewer with a filter")
        key = ids.tgid | self._namespace_of(ids) << _TGID_BITS
        slot = self._free.popleft()
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        row = np.zeros(1, TARGET)
        row["key"], row["id"], row["budget"] = key, self._last_id, budget
        self._table[slot] = row[0]
        syscalls.map_update(self._loaded.maps["slots"], key, struct.pack("<I", slot))
        return slot

    def forget(self, slot: int) -> None:
        """Let the kernel find the process no more, so that another may have its id. The row stays readable."""
        with contextlib.suppress(FileNotFoundError):  # the kernel removed it when the process ended
            syscalls.map_delete(self._loaded.maps["slots"], int(self._table[slot]["key"]))

    def release(self, slot: int) -> None:
        """Let another target have the slot of one that was forgotten."""
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
        if len(self._namespaces) == _MAX_NAMESPACES:
            what = f"targets in more than {_MAX_NAMESPACES} PID namespaces below ours cannot be told apart"
            raise BackendUnavailable(what, "run gomem in the initial PID namespace: hostPID, docker run --pid=host")
        number = len(self._namespaces)
        value = struct.pack("<QQ", ids.device, ids.inode)
        syscalls.map_update(self._loaded.maps["namespaces"], number, value)
        self._namespaces.append(ids)
        return number

    def close(self) -> None:
        """Close maps and programs. A row that somebody still has keeps the table's memory."""
        self.ring.close()
        self._loaded.close()
        del self._table
        with contextlib.suppress(BufferError):
            self._mapped.close()
