"""Makes executables with DWARF by the book, in the shape that Go's linker gives it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from tests.support.samples.executables import DATA, TEXT, Elf, Part, elf_file

UNIT, VARIABLE, CONSTANT, STRUCT, MEMBER, BASE, POINTER, TYPEDEF, ARRAY, SUBRANGE = range(1, 11)
# code: tag, has children, (attribute, form)
_STRING, _REF, _UDATA, _SDATA, _EXPRESSION, _FLAG, _OFFSET = 0x08, 0x10, 0x0F, 0x0D, 0x18, 0x0C, 0x17
_ABBREVS: dict[int, tuple[int, bool, list[tuple[int, int]]]] = {
    UNIT: (0x11, True, [(0x03, _STRING), (0x25, _STRING), (0x73, _OFFSET)]),
    VARIABLE: (0x34, False, [(0x03, _STRING), (0x02, _EXPRESSION), (0x49, _REF), (0x3F, _FLAG)]),
    CONSTANT: (0x27, False, [(0x03, _STRING), (0x49, _REF), (0x1C, _SDATA)]),
    STRUCT: (0x13, True, [(0x03, _STRING), (0x0B, _UDATA)]),
    MEMBER: (0x0D, False, [(0x03, _STRING), (0x38, _UDATA), (0x49, _REF), (0x2903, _FLAG)]),
    BASE: (0x24, False, [(0x03, _STRING), (0x0B, 0x0B)]),
    POINTER: (0x0F, False, [(0x03, _STRING), (0x49, _REF)]),
    TYPEDEF: (0x16, False, [(0x03, _STRING), (0x49, _REF)]),
    ARRAY: (0x01, True, [(0x03, _STRING), (0x49, _REF), (0x0B, _UDATA)]),
    SUBRANGE: (0x21, False, [(0x37, _UDATA)]),
    # The code of a struct whose one byte is "*": the tail of "*runtime.x" looks like such an entry.
    0x2A: (0x13, True, [(0x03, _STRING), (0x0B, _UDATA)]),
}


@dataclass
class Dwarf:
    """Builds one unit of package runtime. `type` names are handles; references may point forward."""

    version: int = 4
    producer: str = "Go cmd/compile go1.23.9; regabi"
    _info: bytearray = field(default_factory=bytearray)
    _addresses: list[int] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)
    _references: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        header = 12 if self.version == 5 else 11
        self._info += bytes(header)
        self._entry(UNIT, "runtime")
        self._info += self.producer.encode() + b"\0" + struct.pack("<I", 8)

    def base(self, handle: str, size: int) -> None:
        self._entry(BASE, handle, handle)
        self._info.append(size)

    def pointer(self, handle: str, to: str) -> None:
        self._entry(POINTER, handle, handle)
        self._refer(to)

    def typedef(self, handle: str, name: str, to: str) -> None:
        self._entry(TYPEDEF, name, handle)
        self._refer(to)

    def array(self, handle: str, element: str, count: int, size: int) -> None:
        self._entry(ARRAY, handle, handle)
        self._refer(element)
        self._info += uleb(size) + bytes([SUBRANGE]) + uleb(count) + b"\0"

    def struct(self, handle: str, name: str, size: int, members: list[tuple[str, int, str]]) -> None:
        self._entry(STRUCT, name, handle)
        self._info += uleb(size)
        for member, offset, kind in members:
            self._entry(MEMBER, member)
            self._info += uleb(offset)
            self._refer(kind)
            self._info.append(0)
        self._info.append(0)

    def variable(self, name: str, kind: str, address: int) -> None:
        self._entry(VARIABLE, name)
        if self.version == 5:
            expression = b"\xa1" + uleb(len(self._addresses))
            self._addresses.append(address)
        else:
            expression = b"\x03" + struct.pack("<Q", address)
        self._info += uleb(len(expression)) + expression
        self._refer(kind)
        self._info.append(1)

    def constant(self, name: str, kind: str, value: int) -> None:
        self._entry(CONSTANT, name)
        self._refer(kind)
        self._info += sleb(value)

    def sections(self) -> dict[str, bytes]:
        info = bytearray(self._info + b"\0")
        for place, handle in self._references:
            struct.pack_into("<I", info, place, self._places[handle])
        length = len(info) - 4
        if self.version == 5:
            struct.pack_into("<IHBBI", info, 0, length, 5, 1, 8, 0)
        else:
            struct.pack_into("<IHIB", info, 0, length, self.version, 0, 8)
        addresses = b"".join(struct.pack("<Q", address) for address in self._addresses)
        return {".debug_info": bytes(info), ".debug_abbrev": abbrevs(), ".debug_addr": bytes(8) + addresses}

    def _entry(self, code: int, name: str, handle: str = "") -> None:
        if handle:
            self._places[handle] = len(self._info)
        self._info += uleb(code) + name.encode() + b"\0"

    def _refer(self, handle: str) -> None:
        self._references.append((len(self._info), handle))
        self._info += bytes(4)


def go_runtime(version: int = 4) -> Dwarf:
    """Describe a tiny runtime that uses each construct once."""
    dwarf = Dwarf(version, producer=f"Go cmd/compile go1.{20 + version}.3; regabi")
    dwarf.base("uintptr", 8)
    dwarf.base("uint8", 1)
    dwarf.base("uint16", 2)
    dwarf.pointer("*runtime.mspan", "mspan")
    dwarf.struct(
        "mcentral", "runtime.mcentral", 16, [("spanclass", 0, "uint8"), ("_", 1, "uint8"), ("full", 8, "uintptr")]
    )
    dwarf.typedef("named mcentral", "runtime.mcentral", "mcentral")
    padded = "struct { runtime.mcentral runtime.mcentral; runtime.pad [8]uint8 }"
    dwarf.array("[8]uint8", "uint8", 8, 8)
    dwarf.struct(padded, padded, 24, [("mcentral", 0, "named mcentral"), ("pad", 16, "[8]uint8")])
    dwarf.array(f"[136]{padded}", padded, 136, 136 * 24)
    anonymous = "struct { runtime.base uintptr; runtime.end uintptr }"
    dwarf.struct(anonymous, anonymous, 16, [("base", 0, "uintptr"), ("end", 8, "uintptr")])
    members = [
        ("lock", 0, "uintptr"),
        ("curArena", 8, anonymous),
        ("free", 24, "*runtime.mspan"),
        ("central", 32, f"[136]{padded}"),
    ]
    dwarf.struct("mheap", "runtime.mheap", 3296, members)
    dwarf.typedef("named mheap", "runtime.mheap", "mheap")
    dwarf.struct("mspan", "runtime.mspan", 16, [("npages", 8, "uintptr"), ("next", 0, "*runtime.mspan")])
    dwarf.array("[3]uint16", "uint16", 3, 6)
    dwarf.variable("runtime.mheap_", "named mheap", 0x700000)
    dwarf.variable("runtime.gcBitsArenas", anonymous, 0x700F00)
    dwarf.variable("runtime.class_to_size", "[3]uint16", DATA)
    dwarf.constant("runtime.pallocChunkPages", "uintptr", 512)
    dwarf.constant("runtime.arenaBaseOffsetUintptr", "uintptr", -140737488355328)
    return dwarf


def program(sections: dict[str, bytes]) -> bytes:
    """Put sections into an executable whose data begins with the array 0, 8, 16."""
    parts = [Part(".text", TEXT, b"\xc3" * 16, 5), Part(".data", DATA, struct.pack("<3H", 0, 8, 16) + bytes(10), 6)]
    return elf_file(Elf(parts, unloaded=[(name, 1, content, 0) for name, content in sections.items()]))


def old_compressed(sections: dict[str, bytes]) -> dict[str, bytes]:
    """Compress as Go did before SHF_COMPRESSED: .zdebug_NAME, "ZLIB", the size in big-endian."""
    return {
        name.replace(".debug", ".zdebug"): b"ZLIB" + struct.pack(">Q", len(content)) + zlib.compress(content)
        for name, content in sections.items()
    }


def abbrevs() -> bytes:
    table = bytearray()
    for code, (tag, children, attributes) in _ABBREVS.items():
        table += uleb(code) + uleb(tag) + bytes([children])
        for attribute, form in attributes:
            table += uleb(attribute) + uleb(form)
        table += b"\0\0"
    return bytes(table + b"\0")


def uleb(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def sleb(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        done = value == (-1 if low & 0x40 else 0)
        encoded.append(low | (0 if done else 0x80))
        if done:
            return bytes(encoded)
