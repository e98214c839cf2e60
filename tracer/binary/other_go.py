"""Go programs of other compilers than Go's own, whose runtimes gomem does not read: named, so that nobody wonders.

Source: go-backend.cc and simple-object of gcc (the section .go_export, which strip leaves); TinyGo's compiler.go, which
names itself as the producer of the DWARF, and src/runtime, whose C functions are called tinygo_*.
"""

from __future__ import annotations

from collections.abc import Iterator

from gomem.tracer.binary.elf import SHF_COMPRESSED, SHT_NOBITS, SHT_SYMTAB, Section
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError

_PIECE, _MOST_SEARCHED = 1 << 20, 64 << 20
_PRODUCER, _SYMBOL = b"TinyGo\0", b"\0tinygo_"


def other_compiler(exe: Executable) -> str | None:
    """Return the name of the compiler that made a file, if it is one of Go and not Go's own: gccgo, TinyGo."""
    if any(section.name == ".go_export" and section.size for section in exe.sections):
        return "gccgo"
    try:
        if any(_holds(exe, section, pattern) for section, pattern in _tells_tinygo(exe)):
            return "TinyGo"
    except BinaryError:
        pass
    return None


def _tells_tinygo(exe: Executable) -> Iterator[tuple[Section, bytes]]:
    for section in exe.sections:
        if section.name in (".debug_str", ".debug_info"):
            yield section, _PRODUCER
        elif section.type == SHT_SYMTAB and section.link < len(exe.sections):
            yield exe.sections[section.link], _SYMBOL


def _holds(exe: Executable, section: Section, pattern: bytes) -> bool:
    if section.type == SHT_NOBITS or section.flags & SHF_COMPRESSED:
        return False
    size = min(section.size, _MOST_SEARCHED)
    return any(
        pattern in exe.read_at(section.offset + at, min(_PIECE + len(pattern) - 1, size - at))
        for at in range(0, size, _PIECE)
    )
