"""Names of types are found where the module says; a target that lies gets none, and nothing fails."""

from __future__ import annotations

import struct

import pytest

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.tables import table_for
from gomem.tracer.machine.room import Room
from gomem.tracer.process.memory import Bytes
from gomem.tracer.runtime.types import TypeNames

LAYOUT = table_for("go1.27.3", "amd64")
assert LAYOUT is not None
MODULE, PLUGIN, TYPES, MORE = 0x50_0000, 0x60_0000, 0x40_0000, 0x70_0000


class Image:
    """Some memory: what was written, and zeros around it within the same 64 KB."""

    def __init__(self) -> None:
        self.room = Room(1 << 20)
        self._blocks: dict[int, bytearray] = {}

    def write(self, address: int, data: bytes) -> None:
        block = self._blocks.setdefault(address >> 16, bytearray(1 << 16))
        block[address & 0xFFFF : (address & 0xFFFF) + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        block = self._blocks.get(address >> 16)
        if block is None or (address & 0xFFFF) + size > 1 << 16:
            raise SnapshotError(f"no memory at {address:#x}")
        return bytes(block[address & 0xFFFF : (address & 0xFFFF) + size])

    def read_into(self, address: int, buffer: Bytes) -> None:
        raise NotImplementedError


def module(image: Image, at: int, start: int, end: int, following: int = 0) -> None:
    assert LAYOUT is not None
    for name, value in (("types", start), ("etypes", end), ("next", following)):
        image.write(at + LAYOUT.offset("moduledata", name), struct.pack("<Q", value))


def write_type(image: Image, at: int, name_at: int, star: int = 0) -> None:
    image.write(at, struct.pack("<QQIBBBBQQii", 24, 8, 0, star << 1, 8, 8, 25, 0, 0, name_at, 0))


def names(image: Image) -> TypeNames:
    assert LAYOUT is not None
    return TypeNames(image, LAYOUT, MODULE)


@pytest.fixture
def image() -> Image:
    """A program with a type, and a plugin with another."""
    made = Image()
    module(made, MODULE, TYPES, TYPES + 0x8000, PLUGIN)
    module(made, PLUGIN, MORE, MORE + 0x8000)
    write_type(made, TYPES + 0x100, 0x2000, star=1)
    made.write(TYPES + 0x2000, b"\x01\x0a*main.node")
    write_type(made, MORE + 0x100, 0x2000)
    made.write(MORE + 0x2000, b"\x01\x0bplugin.leaf")
    return made


def test_each_module_has_its_own_types(image: Image) -> None:
    found = names(image)
    assert found.name(TYPES + 0x100) == "main.node"
    assert found.name(MORE + 0x100) == "plugin.leaf"


@pytest.mark.parametrize("address", [0, 1, 0xC000010000, TYPES - 8, TYPES + 0x7FF8, MORE + 0x9000, (1 << 56) - 1])
def test_what_is_no_type_of_a_module_has_no_name(image: Image, address: int) -> None:
    assert names(image).name(address) is None


@pytest.mark.parametrize("offset", [-1, 0, 0x7FFF, 0x8000, 0x7FFF_FFFF, -(1 << 31)])
def test_a_name_that_lies_elsewhere_is_none(image: Image, offset: int) -> None:
    write_type(image, TYPES + 0x200, offset)
    assert names(image).name(TYPES + 0x200) is None


def test_types_that_end_before_they_begin_or_nowhere_have_no_names(image: Image) -> None:
    module(image, MODULE, TYPES + 0x8000, TYPES)
    assert names(image).name(TYPES + 0x100) is None
    module(image, MODULE, 0x10, (1 << 64) - 1)
    assert names(image).name(TYPES + 0x100) is None


def test_modules_that_go_round_are_an_error(image: Image) -> None:
    module(image, PLUGIN, MORE, MORE + 0x8000, MODULE)
    with pytest.raises(SnapshotError, match="does not end"):
        names(image)


def test_a_type_tells_the_size_of_its_values(image: Image) -> None:
    write_type(image, TYPES + 0x100, 0x40)
    assert names(image).size(TYPES + 0x100) == 24
    assert names(image).size(TYPES + 0x8000) is None
