"""The headers of a 64-bit little-endian ELF file, read with every offset and count checked.

Pure functions of bytes: a `PositionalRead` gives them the file. They raise Malformed, which says why; the
caller adds the file's name. Source: elf(5), and System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from msgspec import Struct

ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
PF_X, PF_W, PF_R = 1, 2, 4
SHT_SYMTAB, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 2, 7, 8, 11
SHF_COMPRESSED = 0x800

# Far above what any linker writes, low enough that a made-up count costs nothing.
_MAX_PROGRAM_HEADERS = 1024
_MAX_SECTIONS = 8192
_MAX_SECTION_NAME = 256
# Code and data must be within reach of 32-bit distances; a sparse file can claim any size for nothing.
_MAX_LOADED = 1 << 31

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_NOTE_HEADER = struct.Struct("<III")

# EM_* of elf(5), as Go calls them; all of 64 bits, and little-endian.
_MACHINES = {8: "mips64le", 21: "ppc64le", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64"}

PositionalRead = Callable[[int, int], bytes]
"""(file offset, size) -> exactly that many bytes, or Malformed."""


class Malformed(Exception):
    """The bytes are not what the format says; the text tells why."""


class Header(Struct, frozen=True):
    """The ELF header, as far as it is needed to go on."""

    type: int
    machine: str  # "amd64", "arm64", or the name in elf.h
    program_headers: tuple[int, int]  # file offset, count
    sections: tuple[int, int]  # file offset, count; count 0: there are none
    section_names: int  # index of the section that holds the names


class Segment(Struct, frozen=True):
    """A program header: `memory_size` bytes at `address`, of which `file_size` are at `offset` of the file."""

    address: int
    memory_size: int
    offset: int
    file_size: int
    flags: int  # PF_R | PF_W | PF_X
    type: int = PT_LOAD


class Section(Struct, frozen=True):
    """A section header. `address` is 0 for what is not loaded; SHT_NOBITS has no bytes in the file."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


def read_header(read: PositionalRead, file_size: int) -> Header:
    """Return the checked ELF header."""
    if file_size < 4 or read(0, 4) != b"\x7fELF":
        raise Malformed("not an ELF file")
    if file_size < _HEADER.size:
        raise Malformed("truncated in the ELF header")
    ident, kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = _HEADER.unpack(
        read(0, _HEADER.size)
    )
    if ident[4] != 2:
        raise Malformed("not a 64-bit ELF file (32-bit programs are not supported)")
    if ident[5] != 1:
        raise Malformed("not a little-endian ELF file (big-endian machines are not supported)")
    if kind not in (ET_EXEC, ET_DYN):
        raise Malformed(f"ELF type {kind} is neither an executable nor a position-independent one")
    if phnum and phentsize != _PROGRAM_HEADER.size:
        raise Malformed(f"program headers of {phentsize} bytes")
    if phnum > _MAX_PROGRAM_HEADERS:
        raise Malformed(f"{phnum} program headers")
    if shoff and shentsize != _SECTION_HEADER.size:
        raise Malformed(f"section headers of {shentsize} bytes")
    if shoff and (shnum == 0 or shstrndx == 0xFFFF):
        # More sections than a half-word holds: the true figures stand in section 0.
        first = _SECTION_HEADER.unpack(read(shoff, _SECTION_HEADER.size))
        shnum = shnum or first[5]
        shstrndx = first[6] if shstrndx == 0xFFFF else shstrndx
    if shnum > _MAX_SECTIONS:
        raise Malformed(f"{shnum} sections")
    name = _MACHINES.get(machine) or f"e_machine {machine}"
    return Header(kind, name, (phoff, phnum), (shoff, shnum if shoff else 0), shstrndx)


def read_segments(read: PositionalRead, header: Header, file_size: int) -> tuple[Segment, ...]:
    """Return all program headers; those of PT_LOAD lie inside the file and do not overlap in memory."""
    offset, count = header.program_headers
    raw = read(offset, count * _PROGRAM_HEADER.size)
    segments = []
    for kind, flags, at, address, _, in_file, in_memory, _ in _PROGRAM_HEADER.iter_unpack(raw):
        if kind in (PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE) and at + in_file > file_size:
            raise Malformed(f"truncated: a segment ends at byte {at + in_file} of a file of {file_size}")
        segments.append(Segment(address, in_memory, at, in_file, flags, kind))
    _check_loads([segment for segment in segments if segment.type == PT_LOAD], file_size)
    return tuple(segments)


def _check_loads(loads: list[Segment], file_size: int) -> None:
    end = 0
    for segment in sorted(loads, key=lambda s: s.address):
        if segment.file_size > segment.memory_size:
            raise Malformed(f"the segment at {segment.address:#x} has more bytes in the file than in memory")
        if segment.address < end:
            raise Malformed(f"the segment at {segment.address:#x} overlaps another")
        end = segment.address + segment.memory_size
        if end >= 1 << 64:
            raise Malformed(f"the segment at {segment.address:#x} ends beyond the address space")
    loaded = sum(segment.file_size for segment in loads)
    if loaded > _MAX_LOADED:
        raise Malformed(f"segments of {loaded} bytes")
    # Otherwise a small file could make every scan of "all segments" as long as it likes.
    if loaded > 2 * file_size:
        raise Malformed("segments share the same bytes of the file")


def read_sections(read: PositionalRead, header: Header, file_size: int) -> tuple[Section, ...]:
    """Return all sections, () where the file has no section headers."""
    offset, count = header.sections
    if count == 0:
        return ()
    rows = list(_SECTION_HEADER.iter_unpack(read(offset, count * _SECTION_HEADER.size)))
    for row in rows:
        if row[1] not in (0, SHT_NOBITS) and row[4] + row[5] > file_size:
            raise Malformed(f"truncated: a section ends at byte {row[4] + row[5]} of a file of {file_size}")
    names_at, names_size = 0, 0
    if 0 < header.section_names < count and rows[header.section_names][1] not in (0, SHT_NOBITS):
        names_at, names_size = rows[header.section_names][4:6]
    sections = []
    for name, kind, flags, address, at, size, link, _, _, _ in rows:
        text = b""
        if name < names_size:
            text = read(names_at + name, min(_MAX_SECTION_NAME, names_size - name)).split(b"\0", 1)[0]
        sections.append(Section(text.decode("utf-8", "replace"), kind, flags, address, at, size, link))
    return tuple(sections)


def notes(raw: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (name, type, descriptor) of each note with 4-byte alignment; stop at the first broken one."""
    at = 0
    while at + _NOTE_HEADER.size <= len(raw):
        name_size, size, kind = _NOTE_HEADER.unpack_from(raw, at)
        name_at = at + _NOTE_HEADER.size
        descriptor_at = name_at + (name_size + 3 & ~3)
        if descriptor_at + size > len(raw):
            return
        yield raw[name_at : name_at + name_size], kind, raw[descriptor_at : descriptor_at + size]
        at = descriptor_at + (size + 3 & ~3)
