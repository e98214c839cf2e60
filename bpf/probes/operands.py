"""Where a uprobe finds arguments that its cookie has no room for: as text, and as bpf/programs/operands.h has it.

The text is a register ("rax"), or the word of memory at some bytes behind what one points to ("[rbx+24]"); in front of
it may stand how much of that counts ("u8 rcx", "u8 [rbx+98]"), behind it a power of two to multiply with
("[rbx+32]*8192"). "0" is nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

REGISTERS = (
    "0",
    "rax",
    "rbx",
    "rcx",
    "rdi",
    "rsi",
    "r8",
    "r9",
    "r10",
    "r11",
    "rdx",
)  # bpf/programs/programs.c: argument()
MOST_OPERANDS = 6
_OPERAND = struct.Struct("<iBBBB")
_TEXT = re.compile(r"(?:u(8|16|32) )?(?:(\w+)|\[(\w+)\+(\d+)\])(?:\*(\d+))?")


def pack_operands(sources: Sequence[str], *, on: bool) -> bytes:
    """Return `struct operands`; raises ValueError for what it cannot say."""
    if len(sources) > MOST_OPERANDS:
        raise ValueError(f"{len(sources)} arguments, {MOST_OPERANDS} at the most")
    packed = b"".join(_pack(source) for source in sources)
    return struct.pack("<Q", on) + packed.ljust(MOST_OPERANDS * _OPERAND.size, b"\0")


def _pack(source: str) -> bytes:
    match = _TEXT.fullmatch(source)
    if match is None:
        raise ValueError(f"{source!r} is no source of a probe's argument")
    bits, register, base, offset, factor = match.groups()
    name = register or base
    times = int(factor or 1)
    shift = times.bit_length() - 1
    if name not in REGISTERS or times.bit_count() != 1 or shift > 63 or int(offset or 0) >= 1 << 31:
        raise ValueError(f"{source!r}: no such register, offset or power of two")
    size = 0 if name == "0" else int(bits or 64) // 8
    return _OPERAND.pack(int(offset or 0), REGISTERS.index(name), base is not None, size, shift)
