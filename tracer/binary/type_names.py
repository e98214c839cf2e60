"""Names of Go types as the compiler writes them into a program: for reflect, and so for us. Pure: bytes in, text out.

Source: Type, Name and TFlagExtraStar in internal/abi/type.go (Go 1.21 to 1.27); before, _type and name in
runtime/type.go, with the same fields since Go 1.7.
"""

from __future__ import annotations

import struct

TYPE_BYTES = 48
MOST_NAME = 256  # bytes of a name that are read; struct types can have names of any length
_TFLAG_AT, _STR_AT = 20, 40
_EXTRA_STAR = 2  # the name has a `*` in front that the type has not: *T and T share one text
_MOST_LENGTH_BYTES = 4  # 256 MB
HEADER_BYTES = 1 + _MOST_LENGTH_BYTES


def name_offset(raw: bytes) -> tuple[int, bool]:
    """Return where the name of a type is, from the start of its module's types, and whether a `*` is in front.

    `raw`: the first TYPE_BYTES of the type. Negative for a type that was made at run time (package reflect).
    """
    (offset,) = struct.unpack_from("<i", raw, _STR_AT)
    return offset, bool(raw[_TFLAG_AT] & _EXTRA_STAR)


def decode_name(raw: bytes, *, extra_star: bool, counted_in_two: bool = False) -> str | None:
    """Return the name that begins at `raw`, cut after MOST_NAME bytes; None if there is none.

    `counted_in_two`: its length has two bytes, as up to Go 1.16; else it is a varint.
    """
    length, start = _counted_in_two(raw) if counted_in_two else _varint(raw)
    if length is None or length <= extra_star:
        return None
    whole = raw[start : start + length]
    if len(whole) < min(length, MOST_NAME):
        return None
    cut = whole[:MOST_NAME][extra_star:]
    return cut.decode(errors="replace") + ("..." if length > MOST_NAME else "")


def _counted_in_two(raw: bytes) -> tuple[int | None, int]:
    return (int.from_bytes(raw[1:3], "big"), 3) if len(raw) >= 3 else (None, 0)


def _varint(raw: bytes) -> tuple[int | None, int]:
    value = 0
    for at, byte in enumerate(raw[1 : 1 + _MOST_LENGTH_BYTES]):
        value |= (byte & 0x7F) << 7 * at
        if not byte & 0x80:
            return value, 2 + at
    return None, 0
