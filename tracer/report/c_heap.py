"""The heap of C, opened: what its allocator has in use, and what it has free and keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Address, Bytes, Count

CAllocator = Literal["glibc", "musl", "jemalloc", "tcmalloc", "mimalloc", "own"]


class CArena(Struct, frozen=True):
    """One arena of glibc (struct malloc_state); `in_use` + `free` = `system`, as malloc_info and mallinfo2 count.

    What threads keep in their tcaches counts as in use. `complete`: all lists of free chunks were read to their ends;
    else `free`, and what follows from it, is the least that it can be.
    """

    address: Address
    main: Annotated[bool, Meta(description="the arena that grows by brk")]
    threads: Annotated[Count, Meta(description="attached_threads")]
    system: Annotated[Bytes, Meta(description="system_mem: got from the kernel and not returned")]
    in_use: Bytes
    free: Annotated[Bytes, Meta(description="chunks in bins and fast bins, and the top chunk")]
    top: Annotated[Bytes, Meta(description="of free: the chunk at the end of the arena")]
    free_chunks: Annotated[Count, Meta(description="in bins and fast bins, and the top chunk")]
    free_resident: Annotated[Bytes, Meta(description="OS pages in RAM with nothing but free memory in them")]
    trimmable: Annotated[Bytes, Meta(description="of free_resident: what malloc_trim(0) would return")]
    complete: bool


class CHeap(Struct, frozen=True):
    """The heap of C. All but `allocators` is None unless it is glibc's, and was found.

    `system`, `in_use`, `free`, `free_resident` and `trimmable` are sums over `arenas`; mallinfo2 calls the first three
    arena, uordblks and fordblks. `mapped` are chunks with a mapping of their own, all in use, beside these.
    """

    allocators: Annotated[
        list[CAllocator],
        Meta(description="recognised, that which has malloc first; own: the executable has one, of no name"),
    ]
    system: Bytes | None = None
    in_use: Bytes | None = None
    free: Bytes | None = None
    top: Annotated[Bytes | None, Meta(description="of the main arena; mallinfo2 calls it keepcost")] = None
    mapped: Annotated[Bytes | None, Meta(description="hblkhd")] = None
    mapped_chunks: Annotated[Count | None, Meta(description="hblks")] = None
    free_resident: Bytes | None = None
    trimmable: Bytes | None = None
    exact: Annotated[bool | None, Meta(description="the lists were complete and stood still while they were read")] = (
        None
    )
    arenas: list[CArena] | None = None
