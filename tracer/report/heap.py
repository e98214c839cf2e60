"""The Go heap: arenas, pages, the collector, the scavenger, MemStats, spans and their caches."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Address, Bytes, Count, Rate, Seconds, Share, SizeClass, SpanClass


class Arena(Struct, frozen=True):
    """One arena: its address space by state, its pages by use, and what of it is resident."""

    base: Address
    size: Bytes
    reserved: Bytes
    prepared: Bytes
    ready: Bytes
    in_use: Bytes
    stacks: Bytes
    work_bufs: Bytes
    free: Bytes
    scavenged: Bytes
    resident: Bytes


class PageStates(Struct, frozen=True):
    """Bytes of heap pages by the runtime's state. `work_bufs`: manual spans that are not stacks."""

    in_use: Bytes
    stacks: Bytes
    work_bufs: Bytes
    free: Bytes
    scavenged: Bytes


class PageResidency(Struct, frozen=True):
    """How many bytes of each page state are in RAM; `outside`: resident arena bytes in no grown page."""

    in_use: Bytes
    stacks: Bytes
    work_bufs: Bytes
    free: Bytes
    scavenged: Bytes
    outside: Bytes


class CpuLimiter(Struct, frozen=True):
    """The runtime's limit on the collector's CPU time, half of GOMAXPROCS (gcCPULimiter, Go 1.19 and later).

    `fill`: share of its bucket that the collector has filled; `limiting` begins when it is full. `last_cycle`: the
    number of the last cycle in which it limited, 0 for never (/gc/limiter/last-enabled:gc-cycle).
    """

    limiting: bool
    fill: Share | None
    last_cycle: Count
    assist_pool: Annotated[
        float | None, Meta(description="CPU seconds of assists that the bucket has not been filled with yet")
    ] = None


class CollectorCpu(Struct, frozen=True):
    """CPU seconds of the collector since the start, as of the end of its last cycle (Go 1.20 and later).

    `mark_assist`: by goroutines that allocate, which have to help; `mark_dedicated`: by its workers, which take a
    quarter of the CPU; `mark_idle`: by CPUs that had nothing else to do; `pause`: with the program stopped; `scavenge`:
    giving memory back. `total`: all CPU time that the program could have had. As /cpu/classes of runtime/metrics.
    """

    mark_assist: Seconds
    mark_dedicated: Seconds
    mark_idle: Seconds
    pause: Seconds
    scavenge: Seconds
    total: Seconds


class CollectorWork(Struct, frozen=True):
    """How hard the collector works.

    `cycles` were seen in the last `seconds`, by `basis`: "watched" (events), or "runtime" (what the runtime keeps of
    its last cycles). `mark_share`: share of that time in which it marked, on one CPU or more; by "runtime" it is what
    the last cycle took, times their rate. `cpu_share`: of all CPU time that the program could have had since its start
    (MemStats.GCCPUFraction, as of the last cycle).
    """

    basis: Literal["watched", "runtime"]
    seconds: Seconds | None
    cycles: Count
    cycles_per_second: Rate | None
    mark_share: Share | None
    cpu_share: Share | None
    since_last_cycle: Seconds | None
    cpu_limiter: CpuLimiter | None
    forced: Annotated[Count | None, Meta(description="cycles since the start that the program forced")] = None
    cpu: CollectorCpu | None = None


class LimitUse(Struct, frozen=True):
    """What GOMEMLIMIT is held against: `total` = Sys - HeapReleased, and its parts, which sum to it exactly.

    `live` was marked by the last collection, `garbage` was allocated since, or is not swept yet; `holes` are free slots
    in spans in use. `limit` None: none is set.
    """

    limit: Bytes | None
    total: Bytes
    live: Bytes
    garbage: Bytes
    holes: Bytes
    stacks: Bytes
    retained: Bytes
    metadata: Bytes
    profile_buckets: Bytes


