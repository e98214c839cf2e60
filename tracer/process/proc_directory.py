"""Reading /proc/PID through a descriptor of the directory, which stays bound to the process and not to the number."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

from gomem.tracer.proc.small_files import printable, read_bounded
from gomem.tracer.proc.unasked import FileStatus, status
from gomem.tracer.process.guardian import appointed

SMALL = 1 << 16  # bytes
# Files of /proc/PID for which the kernel takes the lock of the process's memory map (mmap_lock).
_LOCKING = ("maps", "smaps", "smaps_rollup", "pagemap", "cmdline", "environ", "numa_maps", "mem")
_ANSWERED_FOR = 0.2  # seconds for which it counts that the process has answered


class ProcDirectory(ABC):
    """The files of one process. Whoever knows the process says what a failed access means."""

    def __init__(self, pid: int, directory: int) -> None:
        """Read through the descriptor `directory`."""
        self.pid = pid
        self._directory = directory
        self._answered = float("-inf")  # time.monotonic()

    @abstractmethod
    def explain(self, error: OSError, name: str) -> Exception:
        """Return the error that says what a failed access to /proc/PID/`name` means, and what to do."""

    def open_file(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open /proc/PID/`name`; return the fd, which the caller closes.

        Raises TargetGone, NotPermitted, NoAnswer, or FileNotFoundError when this kernel has no such file.
        """
        self.ensure_answers(name)
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError as error:
            raise self.explain(error, name) from None

    def ensure_answers(self, name: str) -> None:
        """Return when reading /proc/PID/`name` will not wait for ever, as far as this process has a guardian to try.

        Raises NoAnswer.
        """
        guardian = appointed()
        if guardian is None or name not in _LOCKING or time.monotonic() - self._answered < _ANSWERED_FOR:
            return
        guardian.ensure_answers(self.pid)
        self._answered = time.monotonic()

    def read(self, name: str, limit: int = SMALL) -> bytes:
        """Return at most `limit` bytes of /proc/PID/`name`. Raises as `open_file` does."""
        return self.read_whole(name, limit)[0]

    def read_whole(self, name: str, limit: int) -> tuple[bytes, bool]:
        """Return (bytes, was it cut at `limit`) of /proc/PID/`name`. Raises as `open_file` does."""
        self.ensure_answers(name)
        try:
            return read_at(self._directory, name, limit)
        except OSError as error:
            raise self.explain(error, name) from None

    def read_pieces(self, name: str, size: int) -> Iterator[bytes]:
        """Yield /proc/PID/`name` in pieces of `size` bytes, the last one smaller. Raises as `open_file` does."""
        fd = self.open_file(name)
        try:
            while piece := _fill(fd, size):
                yield piece
        except OSError as error:
            raise self.explain(error, name) from None
        finally:
            os.close(fd)

    def readlink(self, name: str) -> str:
        """Return where the link /proc/PID/`name` points. Raises as `open_file` does."""
        try:
            return printable(os.readlink(os.fsencode(name), dir_fd=self._directory))
        except OSError as error:
            raise self.explain(error, name) from None

    def stat_file(self, name: str) -> FileStatus:
        """Return what is known of the file that the link /proc/PID/`name` leads to. Raises as `open_file` does."""
        try:
            return status(name, self._directory)
        except OSError as error:
            raise self.explain(error, name) from None


def read_at(directory: int, name: str, limit: int) -> tuple[bytes, bool]:
    """Return at most `limit` bytes of a file in a directory, and whether there were more. Raises OSError."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return read_bounded(fd, limit)
    finally:
        os.close(fd)


def _fill(fd: int, size: int) -> bytes:
    """Read `size` bytes, or what is left: the kernel gives such files out a page at a time."""
    parts: list[bytes] = []
    left = size
    while left and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
