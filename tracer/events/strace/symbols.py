"""The numbers behind the symbols that strace prints for memory system calls.

Source: include/uapi/asm-generic/mman-common.h, include/uapi/asm-generic/mman.h, include/uapi/linux/mman.h,
and the few additions of x86 and arm64.
"""

from __future__ import annotations

import re

from gomem.tracer.events.madvise import MADVISE_ADVICE

_PROT = {
    "PROT_NONE": 0,
    "PROT_READ": 0x1,
    "PROT_WRITE": 0x2,
    "PROT_EXEC": 0x4,
    "PROT_SEM": 0x8,
    "PROT_BTI": 0x10,
    "PROT_MTE": 0x20,
    "PROT_GROWSDOWN": 0x01000000,
    "PROT_GROWSUP": 0x02000000,
}
_MAP = {
    "MAP_FILE": 0,
    "MAP_SHARED": 0x01,
    "MAP_PRIVATE": 0x02,
    "MAP_SHARED_VALIDATE": 0x03,
    "MAP_DROPPABLE": 0x08,
    "MAP_FIXED": 0x10,
    "MAP_ANONYMOUS": 0x20,
    "MAP_ANON": 0x20,
    "MAP_32BIT": 0x40,
    "MAP_ABOVE4G": 0x80,
    "MAP_GROWSDOWN": 0x0100,
    "MAP_DENYWRITE": 0x0800,
    "MAP_EXECUTABLE": 0x1000,
    "MAP_LOCKED": 0x2000,
    "MAP_NORESERVE": 0x4000,
    "MAP_POPULATE": 0x8000,
    "MAP_NONBLOCK": 0x10000,
    "MAP_STACK": 0x20000,
    "MAP_HUGETLB": 0x40000,
    "MAP_SYNC": 0x80000,
    "MAP_FIXED_NOREPLACE": 0x100000,
    "MAP_UNINITIALIZED": 0x4000000,
}
_MREMAP = {"MREMAP_MAYMOVE": 1, "MREMAP_FIXED": 2, "MREMAP_DONTUNMAP": 4}

SYMBOLS: dict[str, int] = {
    **_PROT,
    **_MAP,
    **_MREMAP,
    **{"MADV_" + name.upper(): number for number, name in MADVISE_ADVICE.items()},
}
_HUGE_SHIFT = "MAP_HUGE_SHIFT"  # 26
_U64 = (1 << 64) - 1
_COMMENT = re.compile(r"/\*.*?\*/")
_DESCRIPTOR_PATH = re.compile(r"(-?\d+)<[^<].*>")


def argument_value(text: str) -> int:
    """Return the number of one printed argument: `NULL`, `-1`, `0x1f /* MADV_??? */`, `PROT_READ|0x80`, `3</etc/x>`.

    The value is what a 64-bit register holds (negative ones in two's complement).
    Raises ValueError if it is none of that.
    """
    text = text.strip()
    if text == "NULL":
        return 0
    try:
        return int(text, 0) & _U64
    except ValueError:
        pass
    descriptor = _DESCRIPTOR_PATH.fullmatch(text)
    if descriptor:
        return int(descriptor.group(1)) & _U64
    value = 0
    for part in _COMMENT.sub("", text).split("|"):
        value |= _flag_value(part.strip())
    return value & _U64


def _flag_value(part: str) -> int:
    number = SYMBOLS.get(part)
    if number is not None:
        return number
    left, shifted, right = part.partition("<<")
    if shifted and right == _HUGE_SHIFT:
        return int(left, 0) << 26
    return int(part, 0)
