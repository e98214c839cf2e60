"""Makes small executables by the book: ELF files, pclntabs of every version, moduledata, build information."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TEXT = 0x401000
RODATA = 0x500000
DATA = 0x600000
PAGE = 0x1000

MAGIC = {"1.2": 0xFFFFFFFB, "1.16": 0xFFFFFFFA, "1.18": 0xFFFFFFF0, "1.20": 0xFFFFFFF1}
BUILD_MAGIC = b"\xff Go buildinf:"


@dataclass
class Part:
    """A loaded segment with one section in it."""

    name: str
    address: int
    content: bytes
    flags: int
    extra_memory: int = 0


@dataclass
class Elf:
    """What `elf_file` makes a file of. Sections without address: (name, type, content, link)."""

    parts: list[Part]
    pie: bool = False
    machine: int = 62
    section_headers: bool = True
    relocations: dict[int, int] = field(default_factory=dict)
    notes: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    interpreter: str | None = None
    unloaded: list[tuple[str, int, bytes, int]] = field(default_factory=list)


def elf_file(elf: Elf) -> bytes:
    """Lay out the file: headers, segments at page boundaries, then what is not loaded, and the section headers."""
    parts = list(elf.parts)
    extra: list[tuple[int, bytes]] = []
    at = 0x900000
    if elf.relocations:
        relative = 8 if elf.machine == 62 else 1027
        table = b"".join(struct.pack("<QQq", place, relative, value) for place, value in elf.relocations.items())
        dynamic = struct.pack("<6Q", 7, at, 8, len(table), 0, 0)
        parts.append(Part(".rela.dyn", at, table, 4))
        parts.append(Part(".dynamic", at + (len(table) | 0xFFFF) + 1, dynamic, 6))
        extra.append((2, dynamic))
    if elf.notes:
        extra.append((4, b"".join(_note(*note) for note in elf.notes)))
    if elf.interpreter:
        extra.append((3, elf.interpreter.encode() + b"\0"))

    body = bytearray(64 + 56 * (len(parts) + len(extra)))
    headers = []
    sections = [("", 0, 0, 0, 0, 0, 0)]
    for part in parts:
        _pad(body, PAGE)
        headers.append(_program_header(1, part.flags, len(body), part.address, len(part.content), part.extra_memory))
        sections.append((part.name, 1, 2, part.address, len(body), len(part.content), 0))
        body += part.content
    for kind, content in extra:
        _pad(body, 16)
        headers.append(_program_header(kind, 4, len(body), 0, len(content), 0))
        body += content
    for name, kind, content, link in elf.unloaded:
        _pad(body, 16)
        sections.append((name, kind, 0, 0, len(body), len(content), link))
        body += content
    _pad(body, 16)
    section_offset = 0
    if elf.section_headers:
        section_offset = _append_sections(body, sections)
    body[64 : 64 + 56 * len(headers)] = b"".join(headers)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    body[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 3 if elf.pie else 2, elf.machine, 1, TEXT, 64, section_offset, 0, 64, 56,
        len(headers), 64, len(sections) + 1 if section_offset else 0, len(sections) if section_offset else 0,
    )  # fmt: skip
    return bytes(body)


def _append_sections(body: bytearray, sections: list[tuple[str, int, int, int, int, int, int]]) -> int:
    names = bytearray(b"\0")
    rows = []
    named = [*sections, (".shstrtab", 3, 0, 0, len(body), 0, 0)]
    offsets = []
    for name, *_ in named:
        offsets.append(len(names) if name else 0)
        names += name.encode() + b"\0" if name else b""
    named[-1] = (".shstrtab", 3, 0, 0, len(body), len(names), 0)
    body += names
    _pad(body, 16)
    for offset, (_, kind, flags, address, at, size, link) in zip(offsets, named, strict=True):
        rows.append(struct.pack("<IIQQQQIIQQ", offset, kind, flags, address, at, size, link, 0, 1, 0))
    start = len(body)
    body += b"".join(rows)
    return start


def _program_header(kind: int, flags: int, offset: int, address: int, size: int, extra: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size + extra, PAGE)


def _note(name: bytes, kind: int, content: bytes) -> bytes:
    padded = content.ljust(-(-len(content) // 4) * 4, b"\0")
    return struct.pack("<III", len(name), len(content), kind) + name.ljust(-(-len(name) // 4) * 4, b"\0") + padded


def _pad(body: bytearray, to: int) -> None:
    body += bytes(-len(body) % to)


@dataclass(frozen=True)
class Sample:
    """A pclntab and where its functions should be."""

    raw: bytes
    functab: int  # offset of functab
    names: int  # offset of funcnametab
    words: list[int]  # offsets at which an address stands that a PIE file relocates


def encode_pclntab(
    version: str,
    functions: Sequence[tuple[str, int]],
    text_start: int = TEXT,
    quantum: int = 1,
    pointer_size: int = 8,
    header_text: int | None = None,
) -> Sample:
    """Encode a table for (name, size in bytes) functions laid out one after another from `text_start`.

    Source: debug/gosym/pclntab.go and cmd/link/internal/ld/pcln.go: the _func records are as short as gosym reads.
    """
    relative = version in ("1.18", "1.20")
    word = {8: "Q", 4: "I"}[pointer_size]
    header = struct.pack("<IBBBB", MAGIC[version], 0, 0, quantum, pointer_size)
    names, name_offsets = _name_blob([name for name, _ in functions])
    field = "I" if relative else word
    entry_size = 4 if relative else pointer_size
    record_size = -(-(entry_size + 4 * 9) // pointer_size) * pointer_size
    functab_size = (2 * len(functions) + 1) * struct.calcsize(field) + 4
    records_at = -(-functab_size // pointer_size) * pointer_size

    header_words = {"1.2": 1, "1.16": 7}.get(version, 8)
    header_size = 8 + header_words * pointer_size
    if version == "1.2":
        functab_at, base = header_size, 0
        names_at = functab_at + records_at + record_size * len(functions)
        record_base, name_base = functab_at + records_at, names_at
    else:
        names_at = header_size
        functab_at = base = names_at + len(names)
        record_base, name_base = records_at, 0

    rows, records, words = [], [], []
    at = 0 if relative else text_start
    for index, (_, size) in enumerate(functions):
        words.append(functab_at + 2 * index * struct.calcsize(field))
        rows.append(struct.pack(f"<2{field}", at, record_base + index * record_size))
        name = name_base + name_offsets[index]
        records.append((struct.pack(f"<{field}", at) + struct.pack("<i8i", name, *range(8))).ljust(record_size, b"\0"))
        at += size
    words.append(functab_at + 2 * len(functions) * struct.calcsize(field))
    rows.append(struct.pack(f"<{field}", at))
    # What follows in 1.2 is the offset of the file table: an empty one, with its length first.
    file_table = functab_at + records_at + record_size * len(functions) + len(names)
    tail = struct.pack("<I", file_table if version == "1.2" else 0)
    functab = (b"".join(rows) + tail).ljust(records_at, b"\0") + b"".join(records)
    values = [len(functions)]
    if version != "1.2":
        values += [0]
        values += [text_start if header_text is None else header_text] if relative else []
        values += [names_at, names_at + len(names), names_at + len(names), names_at + len(names), base]
    raw = header + struct.pack(f"<{len(values)}{word}", *values)
    raw += functab + names + struct.pack("<I", 1) if version == "1.2" else names + functab
    return Sample(raw, functab_at, names_at if version != "1.2" else 0, [] if relative else words)


def _name_blob(names: Sequence[str]) -> tuple[bytes, list[int]]:
    """As the linker does: each name once, however many functions have it."""
    blob, known = bytearray(), {}
    for name in names:
        if name not in known:
            known[name] = len(blob)
            blob += name.encode() + b"\0"
    return bytes(blob.ljust(-(-len(blob) // 8) * 8, b"\0")), [known[name] for name in names]


def encode_moduledata(version: str, pclntab: int, sample: Sample, text: int, end: int, count: int) -> dict[int, int]:
    """Return the words of moduledata that are not 0: index -> value."""
    at = 3 if version == "1.2" else 16
    words = {0: pclntab, at: pclntab + sample.functab, at + 1: count + 1, at + 2: count + 1}
    words |= {at + 3: pclntab, at + 4: text, at + 5: end, at + 6: text, at + 7: end}
    return words


Functions = Sequence[tuple[str, int]]


def go_elf(
    version: str,
    functions: Functions,
    *,
    pie: bool = False,
    moduledata: bool = True,
    header_text: int | None = None,
    section_headers: bool = True,
    decoy: bytes = b"",
) -> Elf:
    """Return a Go program of nothing but text, pclntab and moduledata. In a PIE all pointers are relocations."""
    sample = encode_pclntab(version, functions, header_text=header_text)
    pclntab = RODATA + len(decoy)
    end = TEXT + sum(size for _, size in functions)
    data = bytearray(512)
    table = bytearray(sample.raw)
    relocations = {}
    if moduledata:
        place = DATA + 64
        for index, value in encode_moduledata(version, pclntab, sample, TEXT, end, len(functions)).items():
            if pie and value >= TEXT:
                relocations[place + 8 * index] = value
            else:
                data[64 + 8 * index : 72 + 8 * index] = struct.pack("<Q", value)
    if pie:
        for offset in sample.words:
            relocations[pclntab + offset] = int.from_bytes(table[offset : offset + 8], "little")
            table[offset : offset + 8] = bytes(8)
    return Elf(
        [
            Part(".text", TEXT, b"\xcc" * (end - TEXT), 5),
            Part(".gopclntab" if not decoy else ".rodata", RODATA, decoy + bytes(table), 4),
            Part(".data", DATA, bytes(data), 6, extra_memory=4096),
        ],
        pie=pie,
        relocations=relocations,
        section_headers=section_headers,
    )


def framed(lines: str) -> bytes:
    """Put the linker's 16-byte frames around module lines."""
    return (
        bytes.fromhex("3077af0c9274080241e1c107e6d618e6")
        + lines.encode()
        + bytes.fromhex("f932433186182072008242104116d8f2")
    )


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def inline_build_info(version: str, lines: str) -> bytes:
    """Encode the format of Go 1.18 and later."""
    modules = framed(lines) if lines else b""
    header = BUILD_MAGIC + bytes([8, 2]) + bytes(16)
    return header + varint(len(version)) + version.encode() + varint(len(modules)) + modules


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


WriteElf = Callable[[Elf], Path]