class Scavenger(Struct, frozen=True):
    """What the background scavenger will return, and what it keeps; sizes in bytes (Go 1.19 and later).

    It returns free pages while `retained` (heap in use and free) is above `goal_bytes`, which the last collection set
    to 110 % of what the heap will need until the next, or while all that Go has mapped is above `limit_goal_bytes`,
    95 % of GOMEMLIMIT. A goal that a collection found met asks for nothing until the next: `active` says that one asks.
    `eligible`: free pages that it would take from now. `will_return_seconds`: by `basis`, as fast as it was while
    watched, or since the start, at the 1 % of the CPU that it may use; None: neither is known.
    `next_collection_seconds`: when the runtime forces one at the latest, if nothing else does; `after_next_collection`:
    what will then be returned if the heap in use and what is alive stay as they are.
    """

    goal_bytes: Bytes | None
    limit_goal_bytes: Bytes | None
    retained: Bytes
    active: bool
    parked: bool | None
    eligible: Bytes
    will_return: Bytes
    will_return_seconds: Seconds | None
    basis: Literal["watched", "since start"] | None
    next_collection_seconds: Seconds | None
    after_next_collection: Bytes | None


class LiveThird(Struct, frozen=True):
    """What the collections of one third of the time found alive; `cycles`: how many of them are known."""

    cycles: Count
    lowest: Bytes
    median: Bytes
    highest: Bytes


class LiveCourse(Struct, frozen=True):
    """The live heap over the last `seconds` that it was seen: what collections marked, in thirds of that time.

    They are known from looks, and while the process is watched from the collections themselves.
    """

    seconds: Seconds
    thirds: Annotated[list[LiveThird], Meta(min_length=3, max_length=3)]


class LargeObject(Struct, frozen=True):
    """One object of more than 32 KB: the pages of its span, and how many of their bytes are in RAM and in swap.

    `type`: of its elements, as the runtime keeps it (Go 1.22 and later, for objects with pointers), `count` of which
    have room in it; None: it keeps none, or the type was made at run time. `function`, `file`, `line`: the call that
    allocated it, where the program's heap profile has a record of it.
    """

    address: Address
    size: Bytes
    resident: Bytes
    swap: Bytes
    noscan: bool
    type: str | None
    count: Count | None
    function: str | None
    file: str | None
    line: Count | None
    huge: Annotated[Bytes | None, Meta(description="of `resident`, in huge pages; null: the kernel does not tell")] = (
        None
    )
    zero_share: Annotated[
        Share | None,
        Meta(description="of the OS pages of `huge` that were looked at, those with nothing but zeros; null: none was"),
    ] = None


class LargeObjects(Struct, frozen=True):
    """All objects of more than 32 KB: their number, the bytes of their pages and what of these is in RAM.

    `types_recorded`: the release keeps the types of those that have pointers (Go 1.22 and later).
    """

    count: Count
    size: Bytes
    resident: Bytes
    types_recorded: bool
    largest: list[LargeObject]


class InUse(Struct, frozen=True):
    """Heap pages in use and what of them costs RAM: they are `resident`, in `swap`, or `not_resident`: never touched.

    `huge`: of `resident`, in huge pages, which are in RAM as a whole as soon as one byte is touched (None: the kernel
    does not tell). `huge_zeros`: how much of that has nothing but zeros in it, estimated by samples of the largest
    objects.
    """

    size: Bytes
    resident: Bytes
    swap: Bytes
    not_resident: Bytes
    huge: Bytes | None
    huge_zeros: Bytes | None


class FreeRunRow(Struct, frozen=True):
    """Runs of free pages of `at_least` bytes and less than twice that. `too_short`: free bytes in all shorter runs.

    No object that takes `at_least` bytes finds room in those.
    """

    at_least: Bytes
    runs: Count
    size: Bytes
    too_short: Bytes


