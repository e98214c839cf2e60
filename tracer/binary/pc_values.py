"""Tables of values by program counter: which file, line and inlined call the code of a function belongs to.

Source: pcvalue and step in runtime/symtab.go; the format has been the same since Go 1.2.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from msgspec import Struct

NO_VALUE = -1
_HALF, _WHOLE = 1 << 31, 1 << 32


class PcValues(Struct, frozen=True):
    """`values[i]` holds from `ends[i - 1]` (or 0) up to `ends[i]`: bytes from the function's entry, ascending."""

    ends: array[int]
    values: array[int]

    def at(self, offset: int) -> int:
        """Return the value of the instruction at an offset from the function's entry, NO_VALUE where there is none."""
        at = bisect_right(self.ends, offset)
        return self.values[at] if at < len(self.values) else NO_VALUE


NONE = PcValues(array("Q"), array("i"))


def decode(raw: bytes, quantum: int, size: int) -> PcValues | None:
    """Decode a table for a function of `size` bytes; None where `raw` ends before the table does.

    What it says of instructions beyond the function is left out.
    """
    ends: list[int] = []
    values: list[int] = []
    add_end, add_value = ends.append, values.append
    value, end, at = -1, 0, 0
    try:
        while end < size:
            delta = raw[at]
            at += 1
            if delta >= 0x80:
                delta, at = _varint(raw, at - 1)
            if delta == 0 and end:
                break
            value += -(delta & 1) ^ (delta >> 1)
            step = raw[at]
            at += 1
            if step >= 0x80:
                step, at = _varint(raw, at - 1)
            if step == 0:
                break
            end += step * quantum
            add_end(end)
            add_value(value)
    except IndexError:
        return None
    if min(values, default=0) < -_HALF or max(values, default=0) >= _HALF:
        values = [(one + _HALF) % _WHOLE - _HALF for one in values]
    return PcValues(array("Q", ends), array("i", values))


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return an unsigned number of 32 bits and where the next one begins; IndexError beyond the end."""
    number = shift = 0
    while True:
        byte = raw[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number % _WHOLE, at
        # Further digits count for nothing, but only so many of them belong to one number.
        shift = min(shift + 7, 35)
