"""Fields of the runtime's structs by name, at addresses in a target's memory."""

from __future__ import annotations

from msgspec import Struct

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory

_ELEMENT_HELD = 128  # an int and its place in a dict


class Slice(Struct, frozen=True):
    """A Go slice header."""

    address: int
    length: int
    capacity: int


class Record(Struct, frozen=True):
    """The bytes of one struct (or a leading part of it), read once, with its fields by dotted name."""

    layout: Layout
    struct: str
    address: int
    raw: bytes

    def has(self, field: str) -> bool:
        """Tell whether this release's struct has the field."""
        return self.layout.has(self.struct, field)

    def number(self, field: str, *, signed: bool = False) -> int:
        """Return an integer field of 1 to 8 bytes."""
        spot = self.layout.field(self.struct, field)
        size = min(spot.size, 8)
        return int.from_bytes(self.bytes_at(spot.offset, size), "little", signed=signed)

    def slice(self, field: str) -> Slice:
        """Return a slice field's header; SnapshotError if its length exceeds its capacity."""
        offset = self.layout.offset(self.struct, field)
        address, length, capacity = (int.from_bytes(self.bytes_at(offset + step, 8), "little") for step in (0, 8, 16))
        if length > capacity or capacity > 1 << 48:
            raise SnapshotError(f"{self.struct}.{field} at {self.address:#x} is not a slice")
        return Slice(address, length, capacity)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset` from the struct's start."""
        if offset + size > len(self.raw):
            raise SnapshotError(f"{self.struct} at {self.address:#x}: bytes beyond what was read")
        return self.raw[offset : offset + size]


def read_record(memory: Memory, layout: Layout, struct: str, address: int) -> Record:
    """Read one whole struct."""
    return Record(layout, struct, address, memory.read(address, layout.size(struct)))


def follow_list(memory: Memory, layout: Layout, struct: str, field: str, head: int, bound: int) -> list[int]:
    """Return the addresses of a singly linked list, head first.

    Raises SnapshotError if it has more than `bound` elements or returns to one of them.
    """
    seen: dict[int, None] = {}
    offset = layout.offset(struct, field)
    while head:
        if head in seen or len(seen) >= bound:
            raise SnapshotError(f"the list of {struct} by .{field} does not end within {bound} elements")
        memory.room.take(1, _ELEMENT_HELD, f"elements of a list of {struct}")
        seen[head] = None
        head = int.from_bytes(memory.read(head + offset, 8), "little")
    return list(seen)
