"""Address space by state and kind, what of it is in RAM, and what limits it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Address, Bytes, Count, MappingKind, Rate


class StateResidency(Struct, frozen=True):
    """How many bytes of each state of address space are in RAM; the first four sum to `resident.total`."""

    reserved: Bytes
    prepared: Bytes
    ready: Bytes
    unmanaged: Bytes
    unmanaged_no_access: Bytes


class AddressLimits(Struct, frozen=True):
    """What limits address space rather than RAM, and what is locked; None: no limit, or not known to this kernel.

    `overcommit` is vm.overcommit_memory; only with 2 is `committed` of the machine (Committed_AS) held against
    `commit_limit`.
    """

    address_space: Annotated[Bytes | None, Meta(description="RLIMIT_AS: for VSZ")]
    data: Annotated[Bytes | None, Meta(description="RLIMIT_DATA: for data_used")]
    data_used: Annotated[Bytes | None, Meta(description="VmData: private writable mappings")]
    locked: Annotated[Bytes | None, Meta(description="VmLck: address space under mlock")]
    overcommit: Annotated[int, Meta(ge=0, le=2)] | None
    commit_limit: Bytes | None
    committed: Bytes | None


class Virtual(Struct, frozen=True):
    """Address space by the runtime's state; the four parts sum to `total` = VmSize.

    Where the runtime could not be read, all but `total` are None. `unmanaged_no_access`: the part of `unmanaged` that
    the program or its libraries have mapped PROT_NONE.
    """

    total: Bytes
    reserved: Bytes | None
    prepared: Bytes | None
    ready: Bytes | None
    unmanaged: Bytes | None
    unmanaged_no_access: Bytes | None = None
    resident: StateResidency | None = None


class Accounting(Struct, frozen=True):
    """The runtime's own count of Ready bytes against what was found; they agree when `unexplained` is 0."""

    mapped_ready: Annotated[Bytes, Meta(description="gcController.mappedReady")]
    heap_index: Annotated[Bytes, Meta(description="the L2 tables of mheap.arenas, mapped but not counted")]
    page_rounding: Annotated[Bytes, Meta(description="requests rounded up to OS pages")]
    unexplained: Annotated[int, Meta(description="mapped_ready + heap_index + page_rounding - virtual.ready")]


class Resident(Struct, frozen=True):
    """What is in RAM. `total` is the sum over resident OS pages; the rest is smaps_rollup's.

    `file` is cut into what the kernel can drop at once, what it can drop after writing it, and what is locked (mlock).
    `skew` is by how many bytes the total misses smaps_rollup's Rss, which is read a moment later; None where that could
    not be read.
    """

    total: Bytes
    anonymous: Bytes | None
    file: Bytes | None
    shmem: Bytes | None
    swap: Bytes | None
    lazy_free: Bytes | None
    huge_pages: Bytes | None
    pss: Bytes | None
    file_clean: Bytes | None = None
    file_dirty: Bytes | None = None
    file_locked: Bytes | None = None
    skew: Bytes | None = None


class BetweenLooks(Struct, frozen=True):
    """Set where the report is of a moment of a recording that no look was taken at: what takes a look is null in it.

    Mappings, region states and events are of `taken_at`. `looked_at` (RFC 3339) is when the look before was done,
    `seconds_before` the moment, and `resident_then` what it saw in RAM. `resident` is null, or what the kernel told of
    its own (`record --with rss`), `resident_age` seconds before the moment. `look_before` and `look_after`: the moments
    of the looks around it, as seconds since the beginning.
    """

    looked_at: str
    seconds_before: float
    resident_then: Resident | None
    resident_age: float | None
    look_before: float
    look_after: float | None


class KindRow(Struct, frozen=True):
    """All mappings (or parts of mappings) of one kind; `kind` is one of KINDS.

    `anonymous` and `shmem`: the parts of `resident` that no file backs, and that are shared memory; the rest is of
    files. `resident` and `swap` are None between two looks of a recording: see BetweenLooks.
    """

    kind: MappingKind
    mappings: Count
    virtual: Bytes
    reserved: Bytes
    prepared: Bytes
    ready: Bytes
    resident: Bytes | None
    swap: Bytes | None
    anonymous: Bytes | None = None
    shmem: Bytes | None = None


class ThreadStackRow(Struct, frozen=True):
    """One stack of an OS thread.

    `tid` and `name` (comm) are of its thread, None where it has ended or does not tell. `deepest`: how far from its end
    the stack has pages in RAM or in swap. It keeps what it has touched, so that this is what it needed at the most.
    """

    tid: Count | None
    name: str | None
    start: Address
    size: Annotated[Bytes, Meta(description="without its guard")]
    guard: Bytes
    resident: Bytes
    deepest: Bytes | None


class ThreadStacks(Struct, frozen=True):
    """The stacks of kind thread_stack: the main thread's, and those that a C library made, also of ended threads.

    Without cgo, Go's own threads run on stacks in the heap, which are not among them. `virtual` includes guard pages.
    """

    stacks: Count
    threads: Annotated[Count | None, Meta(description="of the process now, as the kernel counts them")]
    virtual: Bytes
    resident: Bytes
    median: Annotated[Bytes, Meta(description="resident bytes of a stack")]
    largest: Bytes
    rows: Annotated[
        list[ThreadStackRow] | None, Meta(description="the 20 that hold most, those first; null: a recording of old")
    ] = None


class ResidentSizes(Struct, frozen=True):
    """Bytes by the kernel's own counters; `total` is the RSS: anonymous, file and shmem."""

    total: Bytes
    anonymous: Bytes
    file: Bytes
    shmem: Bytes
    swap: Bytes


class LiveResident(Struct, frozen=True):
    """What the kernel counted as resident when it last changed, and at the most while watching (role rss)."""

    now: ResidentSizes
    peak: Annotated[ResidentSizes, Meta(description="each on its own")]
    changes: Count


class FaultRow(Struct, frozen=True):
    """Page faults where mappings of one kind are at the last look: one of KINDS, or "unmapped" where none is.

    `touched`: bytes that were faulted in at least once, in OS pages, or coarser for processes of many GB.
    """

    kind: str
    faults: Count
    touched: Bytes


class PageFaults(Struct, frozen=True):
    """The page faults of the process while watching (role page-faults).

    Of all `count` faults: `by_kernel` happened when the kernel used the process's memory, `writes` were writes,
    `present` found the page in RAM (copy on write, or not allowed), `unplaced` are in none of `kinds`.
    """

    count: Count
    by_kernel: Count
    writes: Count
    present: Count
    unplaced: Count
    per_second: Rate | None
    kinds: list[FaultRow] | None


class RebuiltRange(Struct, frozen=True):
    """One range of an address space that was rebuilt from a log of system calls alone.

    `protection` as /proc/PID/maps has it ("rw-p"). `looks_like`: what of the Go runtime it may be, recognised `by` the
    size, order or address of the calls; None where it looks like nothing known. Neither is proven.
    """

    start: Address
    size: Bytes
    protection: Annotated[str, Meta(pattern="^[r-][w-][x-][sp]$")]
    file: bool
    looks_like: str | None
    by: str | None
