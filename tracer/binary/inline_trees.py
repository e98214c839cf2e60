"""The tree of calls that the compiler replaced by the code of the called function.

Source: inlinedCall in runtime/symtab.go (Go 1.9 to 1.20) and runtime/symtabinl.go (since Go 1.21).
"""

from __future__ import annotations

import struct

from msgspec import Struct

MAX_CALLS = 1 << 16


class CallSite(Struct, frozen=True):
    """Where an inlined call stands, as up to Go 1.11: within which other inlined call, and in which line."""

    parent: int  # index in the tree; negative: within none
    file: int  # as the values of the function's table of files
    line: int


class InlinedCall(Struct, frozen=True):
    """One inlined call; `name` is an offset in funcnametab.

    `site` is where the call stands: bytes from the entry of the function whose code it is now part of.
    """

    name: int
    kind: int  # funcID; 0: an ordinary function
    start_line: int  # 0: not known
    site: int | CallSite


class TreeFormat(Struct, frozen=True):
    """How a record of the tree is packed, with the positions of its fields; None where it has no such field."""

    packed: struct.Struct
    name: int
    kind: int | None = None
    start_line: int | None = None
    site: int | None = None  # None: parent, file and line are the first fields

    def decode(self, raw: bytes) -> InlinedCall:
        """Decode one record of `packed.size` bytes."""
        fields = self.packed.unpack(raw)
        return InlinedCall(
            fields[self.name],
            0 if self.kind is None else fields[self.kind],
            0 if self.start_line is None else fields[self.start_line],
            CallSite(*fields[:3]) if self.site is None else fields[self.site],
        )


SINCE_1_9 = TreeFormat(struct.Struct("<iiii"), name=3)
SINCE_1_12 = TreeFormat(struct.Struct("<hBxiiii"), name=4, kind=1, site=5)
SINCE_1_20 = TreeFormat(struct.Struct("<Bxxxiii"), name=1, kind=0, site=2, start_line=3)
