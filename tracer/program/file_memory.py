"""A process's memory as far as its executable's file says what is in it.

It is read without the process, so also when that has ended.
"""

from __future__ import annotations

import numpy as np

from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError, SnapshotError
from gomem.tracer.machine.room import room_for_one
from gomem.tracer.process.memory import Bytes


class FileMemory:
    """Implements gomem.tracer.process.memory.Memory for what the program never changes."""

    def __init__(self, exe: Executable, bias: int) -> None:
        """`bias`: how far the process has the program from its link-time addresses."""
        self.room = room_for_one()
        self._exe = exe
        self._bias = bias

    def read(self, address: int, size: int) -> bytes:
        """Return exactly `size` bytes at `address`; raises SnapshotError where the file has none."""
        try:
            raw = self._exe.read_relocated(address - self._bias, size)
        except BinaryError as error:
            raise SnapshotError(error.what) from error
        if len(raw) != size:
            raise SnapshotError(f"the executable has no {size} bytes at {address:#x}")
        return raw

    def read_into(self, address: int, buffer: Bytes) -> None:
        """Fill `buffer` from `address`; errors as `read`."""
        buffer[:] = np.frombuffer(self.read(address, buffer.nbytes), np.uint8)
