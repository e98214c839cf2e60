"""A Go program whose code no file of the process holds: packed executables unpack themselves into memory.

What lies around code in anonymous memory is copied into a file in our own memory, with an ELF header before it, and is
then read like a stripped program that is linked at these very addresses. Copied are only pages that are in RAM, and
only where the table that every Go program carries (pclntab) was found among them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import Ranges, intersect
from gomem.tracer.binary.elf import PF_R, PF_W, PF_X
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab_format import MAGICS, QUANTA
from gomem.tracer.errors import BackendUnavailable, BinaryError, NotPermitted, SnapshotError
from gomem.tracer.kernel.maps import Mappings, read_mappings
from gomem.tracer.kernel.pagemap import read_residency
from gomem.tracer.machine.room import room_for_one
from gomem.tracer.proc.served import memory_file
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import unpacked_files
from gomem.tracer.report import Limit

_OS_PAGE = 4096
_PIECE = 1 << 20
# The parts of a program lie within reach of each other; nothing that large lies between them.
_GAP, _LARGEST_PART = 4 << 20, 512 << 20
_MOST_COPIED = 512 << 20  # bytes
_MOST_PARTS = 64
_MACHINES = {"amd64": 62, "arm64": 183}
_HEADER, _PART = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_ET_EXEC, _PT_LOAD = 2, 1


class Search(Struct, frozen=True):
    """What came of looking for a Go program in a process's memory; `found` is open, None: there is none."""

    found: Executable | None
    searched: int  # bytes; 0: there is no code outside of files
    start: int = 0  # where the program begins

    def limit(self) -> Limit | None:
        """Return what is to be said of that, None if nothing is."""
        if self.found is not None:
            why = f"it is in no file: the executable is packed. The runtime was found in memory, at {self.start:#x}"
            return Limit("module-in-memory", "the program's own file", why, "", "note")
        if not self.searched:
            return None
        why = (
            f"there is code in memory that is of no file; in {self.searched} bytes around it no function table "
            "(pclntab) of Go was found"
        )
        return Limit("packed-not-go", "Go in memory, if there is any", why, "", "note")


def search_memory(target: Target, machine: str) -> Search:
    """Look for a Go program in memory that is code and of no file. Raises TargetGone."""
    mappings = read_mappings(target, attempts=1).mappings
    searched = 0
    try:
        for rows in _groups(mappings):
            part = mappings.select(rows)
            resident = read_residency(target, part).resident()
            with ProcessMemory(target.pid, part.ranges) as memory:
                searched += resident.bytes
                if _has_table(memory, resident):
                    found = _copied(target, memory, part, resident, machine)
                    return Search(found, searched, int(part.start[0]))
    except (NotPermitted, SnapshotError, BackendUnavailable, BinaryError, OSError):
        pass
    return Search(None, searched)


def _groups(mappings: Mappings) -> Iterator[NDArray[np.bool_]]:
    """Yield which mappings may be the parts of a program, for each place where there is code of no file."""
    own = unpacked_files(mappings)
    usable = own & mappings.readable & (mappings.end - mappings.start <= np.uint64(_LARGEST_PART))
    code = usable & mappings.executable
    left = code.copy()
    for row in np.flatnonzero(code).tolist():
        if not left[row]:
            continue
        group = np.zeros(len(mappings), np.bool_)
        for step in (1, -1):
            at = row
            while 0 <= at < len(mappings) and usable[at] and group.sum() < _MOST_PARTS:
                group[at] = True
                following = _following(mappings, usable, at, step)
                if following is None:
                    break
                at = following
        left &= ~group
        yield group


def _following(mappings: Mappings, usable: NDArray[np.bool_], at: int, step: int) -> int | None:
    """Return the next usable mapping in a direction, None where the gap to it is too large for one program."""
    other = at + step
    while 0 <= other < len(mappings):
        low, high = sorted((at, other))
        if int(mappings.start[high]) - int(mappings.end[low]) > _GAP:
            return None
        if usable[other]:
            return other
        other += step
    return None


def _has_table(memory: ProcessMemory, resident: Ranges) -> bool:
    patterns = [struct.pack("<IHBB", magic, 0, quantum, 8) for magic in MAGICS for quantum in QUANTA]
    for start, end in zip(resident.start.tolist(), resident.end.tolist(), strict=True):
        for at in range(start, end, _PIECE):
            raw = memory.read(at, min(_PIECE, end - at))  # it is aligned, so that it never lies across two pieces
            for pattern in patterns:
                hit = raw.find(pattern)
                while hit >= 0:
                    if hit % 8 == 0:
                        return True
                    hit = raw.find(pattern, hit + 1)
    return False


def _copied(target: Target, memory: ProcessMemory, part: Mappings, resident: Ranges, machine: str) -> Executable:
    """Return the program in these mappings, as an open file. Raises SnapshotError, BinaryError, OSError."""
    if resident.bytes > _MOST_COPIED:
        raise SnapshotError(f"{resident.bytes} bytes of code and data")
    room_for_one().take(resident.bytes, 1, "bytes of a program in memory")
    at = -(-(_HEADER.size + _PART.size * len(part)) // _OS_PAGE) * _OS_PAGE
    file = memory_file("gomem-image")
    try:
        headers = []
        for row in range(len(part)):
            start, end = int(part.start[row]), int(part.end[row])
            mine = intersect(resident, Ranges(part.start[row : row + 1], part.end[row : row + 1]))
            held = int(mine.end[-1]) - start if len(mine) else 0
            flags = PF_R | PF_W * bool(part.writable[row]) | PF_X * bool(part.executable[row])
            headers.append(_PART.pack(_PT_LOAD, flags, at, start, start, held, end - start, _OS_PAGE))
            for low, high in zip(mine.start.tolist(), mine.end.tolist(), strict=True):
                for piece in range(low, high, _PIECE):
                    os.pwrite(file, memory.read(piece, min(_PIECE, high - piece)), at + piece - start)
            at += held
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        header = _HEADER.pack(
            ident, _ET_EXEC, _MACHINES.get(machine, 0), 1, 0, _HEADER.size, 0, 0, _HEADER.size, _PART.size,
            len(headers), 0, 0, 0,
        )  # fmt: skip
        os.pwrite(file, header + b"".join(headers), 0)
        os.ftruncate(file, max(at, os.fstat(file).st_size))
        exe = Executable.open(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    exe.path, exe.in_memory = target.exe, True
    return exe
