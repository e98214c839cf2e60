"""How a process ended that is not our child: its wait status, from what the kernel tells anybody who holds a pidfd.

A zombie has it in /proc/PID/stat; a process that its parent has collected has it in PIDFD_GET_INFO, from Linux 6.15 on
(include/uapi/linux/pidfd.h: PIDFD_INFO_EXIT). On older kernels the process connector tells it to who may listen.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from gomem.tracer.errors import BackendUnavailable
from gomem.tracer.kernel.process_events import ProcessEvents
from gomem.tracer.proc.small_files import parse_stat
from gomem.tracer.process.proc_directory import SMALL, read_at

# struct pidfd_info, version 0: mask, cgroup id, pid, tgid, ppid, eight user and group ids, wait status
_INFO = struct.Struct("=QQ3I8Ii")
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
_INFO_EXIT = 1 << 3
_STATUS_AT = 49  # field 52 of /proc/PID/stat, counted from field 3
_COLLECTED_WITHIN = 0.25  # seconds between the end of a process and its parent's wait, as we wait for it


@dataclass(frozen=True, slots=True)
class WaitStatus:
    """What wait(2) gives: an exit code, or the signal that ended the process and whether it dumped core."""

    code: int | None
    signal: int | None
    core_dumped: bool

    @classmethod
    def parse(cls, status: int) -> WaitStatus:
        """Return what the number of wait(2) says (WIFEXITED and its like)."""
        number = status & 0x7F
        if number:
            return cls(None, number, bool(status & 0x80))
        return cls(status >> 8 & 0xFF, None, False)

    @property
    def signal_name(self) -> str | None:
        """The name of the signal, "SIGKILL"; its number where it has none."""
        if self.signal is None:
            return None
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"


class Afterlife:
    """Knows what is left of one process when it has ended. Open it while it lives; close it."""

    def __init__(self, pid: int, listens: bool = True) -> None:
        """Hold on to the process; nothing is held if it is gone already, or the kernel has no pidfds.

        `listens`: where the kernel would not tell otherwise, it opens a process connector of its own.
        """
        self.pid = pid
        self._pidfd = -1
        self._directory = -1
        self._events: ProcessEvents | None = None
        with suppress(OSError):
            self._pidfd = os.pidfd_open(pid)
        with suppress(OSError):
            self._directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if listens and (self._pidfd < 0 or not _has_info(self._pidfd)):
            with suppress(BackendUnavailable):
                self._events = ProcessEvents.open()
                self._events.statuses_of.add(pid)

    @property
    def pidfd(self) -> int:
        """The descriptor that is readable once the whole process has ended; -1 if there is none."""
        return self._pidfd

    def is_of(self, start_ticks: int) -> bool:
        """Tell whether the process that is held started then (clock ticks after boot); False for one that is gone."""
        try:
            return parse_stat(read_at(self._directory, "stat", SMALL)[0]).start_ticks == start_ticks
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Let go of everything; idempotent."""
        for fd in (self._pidfd, self._directory):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._directory = -1
        if self._events is not None:
            self._events.close()
            self._events = None

    def status(self) -> WaitStatus | None:
        """Return how it ended, waiting a moment for its parent to notice; None if it lives, or nobody tells."""
        deadline = time.monotonic() + _COLLECTED_WITHIN
        while True:
            for found in (_told_by_pidfd(self._pidfd), _told_by_zombie(self._directory), self._told_by_connector()):
                if found is not None:
                    return WaitStatus.parse(found)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.005)

    def listen(self) -> None:
        """Take what the process connector has to tell, if that is asked at all: often enough that nothing is lost."""
        if self._events is not None:
            self._events.read()

    def _told_by_connector(self) -> int | None:
        if self._events is None:
            return None
        self._events.read()
        return self._events.statuses.get(self.pid)


def told_by_pidfds() -> bool:
    """Tell whether this kernel tells by a pidfd how a process ended; else only its connector does, to who listens."""
    try:
        own = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        return _has_info(own)
    finally:
        os.close(own)


def _has_info(pidfd: int) -> bool:
    try:
        _info(pidfd)
    except OSError:
        return False
    return True


def _info(pidfd: int) -> tuple[int, int]:
    """Return (mask, wait status). Raises OSError: before Linux 6.13, and before 6.15 for who has been collected."""
    raw = bytearray(_INFO.size)
    struct.pack_into("=Q", raw, 0, _INFO_EXIT)
    fcntl.ioctl(pidfd, _GET_INFO, raw)
    fields = _INFO.unpack(raw)
    return int(fields[0]), int(fields[-1])


def _told_by_pidfd(pidfd: int) -> int | None:
    if pidfd < 0:
        return None
    try:
        mask, status = _info(pidfd)
    except OSError:
        return None
    return status if mask & _INFO_EXIT else None


def _told_by_zombie(directory: int) -> int | None:
    """Return the wait status of a process that is still to be collected, as far as we may read it."""
    try:
        fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        raw = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    return zombies_status(raw)


def zombies_status(raw: bytes) -> int | None:
    """Return the wait status in /proc/PID/stat of a zombie without threads that live on, else None."""
    fields = raw[raw.rfind(b")") + 1 :].split()
    if len(fields) <= _STATUS_AT or fields[0] not in (b"Z", b"X") or fields[17] not in (b"0", b"1"):
        return None
    return int(fields[_STATUS_AT])
