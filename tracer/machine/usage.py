"""What this process itself uses: CPU time, memory, file descriptors."""

from __future__ import annotations

import os
import resource


def cpu_seconds() -> float:
    """Return user and system time of this process and of the children that it has waited for."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def open_fds() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/proc/self/fd")) - 1  # without the one that the listing itself needs
