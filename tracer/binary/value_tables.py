"""The tables of values by program counter that a program's functions have, read from its file within a bound."""

from __future__ import annotations

from gomem.tracer.binary import pc_values
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pc_values import PcValues
from gomem.tracer.binary.pclntab import FunctionTable

# Most tables are shorter, and those of a function stand together.
_TABLE_READ, _WINDOW, _MAX_TABLE = 512, 4096, 1 << 20
# Bytes that are decoded in all; the largest programs have half of that. A corrupt one may make each function dear.
_MAX_DECODED = 1 << 24


class ValueTables:
    """Reads tables of pctab; the executable must stay open. `left`: bytes that may still be decoded."""

    def __init__(self, exe: Executable, functions: FunctionTable) -> None:
        """Take the program's tables."""
        self.left = _MAX_DECODED
        self._exe = exe
        self._quantum = functions.header.quantum
        self._pctab = functions.address + functions.header.pctab
        self._window_at, self._window = 0, b""

    def read(self, offset: int, size: int) -> PcValues:
        """Return the table at an offset of pctab, of a function of `size` bytes; without rows where there is none.

        Raises BinaryError.
        """
        wanted = _TABLE_READ
        while offset and wanted <= min(_MAX_TABLE, self.left):
            raw = self._bytes(offset, wanted)
            table = pc_values.decode(raw, self._quantum, size)
            self.left -= len(raw) if table is None else 2 * len(table.ends)
            if table is not None:
                return table
            if len(raw) < wanted:
                break
            wanted *= 4
        return pc_values.NONE

    def _bytes(self, offset: int, size: int) -> bytes:
        """Return the bytes at an offset of pctab, fewer where the file ends before."""
        within = offset - self._window_at
        if not 0 <= within <= len(self._window) - size:
            self._window_at, within = offset, 0
            self._window = self._exe.read_up_to(self._pctab + offset, max(size, _WINDOW))
        return self._window[within : within + size]
