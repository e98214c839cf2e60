"""A file in memory that one process writes and another reads behind it, giving back what was read."""

from __future__ import annotations

import ctypes
import os

_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_CHUNK = 4 << 20
_PAGE = 4096


class Spool:
    """An anonymous file (memfd); `fd` is for the writer, who never blocks.

    `position` is how many bytes were read so far; pages before it are returned to the kernel.
    """

    MAX_UNREAD = 256 << 20  # bytes that a writer may be ahead; whoever starts the writer sees to it

    def __init__(self, name: str) -> None:
        self.fd = os.memfd_create(name)
        self.position = 0
        self._punched = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

    def read(self) -> bytes:
        """Return up to 4 MB of what was written since the last call, or nothing."""
        text = os.pread(self.fd, _CHUNK, self.position)
        self.position += len(text)
        whole = self.position // _PAGE * _PAGE
        if whole - self._punched >= _CHUNK // 4:
            self._libc.fallocate(self.fd, _PUNCH_HOLE, self._punched, whole - self._punched)
            self._punched = whole
        return text

    def clear(self) -> None:
        """Empty it; nobody may be writing."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.position = self._punched = 0

    def close(self) -> None:
        """Give the memory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.close()
