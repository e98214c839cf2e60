"""Reading files of file systems that others serve (tracer/proc/served.py), who may never answer.

The guardian's children read, piece by piece, into a file in memory; from that we read. What has been read once is asked
for no more, so that the server need not be there any longer.
"""

from __future__ import annotations

import errno
import os
import threading
import time

from gomem.tracer.errors import SnapshotError
from gomem.tracer.machine.room import room_for_one
from gomem.tracer.proc.served import memory_file
from gomem.tracer.proc.unasked import status_of
from gomem.tracer.process.guardian import Guardian, appointed

_PIECE = 1 << 20  # bytes that are read at once, or several such pieces
_MOST_AHEAD = 32
# Waiting is paid from what is there at first, in seconds, and grows again by such a share of the time.
_MOST_FOR_ONE, _MOST_IN_VAIN, _SHARE = 30.0, 10.0, 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 20.0, 3600.0  # seconds for which a file system that did not answer is asked nothing
_MOST_SILENT = 256  # file systems of which that is remembered
_WORTH_TRYING = 2.5  # seconds


class ServedFile:
    """One such file. Any thread may read it."""

    def __init__(self, file: int, pid: int) -> None:
        """`file`: a descriptor, opened with O_PATH, that must stay open; `pid`: whose file it is, 0 for nobody's."""
        status = status_of(file)
        self._file = file
        self._pid = pid
        self._device = status.st_dev
        self._size = status.st_size
        self._there: set[int] = set()  # pieces
        self._lock = threading.Lock()
        self._patience = _Patience(_MOST_FOR_ONE)  # its server can answer as slowly as it likes
        self._ahead = 1  # pieces that are read at once; each time it is opened, FUSE drops what is cached of a file
        self._memory = memory_file("gomem-copy")
        guardian = appointed()
        self._own = None if guardian is not None else Guardian()
        self._guardian = guardian or self._own

    def pread(self, size: int, offset: int) -> bytes:
        """Return so many bytes at an offset, fewer where the file ends before.

        Raises TimeoutError where nobody answers, MemoryError where gomem has no room for more, OSError where it fails.
        """
        size = min(size, self._size - offset)
        if size <= 0:
            return b""
        with self._lock:
            wanted = range(offset // _PIECE, (offset + size - 1) // _PIECE + 1)
            for piece in wanted:
                if piece not in self._there:
                    self._fetch(piece)
            return os.pread(self._memory, size, offset)

    def close(self) -> None:
        """Let go of what was read; idempotent."""
        with self._lock:
            if self._memory >= 0:
                os.close(self._memory)
                self._memory = -1
                _copies.give_back(len(self._there))
                self._there.clear()
            if self._own is not None:
                self._own.close()
                self._own = None

    def _fetch(self, piece: int) -> None:
        if self._memory < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        left = self._patience.left()
        if left <= 0 or not _silence.worth_trying(self._device):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        pieces = self._pieces_from(piece)
        began = time.monotonic()
        try:
            assert self._guardian is not None
            at, size = piece * _PIECE, len(pieces) * _PIECE
            self._guardian.read(self._pid, self._device, self._file, self._memory, at, size, left)
            self._there.update(pieces)
            self._ahead = min(2 * self._ahead, _MOST_AHEAD)
        except TimeoutError:
            _silence.begins(self._device, time.monotonic() - began)
            raise
        finally:
            if piece in self._there:
                _silence.ends(self._device)
            else:
                _copies.give_back(len(pieces))
            self._patience.waited(time.monotonic() - began)

    def _pieces_from(self, first: int) -> list[int]:
        """Return the pieces to read now, one or more, with room taken for them. Raises MemoryError."""
        end = min(first + self._ahead, -(-self._size // _PIECE))
        known = (piece for piece in range(first, end) if piece in self._there)
        pieces = list(range(first, next(known, end)))
        try:
            _copies.take(len(pieces))
        except MemoryError:
            pieces = pieces[:1]
            _copies.take(1)
        return pieces


class _Copies:
    """How much of all such files is held: what our own memory limit leaves for it, whoever's they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces = 0

    def take(self, pieces: int) -> None:
        """Take room for so many pieces. Raises MemoryError."""
        with self._lock:
            try:
                room_for_one().take(self._pieces + pieces, _PIECE, "pieces of an executable")
            except SnapshotError:
                raise MemoryError from None
            self._pieces += pieces

    def give_back(self, pieces: int) -> None:
        """Give room back."""
        with self._lock:
            self._pieces -= pieces


class _Patience:
    """Seconds that may be waited."""

    def __init__(self, most: float) -> None:
        """`most`: seconds that are there at first."""
        self._most = self._left = most
        self._since = time.monotonic()

    def left(self) -> float:
        """Return the seconds that may be waited now."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._since) * _SHARE, self._most)
        self._since = now
        return self._left

    def waited(self, seconds: float) -> None:
        """Pay for having waited."""
        self._left = self.left() - seconds


class _Silence:
    """Which file systems did not answer: who may make many of them must not have us wait for one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._patience = _Patience(_MOST_IN_VAIN)
        self._pauses: dict[int, tuple[float, float]] = {}  # of a device: until when, time.monotonic(), and how long

    def worth_trying(self, device: int) -> bool:
        """Tell whether a file system may be asked now."""
        with self._lock:
            until, _ = self._pauses.get(device, (0.0, 0.0))
            return time.monotonic() >= until and self._patience.left() >= _WORTH_TRYING

    def begins(self, device: int, seconds: float) -> None:
        """Note that we have waited for one in vain."""
        with self._lock:
            self._patience.waited(seconds)
            _, before = self._pauses.pop(device, (0.0, 0.0))
            pause = min(max(2 * before, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._pauses[device] = time.monotonic() + pause, pause
            if len(self._pauses) > _MOST_SILENT:
                del self._pauses[next(iter(self._pauses))]

    def ends(self, device: int) -> None:
        """Note that one has answered."""
        with self._lock:
            self._pauses.pop(device, None)


_copies = _Copies()
_silence = _Silence()
