"""The layout of a Go runtime from the DWARF of the executable that holds it.

Works for executables that keep their .debug_info: DWARF 4 (until Go 1.24) and DWARF 5, linked by Go
or by the system's linker, compressed or not.
"""

from __future__ import annotations

import re

from gomem.tracer.binary.executable import Executable
from gomem.tracer.errors import BinaryError, LayoutError
from gomem.tracer.layout import catalog
from gomem.tracer.layout.dies import (
    AT_BYTE_SIZE,
    AT_CONST_VALUE,
    AT_COUNT,
    AT_DATA_MEMBER_LOCATION,
    AT_TYPE,
    TAG_ARRAY,
    TAG_CONSTANT,
    TAG_MEMBER,
    TAG_POINTER,
    TAG_STRUCT,
    TAG_SUBRANGE,
    TAG_TYPEDEF,
    TAG_VARIABLE,
    Die,
    DieReader,
)
from gomem.tracer.layout.layout import RawField, RawGlobal, RawLayout, RawStruct

_TAG_SUBROUTINE = 0x15
_MAX_MEMBERS = 4096
_MAX_TYPES = 20_000
_MAX_VISITS = 200_000
_MAX_DEPTH = 24
_MAX_TYPE_SIZE = 1 << 30
_MAX_ARRAY_BYTES = 4096


def read_raw_layout(exe: Executable) -> tuple[RawLayout, dict[str, int]]:
    """Return what a table file holds of the runtime in `exe`, and the link-time address of each global that it lists.

    Raises LayoutError when there is no DWARF, it is corrupt, or it is not of a Go runtime, and BinaryError when
    the file is truncated. Time and memory are bounded by the size of the file.
    """
    reader = DieReader(exe)
    collector = _Collector(reader)
    heap = next(reader.find("runtime.mheap_", TAG_VARIABLE), None)
    if heap is None:
        raise LayoutError("the executable's DWARF does not describe a Go runtime")
    _, producer = reader.unit_name_and_producer(heap)
    version = re.search(r"\bgo(\d+\.[^\s;]+)", producer)
    globals_, addresses = {}, {}
    for name in catalog.GLOBALS:
        die = _first_with_address(reader, f"runtime.{name}")
        if die is not None:
            globals_[name] = collector.global_variable(die[0])
            addresses[name] = die[1]
    for name in catalog.STRUCTS:
        collector.add_named(name)
    raw: RawLayout = {
        "go": version.group(1) if version else "",
        "goarch": exe.machine,
        "constants": _constants(reader, exe, collector),
        "structs": dict(sorted(collector.structs.items())),
        "globals": dict(sorted(globals_.items())),
    }
    return raw, addresses


