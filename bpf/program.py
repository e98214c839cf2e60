"""What bpf/programs/programs.c is compiled with, whatever its targets, and how it numbers what it tells."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from gomem.bpf.refusals import EVENTS_SINCE
from gomem.tracer.errors import BackendUnavailable, TargetGone
from gomem.tracer.events.record import EVENT, EventKind
from gomem.tracer.machine.rights import newer_kernel

SOURCE = Path(__file__).parent / "programs" / "programs.c"
SYSCALLS = {
    "mmap": EventKind.MMAP,
    "munmap": EventKind.MUNMAP,
    "mremap": EventKind.MREMAP,
    "mprotect": EventKind.MPROTECT,
    "madvise": EventKind.MADVISE,
    "process_madvise": EventKind.PROCESS_MADVISE,
    "brk": EventKind.BRK,
}
_NUMBERS = {  # of SYSCALLS, in order
    "x86_64": (9, 11, 25, 10, 28, 440, 12),
}
MAX_CALLS_UNDER_WAY = 4096  # threads of the target inside the memory syscalls at one moment
_INITIAL_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel


class Counter(IntEnum):
    """Indices of a target's counters; bpf/programs/programs.c has the same."""

    LOST_RING = 0
    LOST_PENDING = 1
    UNENDED = 2  # system calls among the lost ones, which the kernel did not let us see the end of
    SYSCALL_HITS = 3  # plus the EventKind of a syscall or process event
    COMPAT_HITS = 66  # 32-bit calls among them
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


def ensure_pidfds() -> None:
    """Raise BackendUnavailable where the kernel has no pidfds: by them the sources know that a process has ended."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise BackendUnavailable(
            f"there are no pidfds here, by which the end of a process is known: {error.strerror}",
            f"{newer_kernel(EVENTS_SINCE)}; or allow pidfd_open in gomem's seccomp profile",
        ) from error


def common_constants(ring_bytes: int, wake_every: int) -> dict[str, int]:
    """Return what programs.c is compiled with, whatever its targets. Raises BackendUnavailable for other machines."""
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise BackendUnavailable(f"the BPF programs do not know {machine}")
    return {
        "RING_PAGES": ring_bytes // 4096,
        "WAKE_EVERY": wake_every,
        "PENDING_CALLS": MAX_CALLS_UNDER_WAY,
        "EVENT_BYTES": EVENT.itemsize,
        "EVENT_ARGS_AT": offset_in(EVENT, "args"),
        "EVENT_STACK_AT": offset_in(EVENT, "stack"),
        **{f"KIND_{kind.name}": int(kind) for kind in EventKind},
        **{f"NR_{name.upper()}": number for name, number in zip(SYSCALLS, _NUMBERS[machine], strict=True)},
    }


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
