"""BPF programs and their maps as the compiler left them, and how the kernel gets them: without the compiler."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping

import msgspec

from gomem.bpf import syscalls
from gomem.bpf.probes.uprobe_program import lift_memory_limit, maps_in
from gomem.bpf.refusals import map_refused, refused


class MapDefinition(msgspec.Struct, frozen=True):
    """A map: enum bpf_map_type, sizes in bytes, and flags of BPF_MAP_CREATE."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


class Compiled(msgspec.Struct, frozen=True):
    """The maps, and the instructions of each function, which have the number of a map where its descriptor will be."""

    maps: list[MapDefinition]
    functions: dict[str, bytes]


def compiled(maps: Mapping[str, int], functions: Mapping[str, bytes]) -> Compiled:
    """Return what is there of maps, by name, and functions, whose instructions have these descriptors."""
    numbers = {fd: number for number, fd in enumerate(maps.values())}
    definitions = [MapDefinition(name, *syscalls.map_information(fd)) for name, fd in maps.items()]
    return Compiled(definitions, {name: _with_maps(code, numbers) for name, code in functions.items()})


def make_maps(program: Compiled) -> dict[str, int]:
    """Make the maps; return their descriptors by name. Raises BackendUnavailable or NotPermitted."""
    made: dict[str, int] = {}
    try:
        for one in program.maps:
            made[one.name] = _make(one)
    except BaseException:
        for fd in made.values():
            os.close(fd)
        raise
    return made


def instructions(program: Compiled, function: str, maps: Mapping[str, int]) -> bytes:
    """Return those of a function, with the descriptors of its maps."""
    return _with_maps(program.functions[function], dict(enumerate(maps[one.name] for one in program.maps)))


def _make(one: MapDefinition) -> int:
    shape = one.kind, one.key_bytes, one.value_bytes, one.entries, one.flags
    try:
        try:
            return syscalls.map_create(one.name, *shape)
        except PermissionError:  # before Linux 5.11 maps count as locked memory
            if not lift_memory_limit():
                raise
            return syscalls.map_create(one.name, *shape)
    except OSError as error:
        said = map_refused(one.name) if error.errno == errno.EINVAL else str(error.strerror)
        refused(f"the kernel refuses the BPF map {one.name}", said, error)


def _with_maps(code: bytes, numbers: Mapping[int, int]) -> bytes:
    changed = bytearray(code)
    for at, number in maps_in(code):
        struct.pack_into("<i", changed, at + 4, numbers[number])
    return bytes(changed)
