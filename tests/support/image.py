"""Images of process memory for tests: written word by word, or recorded from a live process."""

from __future__ import annotations

import struct

import numpy as np

from gomem.tracer.errors import SnapshotError
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import LARGEST_READ, Bytes, Memory

PAGE = 4096


class Image:
    """Sparse memory of whole OS pages; what was never written cannot be read."""

    def __init__(self, pages: dict[int, bytearray] | None = None) -> None:
        self.pages = {} if pages is None else pages
        self.room = Room(1 << 30)
        self.bytes_read = 0
        self._shared: set[int] = set()  # pages that belong to another image, too

    def copy(self) -> Image:
        """Return an image that can be changed alone."""
        copied = Image(dict(self.pages))
        self._shared = set(self.pages)
        copied._shared = set(self.pages)
        return copied

    def reserve(self, address: int, size: int) -> int:
        """Make `size` bytes readable (zero where nothing was written), and return the address."""
        for number in range(address // PAGE, -(-(address + size) // PAGE)):
            self.pages.setdefault(number, bytearray(PAGE))
        return address

    def write(self, address: int, raw: bytes) -> int:
        """Put bytes at an address, and return the address behind them."""
        self.reserve(address, len(raw))
        done = 0
        while done < len(raw):
            number, offset = divmod(address + done, PAGE)
            if number in self._shared:
                self.pages[number] = bytearray(self.pages[number])
                self._shared.discard(number)
            piece = raw[done : done + PAGE - offset]
            self.pages[number][offset : offset + len(piece)] = piece
            done += len(piece)
        return address + len(raw)

    def words(self, address: int, *values: int) -> int:
        """Put 64-bit words (negative ones as two's complement), and return the address behind them."""
        return self.write(address, struct.pack(f"<{len(values)}Q", *(value & (1 << 64) - 1 for value in values)))

    def read(self, address: int, size: int) -> bytes:
        """Return bytes; SnapshotError where there are none, as ProcessMemory does."""
        buffer = np.zeros(self._checked(address, size), np.uint8)
        self._fill(address, buffer)
        return buffer.tobytes()

    def read_into(self, address: int, buffer: Bytes) -> None:
        """Fill a buffer."""
        self._checked(address, buffer.nbytes)
        self._fill(address, buffer)

    def _checked(self, address: int, size: int) -> int:
        if not 0 <= size <= LARGEST_READ or not 0 < address < 1 << 63:
            raise SnapshotError(f"refused to read {size} bytes at {address:#x}")
        return size

    def _fill(self, address: int, buffer: Bytes) -> None:
        done = 0
        while done < buffer.nbytes:
            number, offset = divmod(address + done, PAGE)
            if number not in self.pages:
                raise SnapshotError(f"no memory at {address + done:#x}")
            count = min(PAGE - offset, buffer.nbytes - done)
            buffer[done : done + count] = np.frombuffer(self.pages[number], np.uint8)[offset : offset + count]
            done += count
        self.bytes_read += done


class Recorder:
    """Memory that keeps every OS page that is read through it."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.room = memory.room
        self.image = Image()
        self.reads: list[tuple[int, int]] = []  # address and size of each

    def read(self, address: int, size: int) -> bytes:
        """Read and keep."""
        raw = self._memory.read(address, size)
        self._keep(address, size)
        return raw

    def read_into(self, address: int, buffer: Bytes) -> None:
        """Read and keep."""
        self._memory.read_into(address, buffer)
        self._keep(address, buffer.nbytes)

    def _keep(self, address: int, size: int) -> None:
        self.reads.append((address, size))
        for number in range(address // PAGE, -(-(address + size) // PAGE)):
            if number not in self.image.pages:
                self.image.pages[number] = bytearray(self._memory.read(number * PAGE, PAGE))
