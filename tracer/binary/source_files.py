"""The names of the source files that a program was made of.

Source: funcfile in runtime/symtab.go: cutab and filetab since Go 1.16, filetab alone before.
"""

from __future__ import annotations

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.names import MAX_NAME, read_name
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.errors import BinaryError

_NO_FILE = 0xFFFFFFFF
# Names in a table overlap only where somebody made it up; the largest programs have a few megabytes of them.
_MAX_TEXT, _MAX_KEPT = 1 << 25, 1 << 16


class SourceFiles:
    """The names, read from the file when they are asked for; the executable must stay open."""

    def __init__(self, exe: Executable, functions: FunctionTable) -> None:
        """Take the program's tables."""
        self._exe = exe
        self._table = functions.address
        self._units = functions.header.units
        self._files = functions.header.files
        # Where version 1.2 says where filetab is: behind functab.
        self._says_files = functions.address + functions.header.functab + 8 * (2 * functions.count + 1)
        self._known: dict[int, str] = {}
        self._left = _MAX_TEXT

    def name(self, unit: int, number: int) -> str:
        """Return the name of a file, "" where there is none.

        `number` is a value of a function's table of files, `unit` where its compilation unit begins in cutab.
        """
        known = self._known.get(unit + number)
        if known is None:
            if len(self._known) >= _MAX_KEPT:
                self._known.clear()
            try:
                known = self._read(unit + number)
            except BinaryError:
                known = ""
            self._known[unit + number] = known
            self._left -= len(known)
        return known

    def _read(self, number: int) -> str:
        if self._units is None or self._files is None:
            offset = self._of_whole_program(number)
        else:
            offset = self._word(self._table + self._units + 4 * number)
            offset = _NO_FILE if offset == _NO_FILE else self._files + offset
        if offset == _NO_FILE or self._left <= 0:
            return ""
        return read_name(self._exe.read_up_to, self._table + offset, MAX_NAME)

    def _of_whole_program(self, number: int) -> int:
        files = self._table + self._word(self._says_files)
        return self._word(files + 4 * number) if number < self._word(files) else _NO_FILE

    def _word(self, address: int) -> int:
        return int.from_bytes(self._exe.read(address, 4), "little")
