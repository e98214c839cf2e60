"""What cmd/link leaves in every Go file, so that it is told from others by a few reads.

The section .go.buildinfo (Go 1.13 and later), .gopclntab or the note of the Go build id (all releases); in a file
without section headers the note, or the build information's magic in the data segment (debug/buildinfo/buildinfo.go).
"""

from __future__ import annotations

from itertools import pairwise

from gomem.tracer.binary.buildinfo import MAGIC
from gomem.tracer.binary.elf import PF_W, SHT_NOBITS
from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError

_SECTIONS = frozenset((".go.buildinfo", ".gopclntab", ".data.rel.ro.gopclntab", ".note.go.buildid"))
# The linker puts the build information first into the data segment, gcc's linker not far behind other data.
_SEARCHED = 4 << 20
_ALIGN = 16
_MOST_NAMES = 64 << 20  # bytes of .dynstr
# cmd/link (data.go, lib.go) gives one of these for each package to what may share packages: hosts and their plugins. A
# C shared library has none, and a runtime that is its own.
_SHARES_PACKAGES = b"link.pkghash"


def go_mark(exe: Executable) -> str | None:
    """Return in a few words what shows that a file is Go's, None if nothing does.

    Reads only its headers, and the data segment if it has no sections. Raises BinaryError for a corrupt one.
    """
    if exe.go_build_id is not None:
        return "it has a Go build id"
    for section in exe.sections:
        if section.name in _SECTIONS and section.type != SHT_NOBITS and section.size:
            return f"it has a section {section.name}"
    if not exe.sections and _has_magic(exe):
        return "its data holds Go build information"
    return None


def shares_packages(exe: Executable) -> bool:
    """Tell whether a file is a plugin, or the host of some. Raises BinaryError for a corrupt one."""
    names = exe.section(".dynstr")
    if exe.go_build_id is None or names is None:
        return False
    edges = range(0, min(names.size, _MOST_NAMES) + (1 << 20), 1 << 20)
    overlap = len(_SHARES_PACKAGES)
    return any(
        _SHARES_PACKAGES in exe.read_at(names.offset + low, min(high - low + overlap, names.size - low))
        for low, high in pairwise(edges)
        if low < names.size
    )


def _has_magic(exe: Executable) -> bool:
    left = _SEARCHED
    for segment in exe.segments:
        if not segment.flags & PF_W:
            continue
        try:
            raw = exe.read_up_to(segment.address, min(left, segment.file_size)) if segment.file_size else b""
        except BinaryError:
            continue
        at = raw.find(MAGIC)
        while at >= 0:
            if (segment.address + at) % _ALIGN == 0:
                return True
            at = raw.find(MAGIC, at + 1)
        left -= len(raw)
    return False
