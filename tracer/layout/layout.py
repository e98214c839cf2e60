"""Struct layouts of one Go runtime: where each field lies, and the runtime's own constants.

A layout comes from a table in `tracer/layout/tables`, or from the DWARF of the very executable.
Names are the runtime's, without `runtime.`; a field of a nested struct is asked for with dots
("pages.inUse.ranges"), whether or not the nested struct has a name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypedDict

from msgspec import Struct

from gomem.tracer.errors import LayoutError

Source = Literal["table", "dwarf", "nearest"]
Constant = int | Sequence[int]

_MAX_DEPTH = 32


class RawField(TypedDict, total=False):
    """One field as the table files spell it; `count` and `stride` only for arrays."""

    offset: int
    size: int
    type: str
    count: int
    stride: int


class RawStruct(TypedDict):
    """One struct as the table files spell it."""

    size: int
    fields: dict[str, RawField]


class RawGlobal(TypedDict, total=False):
    """One global variable as the table files spell it; `fields` only where its type has no name."""

    type: str
    size: int
    count: int
    stride: int
    fields: dict[str, RawField]


class RawEarlier(TypedDict):
    """How earlier patch releases differ from the newest one of a table: whole rows, null for one that they lack."""

    measured: list[str]
    constants: dict[str, int | list[int] | None]
    structs: dict[str, RawStruct | None]
    globals: dict[str, RawGlobal | None]


class RawLayout(TypedDict, total=False):
    """A whole table file; `measured` lists the patch releases whose toolchains yield its very rows."""

    go: str
    goarch: str
    measured: list[str]
    earlier: list[RawEarlier]
    provenance: dict[str, str]
    constants: dict[str, int | list[int]]
    structs: dict[str, RawStruct]
    globals: dict[str, RawGlobal]


class Field(Struct, frozen=True):
    """A field: bytes from the start of the struct it was asked of, and its size in bytes.

    An array has `count` elements, `stride` bytes apart; else both are 0. For a path with `[]`
    the offset counts from the start of the array's element.
    """

    offset: int
    size: int
    type: str
    count: int = 0
    stride: int = 0


class GlobalVariable(Struct, frozen=True):
    """A global of the runtime: its Go type and its size in bytes; an array as in Field."""

    name: str
    type: str
    size: int
    count: int = 0
    stride: int = 0


class Layout:
    """The layouts of one Go release on one architecture.

    `source` is "table", "dwarf", or "nearest" for the table of a neighbouring release. Every look-up of something
    that this release does not have raises LayoutError; `has` and `has_struct` ask first. `confirmed` is False when the
    target's own patch release was never measured, and lies not between two that agree; it becomes True when the layout
    has proven itself on a live process of the very executable.
    """

    def __init__(self, raw: RawLayout, source: Source, go_version: str = "", confirmed: bool = True) -> None:
        """Wrap a table; `go_version` is the target's own release, where it differs from the table's."""
        self.confirmed = confirmed
        self.table_version = raw["go"]
        self.go_version = go_version or raw["go"]
        self.goarch = raw["goarch"]
        self.source: Source = source
        self.provenance: Mapping[str, str] = MappingProxyType(raw.get("provenance", {}))
        self._structs = raw["structs"]
        self._raw_globals = raw["globals"]
        self._constants = raw.get("constants", {})
        self._resolved: dict[tuple[str, str], Field | None] = {}
        self.globals: Mapping[str, GlobalVariable] = MappingProxyType(
            {
                name: GlobalVariable(name, g["type"], g["size"], g.get("count", 0), g.get("stride", 0))
                for name, g in raw["globals"].items()
                if "size" in g
            }
        )

    def __repr__(self) -> str:
        return f"Layout({self.go_version}/{self.goarch}, {self.source})"

    def offset(self, struct: str, dotted_field: str) -> int:
        """Return the bytes from the start of `struct` (or of the global of that name) to the field."""
        return self.field(struct, dotted_field).offset

    def field(self, struct: str, dotted_field: str) -> Field:
        """Return the field of `struct`, which is a struct's name or a global's."""
        found = self._find(struct, dotted_field)
        if found is None:
            missing = f"field {dotted_field} in struct {struct}" if self.has_struct(struct) else f"struct {struct}"
            raise LayoutError(f"{self._release} has no {missing}", self._fix)
        return found

    def has(self, struct: str, dotted_field: str) -> bool:
        """Say whether this release has the field."""
        return self._find(struct, dotted_field) is not None

    def has_struct(self, struct: str) -> bool:
        """Say whether this release has the struct (or a global of struct type with that name)."""
        return self._fields_of(struct) is not None

    def size(self, struct: str) -> int:
        """Return the size of the struct, or of the global of that name, in bytes."""
        row = self._structs.get(struct) or self._raw_globals.get(struct)
        if row is None or "size" not in row:
            raise LayoutError(f"{self._release} has no known size of {struct}", self._fix)
        return row["size"]

    def fields(self, struct: str) -> Mapping[str, Field]:
        """Return the fields of `struct` that the table lists, by dotted name, in memory order."""
        raw = self._fields_of(struct)
        if raw is None:
            raise LayoutError(f"{self._release} has no struct {struct}", self._fix)
        return {name: _field(f) for name, f in raw.items()}

    def constant(self, name: str) -> int:
        """Return an integer constant of the runtime, in the runtime's unit (bytes, bits or a count)."""
        value = self._constants.get(name)
        if not isinstance(value, int):
            raise LayoutError(f"{self._release} has no constant {name}", self._fix)
        return value

    def constants(self, name: str) -> tuple[int, ...]:
        """Return a constant array of the runtime, such as class_to_size."""
        value = self._constants.get(name)
        if not isinstance(value, list):
            raise LayoutError(f"{self._release} has no constant array {name}", self._fix)
        return tuple(value)

    def has_constant(self, name: str) -> bool:
        """Say whether the constant, or constant array, is known for this release."""
        return name in self._constants

    @property
    def constant_names(self) -> frozenset[str]:
        """The names that `constant` or `constants` answers."""
        return frozenset(self._constants)

    @property
    def struct_names(self) -> frozenset[str]:
        """The names of the structs that have rows of their own."""
        return frozenset(self._structs)

    @property
    def _release(self) -> str:
        table = f" (read with the table of go{self.table_version})" if self.source == "nearest" else ""
        return f"layout of go{self.go_version.removeprefix('go')}/{self.goarch}{table}"

    @property
    def _fix(self) -> str:
        if self.source == "nearest":
            return "a newer gomem may know this release"
        return "this figure cannot be read for this Go release"

    def _fields_of(self, struct: str) -> dict[str, RawField] | None:
        if struct in self._structs:
            return self._structs[struct]["fields"]
        variable = self._raw_globals.get(struct)
        if variable is None:
            return None
        if "fields" in variable:
            return variable["fields"]
        named = self._structs.get(_local(variable["type"]))
        return named["fields"] if named else None

    def _find(self, struct: str, path: str) -> Field | None:
        key = (struct, path)
        if key not in self._resolved:
            self._resolved[key] = self._walk(struct, path, _MAX_DEPTH)
        return self._resolved[key]

    def _walk(self, struct: str, path: str, depth: int) -> Field | None:
        """Resolve `path` by its longest listed prefix, then inside the type of that prefix."""
        fields = self._fields_of(struct)
        if fields is None or not depth:
            return None
        if path in fields:
            return _field(fields[path])
        for end in _prefix_ends(path):
            prefix, rest = path[:end], path[end:].removeprefix(".")
            outer = fields.get(prefix.removesuffix("[]"))
            if outer is None:
                continue
            in_element = prefix.endswith("[]")
            inner_type = _element(outer["type"]) if in_element else outer["type"]
            inner = self._walk(_local(inner_type), rest, depth - 1)
            if inner is None:
                return None
            restarts = in_element or "[]" in rest
            offset = inner.offset + (0 if restarts else outer["offset"])
            return Field(offset, inner.size, inner.type, inner.count, inner.stride)
        return None


def _field(raw: RawField) -> Field:
    return Field(raw["offset"], raw["size"], raw["type"], raw.get("count", 0), raw.get("stride", 0))


def _prefix_ends(path: str) -> list[int]:
    """Return the ends of the proper prefixes of a dotted path, longest first: "a[].b.c" gives "a[].b", "a[]"."""
    return [i for i in range(len(path) - 1, 0, -1) if path[i] == "."]


def _element(type_name: str) -> str:
    """Return the element type of an array or a slice: "[3]runtime.heapStatsDelta" gives "runtime.heapStatsDelta"."""
    return type_name.partition("]")[2] if type_name.startswith("[") else type_name


def _local(type_name: str) -> str:
    """Return the name of a type of package runtime as the tables know it; others keep their package."""
    return type_name.removeprefix("runtime.")