class FreeRuns(Struct, frozen=True):
    """Free heap pages, retained or released, by how many lie in a row: `size` bytes in `runs`, the `longest` of them.

    `page_caches`: bytes of free pages that Ps took aside, in no run; `padding`: of pages that are never used, so that
    the heap begins at a random address (Go 1.26 and later). With these two it is HeapIdle. `too_large`: spans in use
    that are longer than the longest run, with `too_large_size` bytes: the next such object makes the heap grow.
    `smallest_too_large`: bytes of the smallest of these.
    """

    size: Bytes
    runs: Count
    longest: Bytes
    page_caches: Bytes
    padding: Bytes
    too_large: Count
    too_large_size: Bytes
    smallest_too_large: Bytes | None
    by_length: list[FreeRunRow]


class Heap(Struct, frozen=True):
    """The Go heap: arenas, pages by state and residency, and the collector's targets."""

    arenas: list[Arena]
    pages: PageStates
    resident: PageResidency
    goal: Bytes | None
    live: Bytes | None
    gc_percent: Annotated[int, Meta(ge=-1, description="-1: GOGC=off")] | None
    memory_limit: Annotated[Bytes | None, Meta(description="null: no limit")]
    gc_phase: Literal["off", "mark", "mark termination"] | None
    collector: CollectorWork | None = None
    limit_use: LimitUse | None = None
    scavenger: Scavenger | None = None
    live_course: Annotated[
        LiveCourse | None, Meta(description="null: of some third of the time less than two collections are known")
    ] = None
    large_objects: LargeObjects | None = None
    free_runs: FreeRuns | None = None
    in_use: InUse | None = None


class MemStats(TypedDict):
    """runtime.MemStats by its own field names; BySize: [size, mallocs, frees], LastGC and PauseTotalNs: nanoseconds."""

    Alloc: Bytes | None
    TotalAlloc: Bytes | None
    Sys: Bytes | None
    Mallocs: Count | None
    Frees: Count | None
    HeapAlloc: Bytes | None
    HeapSys: Bytes | None
    HeapIdle: Bytes | None
    HeapInuse: Bytes | None
    HeapReleased: Bytes | None
    HeapObjects: Count | None
    StackInuse: Bytes | None
    StackSys: Bytes | None
    MSpanInuse: Bytes | None
    MSpanSys: Bytes | None
    MCacheInuse: Bytes | None
    MCacheSys: Bytes | None
    BuckHashSys: Bytes | None
    GCSys: Bytes | None
    OtherSys: Bytes | None
    NextGC: Bytes | None
    LastGC: Count | None
    PauseTotalNs: Count | None
    NumGC: Count | None
    NumForcedGC: Count | None
    BySize: list[tuple[Bytes, Count, Count]] | None


MEMSTATS = Meta(extra_json_schema={"$ref": "#/$defs/MemStats"})  # what is in a JsonObject that is one


class SpanClassRow(Struct, frozen=True):
    """All in-use spans of one span class. `tail_waste`: bytes behind the last object slot."""

    span_class: SpanClass
    size_class: SizeClass
    object_size: Annotated[Bytes, Meta(description="0 for the large-object classes")]
    noscan: bool
    spans: Count
    pages: Count
    objects: Count
    capacity: Count
    free_slots: Count
    tail_waste: Bytes


class SpanState(Struct, frozen=True):
    """Spans of one state: how many, and how many bytes of pages they hold (0 for dead)."""

    count: Count
    bytes: Bytes


class McacheRow(Struct, frozen=True):
    """The mcache of one P: spans cached, and objects allocated from them that statistics have not seen."""

    p: Count
    spans: Count
    cached_objects: Count


class McentralRow(Struct, frozen=True):
    """The mcentral of one span class: spans in its partial and full sets, and how many of them are not swept yet."""

    span_class: SpanClass
    partial: Count
    full: Count
    partial_unswept: Count = 0
    full_unswept: Count = 0


class PageCacheRow(Struct, frozen=True):
    """The page cache of one P: up to 64 free pages from address `base` on, and how many of them are scavenged."""

    p: Count
    base: Address
    free_pages: Count
    scavenged_pages: Count


class Caches(Struct, frozen=True):
    """Per-P and central span caches; `page_cache` without the empty ones."""

    mcache: list[McacheRow]
    mcentral: list[McentralRow] | None
    page_cache: list[PageCacheRow] | None = None
