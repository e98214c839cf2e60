"""bpf/programs.c, compiled and loaded for one target."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np

from bpf import syscalls
from bpf.bcc_import import KPROBE, RAW_TRACEPOINT, TRACEPOINT, Module
from tracer.errors import BackendUnavailable, TargetGone
from tracer.events import EVENT, Kind

SOURCE = Path(__file__).parent / "programs.c"
SYSCALLS = {
    "mmap": Kind.MMAP,
    "munmap": Kind.MUNMAP,
    "mremap": Kind.MREMAP,
    "mprotect": Kind.MPROTECT,
    "madvise": Kind.MADVISE,
    "process_madvise": Kind.PROCESS_MADVISE,
    "brk": Kind.BRK,
}
_NUMBERS = {  # of SYSCALLS, in order
    "x86_64": (9, 11, 25, 10, 28, 440, 12),
}
MAX_CALLS_UNDER_WAY = 4096  # threads of the target inside the memory syscalls at one moment
_INITIAL_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel


class Counter(IntEnum):
    """Indices of the per-CPU counters; bpf/programs.c has the same."""

    LOST_RING = 0
    LOST_PENDING = 1
    SUBMITTED = 2
    SYSCALL_HITS = 3  # plus the Kind of a syscall or process event
    HITS = 67  # plus the index of a uprobe


@dataclass(frozen=True, slots=True)
class TargetIds:
    """How the programs recognise the target: a thread-group id and the PID namespace that numbers it.

    A tracer in the initial namespace needs no namespace. Otherwise the kernel only tells the ids that
    a task has in its own namespace, so that is the one compared; where it is not the tracer's,
    `foreign` says that thread ids must be translated.
    """

    tgid: int
    device: int | None = None
    inode: int | None = None
    foreign: bool = False


def target_ids(pid: int) -> TargetIds:
    """Find out how the target is numbered. Raises TargetGone."""
    own = os.stat("/proc/self/ns/pid")
    if own.st_ino == _INITIAL_PIDNS:
        return TargetIds(pid)
    try:
        target = os.stat(f"/proc/{pid}/ns/pid")
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetGone(f"process {pid} is gone") from error
    innermost = pid
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            innermost = int(line.split()[-1])
    device = os.major(target.st_dev) << 20 | os.minor(target.st_dev)  # dev_t as the kernel keeps it
    return TargetIds(innermost, device, target.st_ino, foreign=target.st_ino != own.st_ino)


def common_constants(ring_bytes: int, wake_every: int) -> dict[str, int]:
    """Return what programs.c is compiled with, whatever its targets. Raises BackendUnavailable for other machines."""
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise BackendUnavailable(f"the BPF programs do not know {machine}", "use --backend strace or procfs")
    return {
        "RING_PAGES": ring_bytes // 4096,
        "WAKE_EVERY": wake_every,
        "PENDING_CALLS": MAX_CALLS_UNDER_WAY,
        "EVENT_BYTES": EVENT.itemsize,
        "EVENT_ARGS_AT": offset_in(EVENT, "args"),
        "EVENT_STACK_AT": offset_in(EVENT, "stack"),
        **{f"KIND_{kind.name}": int(kind) for kind in Kind},
        **{f"NR_{name.upper()}": number for name, number in zip(SYSCALLS, _NUMBERS[machine], strict=True)},
    }


class Program:
    """The loaded programs and maps. `ring_bytes` is a power of two and a multiple of the page size."""

    def __init__(self, ids: TargetIds, ring_bytes: int, wake_every: int, *, operands: bool = False) -> None:
        self.ring_bytes = ring_bytes
        constants = common_constants(ring_bytes, wake_every) | {"TARGET_TGID": ids.tgid}
        if operands:
            constants["OPERANDS"] = 1
        if ids.device is not None and ids.inode is not None:
            constants |= {"PIDNS_DEV": ids.device, "PIDNS_INO": ids.inode}
        self._module = Module(SOURCE, constants)
        self._cpus = possible_cpus()

    def tracepoint(self, name: str) -> int:
        """Return the fd of a raw tracepoint program."""
        return self._module.load(name, RAW_TRACEPOINT)

    def call_tracepoint(self, name: str) -> int:
        """Return the fd of a program for bpf/call_tracepoints.py. It needs the kernel's BTF, and Linux 5.15."""
        return self._module.load(name, TRACEPOINT)

    def uprobe(self, backend: Literal["multi", "perf"]) -> int:
        """Return the fd of the uprobe program, loaded for one way of attaching."""
        return self._module.load("on_uprobe", KPROBE, syscalls.BPF_TRACE_UPROBE_MULTI if backend == "multi" else -1)

    def span_uprobe(self, backend: Literal["multi", "perf"]) -> int:
        """Return the fd of the program for span events, which only a Program made with `operands` has."""
        attach_type = syscalls.BPF_TRACE_UPROBE_MULTI if backend == "multi" else -1
        return self._module.load("on_span_uprobe", KPROBE, attach_type)

    def set_operands(self, index: int, packed: bytes) -> None:
        """Tell a Program made with `operands` where more arguments of a uprobe are (bpf/operands.py)."""
        syscalls.map_update(self._module.map_fd("operands"), index, packed)

    def ring_fd(self) -> int:
        """Return the fd of the ring buffer."""
        return self._module.map_fd("events")

    def counter(self, index: int) -> int:
        """Return a counter's sum over all CPUs."""
        raw = syscalls.map_lookup(self._module.map_fd("counters"), index, 8 * self._cpus)
        return sum(memoryview(raw).cast("Q"))

    def forget_compiler(self) -> None:
        """Give back the compiler's memory once everything is loaded."""
        self._module.forget_compiler()

    def silence(self) -> None:
        """Let the programs tell nothing more, wherever they are attached."""
        syscalls.map_update(self._module.map_fd("silence"), 0, (1).to_bytes(4, "little"))

    def close(self) -> None:
        """Close maps and programs. Idempotent."""
        self._module.close()


def possible_cpus() -> int:
    """Return how many CPUs the kernel may ever have: the width of per-CPU maps. Without /sys perhaps some too many."""
    try:
        last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    except OSError:
        return _cpus_of_mask(Path("/proc/self/status").read_text())
    return int(last.split("-")[-1]) + 1


def _cpus_of_mask(status: str) -> int:
    """Return for how many CPUs a task's mask has room: the kernel writes it with as many bits as it has CPU ids."""
    mask = status.partition("Cpus_allowed:")[2].split("\n")[0]
    return 4 * len(mask.strip().replace(",", ""))


def offset_in(dtype: np.dtype[np.void], field: str) -> int:
    """Return at which byte of a structured dtype a field begins."""
    assert dtype.fields is not None
    return int(dtype.fields[field][1])
