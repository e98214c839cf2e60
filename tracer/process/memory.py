"""Reading another process's memory: bounded, never stopping it, never following it into a new program.

/proc/PID/mem pins the address space that it was opened on: after an exec or exit it yields nothing
instead of another program's bytes (Linux, fs/proc/base.c mem_open).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, covers
from gomem.tracer.errors import NotPermitted, SnapshotError, TargetGone
from gomem.tracer.machine.rights import remedy_for
from gomem.tracer.machine.room import Room, room_for_one

# One snapshot of a 100 GB heap of 8 KB spans reads about 2 GB of span structs; more than this is a
# target that lies about its counts. What a runtime keeps of itself it has written, so that a snapshot,
# with its repetitions, reads no more than a few times what the process has in anonymous RAM and swap either. (Pages
# of files do not count: one page that is mapped a thousand times is in RAM once.)
READ_BUDGET = 4 << 30
READ_FLOOR = 64 << 20
READS_OF_RESIDENT = 4
LARGEST_READ = 64 << 20
OS_PAGE = 4096
# Buffers grow by this much at a time with what was really read, not with what the target claims to have.
PIECE = 8 << 20
# A heap that grows meanwhile is where nothing was when the mappings were read.
_MOST_QUESTIONS = 16

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


class Memory(Protocol):
    """A source of a process's memory: a live process, or a recorded image in tests.

    `room`: what may be held of what is read; whoever reads an array that the target sizes takes room first.
    """

    room: Room

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes at `address`; SnapshotError if any is unreadable."""

    def read_into(self, address: int, buffer: Bytes) -> None:
        """Fill `buffer` from `address`; SnapshotError if any byte is unreadable."""


class ProcessMemory:
    """The memory of a live process, through /proc/PID/mem."""

    def __init__(self, pid: int, safe: Callable[[], Ranges] | None = None) -> None:
        """Open the memory of process `pid`.

        `safe` tells where reads cannot wait for anybody: a page of a file may be on a file system that never answers
        (FUSE), and the reader would hang in the kernel. It is asked at the first read of a snapshot, and once more
        when an address is not in it (a heap grows). Without `safe` all memory is read.

        Raises NotPermitted, or TargetGone when there is no such process.
        """
        self.pid = pid
        self.bytes_read = 0
        self.reads = 0
        self.room = room_for_one()
        self._budget = READ_FLOOR
        self._ask_safe = safe
        self._safe: Ranges | None = None
        self._asked = 0
        try:
            self._fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise NotPermitted(
                f"cannot read the memory of process {pid}: permission denied",
                remedy_for(pid, "mem"),
            ) from error
        except OSError as error:
            raise TargetGone(f"process {pid} is gone: {error.strerror}") from error
        self.start_budget()

    def __enter__(self) -> Self:
        """Return self; the file is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def start_budget(self) -> None:
        """Begin a new snapshot: the read budget is full again, as far as the size of the process justifies it."""
        self._budget = min(READ_BUDGET, READ_FLOOR + READS_OF_RESIDENT * self._held())
        self.room = room_for_one()
        self._safe, self._asked = None, 0

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes at `address`.

        Raises SnapshotError for an unreadable address or a size beyond the bounds, TargetGone after exec or exit.
        """
        buffer = np.empty(self._checked(address, size), dtype=np.uint8)
        self._fill(address, buffer)
        return buffer.tobytes()

    def read_into(self, address: int, buffer: Bytes) -> None:
        """Fill `buffer`, a contiguous array of bytes, from `address`; errors as `read`."""
        self._fill(address, buffer[: self._checked(address, buffer.nbytes)])

    def _held(self) -> int:
        """Return the bytes of anonymous memory that the process has in RAM and in swap; 0 when it is gone."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                lines = file.read().splitlines()
        except OSError:
            return 0
        kilobytes = (line.split()[1] for line in lines if line.startswith((b"RssAnon:", b"VmSwap:")))
        return sum(int(number) for number in kilobytes) << 10

    def _checked(self, address: int, size: int) -> int:
        if not 0 <= size <= LARGEST_READ or not 0 < address < 1 << 63:
            raise SnapshotError(f"refused to read {size} bytes at {address:#x} of process {self.pid}")
        self._budget -= size
        if self._budget < 0:
            raise SnapshotError(f"process {self.pid}: the runtime's counts ask for more than it can have written")
        if size and self._ask_safe is not None:
            self._check_safe(self._ask_safe, address, address + size)
        return size

    def _check_safe(self, ask: Callable[[], Ranges], start: int, end: int) -> None:
        while self._safe is None or not covers(self._safe, start, end):
            if self._asked == _MOST_QUESTIONS:
                raise SnapshotError(
                    f"process {self.pid} has no memory of the Go runtime's at {start:#x}: nothing is mapped there, "
                    "or a file is, whose file system might never answer"
                )
            self._safe = ask()
            self._asked += 1

    def _fill(self, address: int, buffer: Bytes) -> None:
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:].data], address + done)
            except OSError as error:
                if error.errno in (errno.EIO, errno.EFAULT):
                    raise SnapshotError(f"process {self.pid} has no memory at {address + done:#x}") from error
                raise TargetGone(f"process {self.pid}: {error.strerror}") from error
            if count == 0:
                raise TargetGone(f"process {self.pid} has exited or runs another program now")
            self.reads += 1
            done += count
        self.bytes_read += done


def read_words(memory: Memory, address: int, count: int) -> Words:
    """Return `count` little-endian 64-bit words at `address`, shape (count,)."""
    pieces = [np.empty(0, np.uint8)]
    for done in range(0, count * 8, PIECE):
        pieces.append(np.empty(min(PIECE, count * 8 - done), np.uint8))
        memory.read_into(address + done, pieces[-1])
    return (pieces[-1] if len(pieces) <= 2 else np.concatenate(pieces)).view("<u8")


class MemoryByPages:
    """Words of a process's memory, each OS page read once: for many small things that lie close together."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._pages: dict[int, bytes] = {}

    def word(self, address: int) -> int:
        """Return the little-endian 64-bit word at `address`, a multiple of 8; SnapshotError if it is unreadable."""
        if address % 8:
            raise SnapshotError(f"there is no word at {address:#x}")
        number, offset = divmod(address, OS_PAGE)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = self._memory.read(number * OS_PAGE, OS_PAGE)
        return int.from_bytes(page[offset : offset + 8], "little")
