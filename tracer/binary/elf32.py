"""32-bit executables, which gomem does not read: whether one is a Go program, and of which release.

Source: elf(5) (Elf32_Ehdr, Elf32_Phdr) and debug/buildinfo/buildinfo.go: from Go 1.18 on the release follows the
magic in the data segment, after its length.
"""

from __future__ import annotations

import re
import struct

from gomem.tracer.binary.elf import PF_W, PT_LOAD, Malformed, PositionalRead
from gomem.tracer.errors import BinaryError

_CLASS_32, _LITTLE = 1, 1
_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<8I")
_MOST_PROGRAM_HEADERS = 64
_SEARCHED = 4 << 20
_MAGIC = b"\xff Go buildinf:"
_VERSION_AT = 32  # behind the magic's first byte: a length of one byte, and so many bytes
_VERSION = re.compile(rb"go1[\w.+-]*")
_MACHINES = {3: "386", 40: "arm", 8: "mips"}


class ThirtyTwoBit(BinaryError):
    """A 32-bit program: `goarch` is what Go calls its machine, `go_version` its release, "" for no Go program."""

    def __init__(self, path: str, goarch: str, go_version: str) -> None:
        what = f"a Go program ({go_version})" if go_version else "a program"
        super().__init__(
            f"{path} is {what} for {goarch}, a 32-bit machine, which is not supported: gomem reads Go programs for "
            "amd64 only",
            "build it with GOARCH=amd64; its mappings and system calls are reported as they are",
        )
        self.goarch = goarch
        self.go_version = go_version


def thirty_two_bit(path: str, read: PositionalRead, size: int) -> ThirtyTwoBit | None:
    """Return (not raise) the error for a 32-bit executable; None for anything else. Never raises."""
    try:
        if size < _HEADER.size:
            return None
        ident, _, machine, _, _, table, _, _, _, entry_size, count, *_ = _HEADER.unpack(read(0, _HEADER.size))
        if ident[:4] != b"\x7fELF" or ident[4] != _CLASS_32 or ident[5] != _LITTLE:
            return None
        goarch = _MACHINES.get(machine, f"e_machine {machine}")
        if entry_size != _PROGRAM_HEADER.size or count > _MOST_PROGRAM_HEADERS:
            return ThirtyTwoBit(path, goarch, "")
        headers = _PROGRAM_HEADER.iter_unpack(read(table, entry_size * count))
        data = [(at, in_file) for kind, at, _, _, in_file, _, flags, _ in headers if kind == PT_LOAD and flags & PF_W]
        return ThirtyTwoBit(path, goarch, next(filter(None, (_release(read, at, size) for at, size in data)), ""))
    except Malformed:
        return None


def _release(read: PositionalRead, at: int, size: int) -> str:
    content = read(at, min(size, _SEARCHED))
    magic = content.find(_MAGIC)
    if magic < 0:
        return ""
    length = content[magic + _VERSION_AT] if magic + _VERSION_AT < len(content) else 0
    found = _VERSION.match(content, magic + _VERSION_AT + 1)
    return found[0].decode()[:length] if found and length else "an unknown release"
