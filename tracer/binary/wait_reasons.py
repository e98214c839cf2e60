"""What a goroutine can wait for, by the number in g.waitreason: the names that the program itself carries.

The names are an array of strings that a function of the runtime takes the address of, so that they are found in
stripped programs, too, and in releases that nobody has measured.

Source: waitReasonStrings and waitReason.String in runtime/runtime2.go (Go 1.11 and later; before, g.waitreason is a
string), goroutineheader in runtime/traceback.go.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gomem.tracer.binary.code import references
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.errors import BinaryError

# The second has the first inlined into it.
_FUNCTIONS = ("runtime.waitReason.String", "runtime.goroutineheader")
_STRING_BYTES = 16
_MOST_NAMES, _LONGEST_NAME = 256, 64  # the number has a byte; the longest of any release has 37 characters
# What every release has among them: it tells the array from others.
_TOLD_BY = {"chan receive", "select", "sleep"}


def wait_reasons(exe: Executable, functions: FunctionTable) -> tuple[str, ...]:
    """Return the names by their numbers, the first of which is ""; () where they are not found.

    Behind the last one there may be strings of something else, which no number leads to.
    """
    for name in _FUNCTIONS:
        for function in functions.lookup(name)[:1]:
            try:
                found = [one.target for one in references(exe, function) if one.access == "address"]
            except BinaryError:
                continue
            for address in dict.fromkeys(found):
                names = tuple(_names_at(exe, address))
                if _TOLD_BY.issubset(names):
                    return names
    return ()


def _names_at(exe: Executable, address: int) -> Iterator[str]:
    """Yield the strings of an array, up to what is none, or is empty and not the first."""
    for at in range(address, address + _MOST_NAMES * _STRING_BYTES, _STRING_BYTES):
        try:
            text, length = struct.unpack("<QQ", exe.read_relocated(at, _STRING_BYTES))
            raw = exe.read(text, length) if 0 < length <= _LONGEST_NAME else b""
        except BinaryError:
            return
        if length > _LONGEST_NAME or (not raw and at > address) or not all(0x20 <= byte < 0x7F for byte in raw):
            return
        yield raw.decode("ascii")
