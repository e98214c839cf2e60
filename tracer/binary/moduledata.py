"""Finding runtime.firstmoduledata in the file: the linker's own description of the program.

Source: moduledata in runtime/symtab.go. Only its first fields are used, which have kept their order since
Go 1.16 (pcHeader first), and from Go 1.5 to 1.15 (pclntable first).
"""

from __future__ import annotations

import struct

from msgspec import Struct

from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab_format import Table
from gomem.tracer.errors import BinaryError


class ModuleData(Struct, frozen=True):
    """Where moduledata is, and the text bounds in it; link-time addresses."""

    address: int
    text: int
    etext: int


# Index of each field in words: the ftab slice, then findfunctab, minpc, maxpc, text, etext follow it.
_FTAB = {"1.2": 3}
_FTAB_SINCE_1_16 = 16
_WORDS_FROM_FTAB = 8
# Behind these, the fields up to gofunc; no release has had more of them.
_WORDS_TO_GOFUNC = 24


def find_moduledata(exe: Executable, pclntab: int, table: Table) -> ModuleData | None:
    """Return the moduledata that describes this pclntab; None where no place in the file fits it.

    A place fits when it points at the pclntab, its ftab slice has the table's own address and length, and
    its minpc and maxpc are the table's first and last address.
    """
    ftab_at = _FTAB.get(table.header.version, _FTAB_SINCE_1_16)
    for place in exe.pointers_to(pclntab):
        try:
            raw = exe.read_relocated(place, 8 * (ftab_at + _WORDS_FROM_FTAB))
        except BinaryError:
            continue
        words = struct.unpack(f"<{len(raw) // 8}Q", raw)
        ftab, length, _, _, low, high, text, etext = words[ftab_at:]
        base = text if table.header.relative else 0
        if (
            ftab == pclntab + table.header.functab
            and length == table.header.count + 1
            and text <= low < high <= etext
            and low == base + int(table.entries[0])
            and high == base + int(table.entries[-1])
        ):
            return ModuleData(place, text, etext)
    return None


def words_behind(exe: Executable, moduledata: int) -> tuple[int, ...]:
    """Return the words of moduledata behind etext, of Go 1.16 and later: gofunc is one of them, where there is one."""
    first = moduledata + 8 * (_FTAB_SINCE_1_16 + _WORDS_FROM_FTAB)
    return struct.unpack(f"<{_WORDS_TO_GOFUNC}Q", exe.read_relocated(first, 8 * _WORDS_TO_GOFUNC))
