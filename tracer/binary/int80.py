"""Whether a 64-bit program has `int 0x80` in its code: the instruction by which it can make 32-bit system calls.

The two bytes also stand in the middle of other instructions, once or twice in each megabyte. Decoders of amd64 that
begin at a wrong byte fall into step after some instructions, so one is set going at each of the bytes before: where
most come by, an instruction begins.
"""

from __future__ import annotations

from collections.abc import Iterator

import capstone
import numpy as np

from gomem.tracer.binary.elf import PF_X
from gomem.tracer.binary.executable import SCAN_CHUNK, Executable
from gomem.tracer.errors import BinaryError

_INT_80 = b"\xcd\x80"
_MOST_CODE = 1 << 29  # bytes; Go programs have some 100 MB at the most
_MOST_PLACES = 4096
_BEGINNINGS = 16  # bytes at which a decoder is set going
_STEPS_IN = 112  # bytes behind them, in which it falls into step
_LONGEST = 15  # bytes of an instruction


def has_int_0x80(exe: Executable) -> bool:
    """Tell whether the program's own code has the instruction, as far as can be told; else that it has.

    Shared libraries and code that is made while the program runs are not looked at. Takes 1 ms for each megabyte.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    places = 0
    try:
        for code, at in _places(exe):
            places += 1
            if places > _MOST_PLACES or _is_instruction(decoder, code, at):
                return True
    except BinaryError:
        return True
    return False


def _places(exe: Executable) -> Iterator[tuple[bytes, int]]:
    """Yield some of the code, and where in it the bytes stand. Raises BinaryError."""
    left = _MOST_CODE
    before = _BEGINNINGS + _STEPS_IN
    for segment in exe.segments:
        if not segment.flags & PF_X:
            continue
        left -= segment.file_size
        if left < 0:
            raise exe.error("more code than is looked at")
        at, end = segment.address, segment.address + segment.file_size
        while at < end:
            start = max(at - before, segment.address)
            chunk = exe.read(start, min(at + SCAN_CHUNK + _LONGEST, end) - start)
            content = np.frombuffer(chunk, np.uint8)
            first = np.flatnonzero(content[:-1] == _INT_80[0])
            for place in first[content[first + 1] == _INT_80[1]].tolist():
                if at <= start + place < at + SCAN_CHUNK:
                    yield chunk[max(place - before, 0) : place + _LONGEST], min(place, before)
            at += SCAN_CHUNK


def _is_instruction(decoder: capstone.Cs, code: bytes, at: int) -> bool:
    """Tell whether an instruction begins at `at`, which is what most decoders say that begin before."""
    beginnings = range(min(_BEGINNINGS, at + 1))
    hits = sum(any(address == at for address, *_ in decoder.disasm_lite(code[first:], first)) for first in beginnings)
    return 2 * hits >= len(beginnings)
