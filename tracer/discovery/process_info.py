"""One look at one process: who it is now, read so that nothing of two processes is mixed.

All is read through a descriptor of /proc/PID, which stays with the process and not with the number, and the program
is asked for before and after: a process that executed another one in between is not described at all.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import StrEnum

from gomem.tracer.proc.small_files import Stat, parse_stat, parse_status, printable, read_bounded
from gomem.tracer.proc.unasked import status
from gomem.tracer.process.target import ExeIdentity

_SMALL = 1 << 14
_CGROUP_BYTES = 1 << 16
_MOST_CGROUPS = 64
_DELETED = " (deleted)"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Identity:
    """One program in one process: another start time is another process, another `exe` another program in it."""

    pid: int
    start_ticks: int  # clock ticks after boot
    exe: ExeIdentity


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process as it was at one moment."""

    identity: Identity
    comm: str
    exe: str  # its path in the process's mount namespace; "" where it may not be read
    uid: int | None  # real user id
    cgroups: tuple[str, ...]  # its paths as /proc/PID/cgroup shows them to us

    @property
    def pid(self) -> int:
        """Its pid, as our PID namespace numbers it."""
        return self.identity.pid

    @property
    def name(self) -> str:
        """The name of its executable, without the directory; where it may not be read, what the kernel calls it."""
        return self.exe.rpartition("/")[2] or self.comm


class Unavailable(StrEnum):
    """Why nothing is known of a process."""

    GONE = "gone"  # no such process, a zombie, one that is exiting, or one that cannot be looked at at all
    CHANGING = "changing"  # it executed a program while it was looked at
    KERNEL_THREAD = "a kernel thread"
    STUCK = "the file system of its executable does not answer"


def age(start_ticks: int) -> float:
    """Return how many seconds ago a process started that did so `start_ticks` clock ticks after boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks / TICKS_PER_SECOND


def look(pid: int) -> ProcessInfo | Unavailable:
    """Look at the process `pid`; what may not be read is "" or None."""
    try:
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return Unavailable.GONE
    try:
        return _look(pid, directory)
    except (OSError, ValueError):
        # Mostly because it has ended; but the file system of its executable can fail in any way, too.
        return Unavailable.GONE
    finally:
        os.close(directory)


def _look(pid: int, directory: int) -> ProcessInfo | Unavailable:
    stat = parse_stat(_read(directory, "stat"))
    if stat.is_kernel_thread:
        return Unavailable.KERNEL_THREAD
    if is_ending(stat):
        return Unavailable.GONE
    identity = _identity(pid, directory, stat)
    told = parse_status(_read(directory, "status"))
    if told.tgid is not None and told.tgid != pid:
        return Unavailable.GONE  # a thread: it has a directory too, but is no process
    sighting = ProcessInfo(identity, stat.comm, _exe(directory), told.uid, _cgroups(directory))
    after = parse_stat(_read(directory, "stat"))
    if is_ending(after):
        return Unavailable.GONE
    return sighting if _identity(pid, directory, after) == identity else Unavailable.CHANGING


def is_ending(stat: Stat) -> bool:
    """Tell whether the process has ended, or is about to."""
    return stat.is_ending


def _identity(pid: int, directory: int, stat: Stat) -> Identity:
    try:
        exe = status("exe", directory)
    except PermissionError:
        return Identity(pid, stat.start_ticks, ExeIdentity(0, 0, 0, stat.start_stack))
    return Identity(pid, stat.start_ticks, ExeIdentity(exe.st_dev, exe.st_ino, exe.st_mtime_ns, stat.start_stack))


def _exe(directory: int) -> str:
    try:
        link = printable(os.readlink(b"exe", dir_fd=directory))
    except PermissionError:
        return ""
    return link.removesuffix(_DELETED)


def _cgroups(directory: int) -> tuple[str, ...]:
    try:
        raw = _read(directory, "cgroup", _CGROUP_BYTES)
    except FileNotFoundError:
        return ()  # a kernel without cgroups
    return cgroup_paths(printable(raw))


def cgroup_paths(text: str) -> tuple[str, ...]:
    """Return the different paths in /proc/PID/cgroup, in its order: v1's hierarchies, then v2's."""
    paths: dict[str, None] = {}
    for line in text.split("\n"):
        path = line.split(":", 2)[-1] if line.count(":") >= 2 else ""
        if path.startswith("/"):
            paths.setdefault(path.removesuffix(_DELETED))
            if len(paths) >= _MOST_CGROUPS:
                break
    return tuple(paths)


def _read(directory: int, name: str, limit: int = _SMALL) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return read_bounded(fd, limit)[0]
    finally:
        os.close(fd)
