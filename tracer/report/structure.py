"""How the runtime's memory is organised beside heap, spans and caches."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Address, Bytes, Count, MappingKind


class ArenaHint(Struct, frozen=True):
    """An address at which the runtime will try to get its next arenas, upwards from it or downwards."""

    address: Address
    down: bool


class FixallocRow(Struct, frozen=True):
    """One of mheap's allocators of structs of one size; bytes in use. Its memory is in persistentalloc's chunks."""

    name: str
    object_size: Bytes
    in_use: Bytes


class MetadataRow(Struct, frozen=True):
    """All ranges that the runtime got from the OS for one purpose beside the heap arenas."""

    what: str
    kind: MappingKind
    ranges: Count
    virtual: Bytes
    resident: Bytes


class Scheduler(Struct, frozen=True):
    """Goroutines as runtime.NumGoroutine counts them, and threads (Ms) and Ps as the runtime does.

    `goroutine_states` counts the runtime's own goroutines too; None where there are too many to read.
    `ended_goroutines` have ended, and their g structs, `ended_bytes` of the heap in use, are kept for new ones: no
    collection frees them.
    """

    goroutines: Count
    system_goroutines: Count
    goroutine_states: dict[str, Count] | None
    ms: Count
    ps: Count
    ended_goroutines: Count | None = None
    ended_bytes: Bytes | None = None


class AddressRange(TypedDict):
    """From `base` to before `end`."""

    base: Address
    end: Address


class RuntimeStructure(Struct, frozen=True):
    """How the runtime's memory is organised beside heap, spans and caches. What could not be read is None."""

    metadata: list[MetadataRow]
    fixed_allocs: list[FixallocRow] | None
    arena_hints: list[ArenaHint] | None
    current_arena: Annotated[
        AddressRange | None, Meta(description="what is left of the reservation that the heap grows into")
    ]
    scheduler: Scheduler | None
    threads: Annotated[Count | None, Meta(description="of the process, as the kernel counts them")]
