"""The code of a process that is not Go's: C in its executable, and shared libraries, named by their ELF symbols."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gomem.tracer.binary.elf import PF_X
from gomem.tracer.binary.elf_symbols import ElfSymbols
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import GomemError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.program.mapped_files import open_executable
from gomem.tracer.report.profile import Line

# A stack in C code calls a few libraries; each address costs some twenty microseconds to be named.
_MOST_FILES = 64
_MOST_ADDRESSES = 1 << 14


class ForeignCode:
    """Names the functions at addresses outside of Go's code; a file is read only if such an address lies in it."""

    def __init__(self, pid: int, mappings: Mappings) -> None:
        """Take a process and what it has mapped."""
        self._pid = pid
        self._mappings = mappings
        self._files, self._addresses = _MOST_FILES, _MOST_ADDRESSES

    def lines(self, addresses: Sequence[int]) -> dict[int, tuple[Line, ...]]:
        """Return the function at each address of the process of which one is known, without file and line.

        An address lies within the calling instruction. Files are opened once, one at a time.
        """
        addresses = addresses[: self._addresses]
        self._addresses -= len(addresses)
        found: dict[int, tuple[Line, ...]] = {}
        for row, some in self._by_file(addresses):
            if not self._files:
                break
            self._files -= 1
            found |= self._in_file(row, some)
        return found

    def _by_file(self, addresses: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Return the row of a mapping of each file that has some of the addresses, and these."""
        files: dict[tuple[int, int], tuple[int, list[int]]] = {}
        rows = self._mappings.find(np.array(addresses, np.uint64)).tolist()
        for address, row in zip(addresses, rows, strict=True):
            file = int(self._mappings.device[row]), int(self._mappings.inode[row])
            if row >= 0 and file[1] and self._mappings.executable[row]:
                files.setdefault(file, (row, []))[1].append(address)
        return list(files.values())

    def _in_file(self, row: int, addresses: list[int]) -> dict[int, tuple[Line, ...]]:
        try:
            exe = open_executable(self._pid, self._mappings, row)
        except (GomemError, OSError):
            return {}
        try:
            symbols = ElfSymbols.of(exe)
            told = {address: symbols.lines(self._link_time(exe, address)) for address in addresses}
            return {address: lines for address, lines in told.items() if lines}
        except (GomemError, OSError):
            return {}
        finally:
            exe.close()

    def _link_time(self, exe: Executable, address: int) -> int:
        """Return the address that the file has for what a process has at `address`; -1 where it has no code there."""
        row = int(self._mappings.find(np.array([address], np.uint64))[0])
        offset = address - int(self._mappings.start[row]) + int(self._mappings.offset[row])
        for segment in exe.segments:
            if segment.flags & PF_X and segment.offset <= offset < segment.offset + segment.file_size:
                return segment.address + offset - segment.offset
        return -1
