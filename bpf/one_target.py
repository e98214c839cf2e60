"""What the small BPF modules share that watch one process: who it is, what /proc says of it, and sums over CPUs."""

from __future__ import annotations

import os

from gomem.bpf import syscalls
from gomem.bpf.program import TargetIds, possible_cpus
from gomem.tracer.proc.small_files import Status, parse_status, read_bounded

_LARGEST_STATUS = 1 << 16


def target_constants(ids: TargetIds) -> dict[str, int]:
    """Return what bpf/programs/one_target.h is compiled with."""
    if ids.device is None or ids.inode is None:
        return {"TARGET_TGID": ids.tgid}
    return {"TARGET_TGID": ids.tgid, "PIDNS_DEV": ids.device, "PIDNS_INO": ids.inode}


def read_status(pid: int) -> Status:
    """Return what /proc/PID/status says; all None for a process that is gone."""
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return parse_status(read_bounded(fd, _LARGEST_STATUS)[0])
        finally:
            os.close(fd)
    except OSError:
        return parse_status(b"")


def array_word(map_fd: int, index: int) -> int:
    """Return a value of an array of 8-byte values."""
    return int.from_bytes(syscalls.map_lookup(map_fd, index, 8), "little")


def per_cpu_sum(map_fd: int, index: int) -> int:
    """Return the sum over all CPUs of a value of a per-CPU array of 8-byte values."""
    return sum(memoryview(syscalls.map_lookup(map_fd, index, 8 * possible_cpus())).cast("Q"))