class _Collector:
    """Turns type entries into table rows, following what they hold by value."""

    def __init__(self, reader: DieReader) -> None:
        self._reader = reader
        self._types: dict[int, Die] = {}
        self._visits = 0
        self.structs: dict[str, RawStruct] = {}

    def global_variable(self, die: Die) -> RawGlobal:
        """Describe a global; its fields are listed when its type is an anonymous struct."""
        field = self._field(die, 0)
        variable: RawGlobal = {"type": field["type"], "size": field["size"]}
        if "count" in field:
            variable["count"], variable["stride"] = field["count"], field["stride"]
        offset = die.integer(AT_TYPE)
        fields: dict[str, RawField] = {}
        if offset is not None:
            self._flatten(offset, "", 0, fields, 0)
        if fields:
            if field["type"].startswith("struct {"):
                variable["type"] = "struct"
            variable["fields"] = fields
        return variable

    def add_named(self, name: str) -> None:
        """Add the struct type `name`, of package runtime where it names none, if the program has it."""
        if name in self.structs:
            return
        die = next(self._reader.find(name if "." in name else f"runtime.{name}", TAG_STRUCT), None)
        if die is not None:
            self._add_struct(name, die, 0)

    def array_shape(self, die: Die) -> tuple[int, int] | None:
        """Return (count, element size in bytes) of a variable that is an array."""
        field = self._field(die, 0)
        return (field["count"], field["stride"]) if "count" in field else None

    def _add_struct(self, name: str, die: Die, depth: int) -> None:
        if die.tag != TAG_STRUCT or name in self.structs:
            return
        size = die.integer(AT_BYTE_SIZE) or 0
        row: RawStruct = {"size": size, "fields": {}}
        self.structs[name] = row
        self._members(die, "", 0, row["fields"], depth)

    def _members(self, die: Die, prefix: str, base: int, fields: dict[str, RawField], depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise LayoutError("the executable's DWARF nests types without end")
        for member in self._reader.children(die, _MAX_MEMBERS):
            if member.tag != TAG_MEMBER or member.name in ("", "_"):
                continue
            offset = base + (member.integer(AT_DATA_MEMBER_LOCATION) or 0)
            name = prefix + member.name
            fields[name] = self._field(member, offset)
            self._visits += 1
            if self._visits > _MAX_VISITS:
                raise LayoutError("the executable's DWARF describes structs without end")
            type_offset = member.integer(AT_TYPE)
            if type_offset is not None:
                self._flatten(type_offset, name, offset, fields, depth + 1)

    def _flatten(self, type_offset: int, name: str, base: int, fields: dict[str, RawField], depth: int) -> None:
        """List the fields of an anonymous struct under `name`; give a struct of package runtime a row of its own."""
        die = self._resolve(type_offset)
        if die.tag == TAG_ARRAY:
            element = die.integer(AT_TYPE)
            if element is not None and depth <= _MAX_DEPTH:
                self._flatten(element, name + "[]", 0, fields, depth + 1)
        elif die.tag == TAG_STRUCT:
            if die.name.startswith("struct {"):
                self._members(die, f"{name}." if name else "", base, fields, depth + 1)
            elif die.name.startswith("runtime."):
                self._add_struct(die.name.removeprefix("runtime."), die, depth + 1)

    def _field(self, die: Die, offset: int) -> RawField:
        type_offset = die.integer(AT_TYPE)
        if type_offset is None:
            raise LayoutError(f"the executable's DWARF gives no type for {die.name}")
        named, actual = self._type(type_offset), self._resolve(type_offset)
        field: RawField = {"offset": offset, "size": self._size(actual, 0), "type": named.name}
        if actual.tag == TAG_ARRAY:
            count = self._count(actual)
            field["count"] = count
            field["stride"] = field["size"] // count if count else 0
        return field

    def _type(self, offset: int) -> Die:
        die = self._types.get(offset)
        if die is None:
            if len(self._types) >= _MAX_TYPES:
                raise LayoutError("the executable's DWARF describes too many types")
            die = self._types[offset] = self._reader.at(offset)
        return die

    def _resolve(self, offset: int) -> Die:
        """Follow typedefs: Go names each defined type by one."""
        die = self._type(offset)
        for _ in range(_MAX_DEPTH):
            target = die.integer(AT_TYPE)
            if die.tag != TAG_TYPEDEF or target is None:
                return die
            die = self._type(target)
        raise LayoutError("the executable's DWARF has a circle of type definitions")

    def _size(self, die: Die, depth: int) -> int:
        size = die.integer(AT_BYTE_SIZE)
        if size is None and die.tag in (TAG_POINTER, _TAG_SUBROUTINE):
            size = die.unit.address_size
        if size is None and die.tag == TAG_ARRAY and depth < _MAX_DEPTH:
            element = die.integer(AT_TYPE)
            size = self._count(die) * self._size(self._resolve(element), depth + 1) if element is not None else 0
        if size is None or not 0 <= size <= _MAX_TYPE_SIZE:
            raise LayoutError(f"the executable's DWARF gives no sensible size for {die.name}")
        return size

    def _count(self, die: Die) -> int:
        for child in self._reader.children(die, 4):
            count = child.integer(AT_COUNT)
            if child.tag == TAG_SUBRANGE and count is not None:
                return count
        return 0


def _first_with_address(reader: DieReader, name: str) -> tuple[Die, int] | None:
    for die in reader.find(name, TAG_VARIABLE):
        address = reader.address(die)
        if address:
            return die, address
    return None


def _constants(reader: DieReader, exe: Executable, collector: _Collector) -> dict[str, int | list[int]]:
    found: dict[str, int | list[int]] = {}
    for ours, names in catalog.CONSTANTS.items():
        for name in names:
            die = next(reader.find(name, TAG_CONSTANT), None)
            value = die.integer(AT_CONST_VALUE) if die else None
            if value is not None:
                found[ours] = _subtracted(value) if ours == "arena_base_offset" else value
                break
    for ours, names in catalog.CONSTANT_ARRAYS.items():
        for name in names:
            located = _first_with_address(reader, name)
            shape = collector.array_shape(located[0]) if located else None
            if located and shape:
                values_of_array = _integers(exe, located[1], *shape)
                if values_of_array:
                    found[ours] = values_of_array
                    break
    return dict(sorted(found.items()))


def _subtracted(arena_base_offset: int) -> int:
    """Return what arenaIndex subtracts from an address, modulo 2^64: up to Go 1.14 on amd64 it adds 2^47 instead."""
    return (-arena_base_offset if arena_base_offset == 1 << 47 else arena_base_offset) & 0xFFFF_FFFF_FFFF_FFFF


def _integers(exe: Executable, address: int, count: int, width: int) -> list[int]:
    """Return an initialised array of the program, or [] where the file has no such bytes."""
    if width not in (1, 2, 4, 8) or not 0 < count * width <= _MAX_ARRAY_BYTES:
        return []
    try:
        content = exe.read(address, count * width)
    except BinaryError:
        return []
    return [int.from_bytes(content[i : i + width], "little") for i in range(0, len(content), width)]
