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


class TimerFunction(Struct, frozen=True):
    """What timers call when they fire: of time.AfterFunc what it was given. `timers`: how many of those looked at."""

    function: str
    timers: Count


class Timers(Struct, frozen=True):
    """Timers in the heaps of all Ps, `stopped` ones that wait to be removed among them.

    `size`: bytes that they take at least: themselves, without what they hold. `functions`: the most frequent, of
    `looked_at` timers. From Go 1.23 on a timer with a channel is in no heap unless a goroutine waits for it.
    """

    count: Count
    stopped: Count
    size: Bytes
    looked_at: Count
    functions: list[TimerFunction]


class QueuedCalls(Struct, frozen=True):
    """Finalizers and cleanups of dead objects that wait for a goroutine of the runtime's own to call them.

    `cleanups` None: they are among the finalizers (Go 1.24), or could not be told.
    """

    finalizers: Count
    cleanups: Count | None


class ProfileBuckets(Struct, frozen=True):
    """Buckets of the runtime's own profiles: one for each call stack (and size of objects) that one has ever seen.

    None is ever freed. `memory`: as many records as runtime.MemProfile(nil, true) tells; `block` and `mutex`: as
    BlockProfile and MutexProfile do, None where the program has no code that reads them.
    """

    memory: Count | None
    block: Count | None
    mutex: Count | None


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
    timers: Timers | None = None
    specials: Annotated[
        dict[str, Count] | None,
        Meta(description="what the runtime keeps beside objects: finalizers, cleanups, weak_handles, ..."),
    ] = None
    queued: QueuedCalls | None = None
    profile_buckets: Annotated[
        ProfileBuckets | None, Meta(description="counted where BuckHashSys is 16 MiB or more; else null")
    ] = None
