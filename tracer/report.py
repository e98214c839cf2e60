"""The report: plain data, the contract of `--format json` (schema "gomem.report/1").

All sizes are bytes, all durations seconds. None means "could not be had" (`limits` says why), never 0.
Renderers read these classes and nothing under them; `to_dict` gives the JSON object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

SCHEMA = "gomem.report/1"

KINDS = (
    "heap_arena",
    "heap_metadata",
    "page_summary",
    "runtime_other",
    "thread_stack",
    "c_heap",
    "binary",
    "shared_library",
    "file",
    "vdso",
    "other",
)

Severity = Literal["info", "warning", "critical"]
JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Limit:
    """Something this report could not see: what, why, and what would fix it."""

    what: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Consistency:
    """How well the parts read from a moving target agree."""

    exact: bool
    attempts: int
    skew_bytes: int


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The target's memory cgroup (v2 names; v1 figures are put under them)."""

    path: str
    memory_current: int | None
    memory_max: int | None  # None: no limit
    memory_high: int | None
    oom_kill: int | None


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Who the target is."""

    pid: int
    ns_pid: int
    start_time: str  # RFC 3339
    exe: str
    cmdline: list[str]
    go_version: str | None = None
    goarch: str | None = None
    build_id: str | None = None
    main_module: str | None = None
    pie: bool | None = None
    stripped: bool | None = None
    cgo: bool | None = None
    layout: Literal["table", "dwarf", "nearest"] | None = None
    cgroup: Cgroup | None = None
    container_id: str | None = None
    pod: str | None = None


@dataclass(frozen=True, slots=True)
class Virtual:
    """Address space by the runtime's state; the four parts sum to `total` = VmSize.

    Where the runtime could not be read, reserved, prepared, ready and unmanaged are None.
    """

    total: int
    reserved: int | None
    prepared: int | None
    ready: int | None
    unmanaged: int | None


@dataclass(frozen=True, slots=True)
class Accounting:
    """The runtime's own count of Ready bytes against what was found; they agree when `unexplained` is 0."""

    mapped_ready: int  # gcController.mappedReady
    heap_index: int  # the L2 tables of mheap.arenas, mapped but not counted
    page_rounding: int  # requests rounded up to OS pages
    unexplained: int  # mapped_ready + heap_index + page_rounding - virtual.ready


@dataclass(frozen=True, slots=True)
class Resident:
    """What is in RAM. `total` is the sum over resident OS pages; the rest is smaps_rollup's."""

    total: int
    anonymous: int | None
    file: int | None
    shmem: int | None
    swap: int | None
    lazy_free: int | None
    huge_pages: int | None
    pss: int | None


@dataclass(frozen=True, slots=True)
class KindRow:
    """All mappings (or parts of mappings) of one kind; `kind` is one of KINDS."""

    kind: str
    mappings: int
    virtual: int
    reserved: int
    prepared: int
    ready: int
    resident: int
    swap: int


@dataclass(frozen=True, slots=True)
class Arena:
    """One arena: its address space by state, its pages by use, and what of it is resident."""

    base: int
    size: int
    reserved: int
    prepared: int
    ready: int
    in_use: int
    stacks: int
    work_bufs: int
    free: int
    scavenged: int
    resident: int


@dataclass(frozen=True, slots=True)
class PageStates:
    """Bytes of heap pages by the runtime's state. `work_bufs`: manual spans that are not stacks."""

    in_use: int
    stacks: int
    work_bufs: int
    free: int
    scavenged: int


@dataclass(frozen=True, slots=True)
class PageResidency:
    """How many bytes of each page state are in RAM; `outside`: resident arena bytes in no grown page."""

    in_use: int
    stacks: int
    work_bufs: int
    free: int
    scavenged: int
    outside: int


@dataclass(frozen=True, slots=True)
class Heap:
    """The Go heap: arenas, pages by state and residency, and the collector's targets."""

    arenas: list[Arena]
    pages: PageStates
    resident: PageResidency
    goal: int | None
    live: int | None
    gc_percent: int | None  # -1: GOGC=off
    memory_limit: int | None  # None: no limit
    gc_phase: Literal["off", "mark", "mark termination"] | None


@dataclass(frozen=True, slots=True)
class SpanClassRow:
    """All in-use spans of one span class. `tail_waste`: bytes behind the last object slot."""

    span_class: int
    size_class: int
    object_size: int  # 0 for the large-object classes
    noscan: bool
    spans: int
    pages: int
    objects: int
    capacity: int
    free_slots: int
    tail_waste: int


@dataclass(frozen=True, slots=True)
class SpanState:
    """Spans of one state: how many, and how many bytes of pages they hold (0 for dead)."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class McacheRow:
    """The mcache of one P: spans cached, and objects allocated from them that statistics have not seen."""

    p: int
    spans: int
    cached_objects: int


@dataclass(frozen=True, slots=True)
class McentralRow:
    """The mcentral of one span class: spans in its partial and full sets, and how many of them are not swept yet."""

    span_class: int
    partial: int
    full: int
    partial_unswept: int = 0
    full_unswept: int = 0


@dataclass(frozen=True, slots=True)
class PageCacheRow:
    """The page cache of one P: up to 64 free pages from address `base` on, and how many of them are scavenged."""

    p: int
    base: int
    free_pages: int
    scavenged_pages: int


@dataclass(frozen=True, slots=True)
class Caches:
    """Per-P and central span caches; `page_cache` without the empty ones."""

    mcache: list[McacheRow]
    mcentral: list[McentralRow] | None
    page_cache: list[PageCacheRow] | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """Bytes that went from one region state to another, and the runtime function that did it.

    `event` is the probe role (reserve, map, ...); `function` None where no stack was had.
    """

    from_state: str  # "None" | "Reserved" | "Prepared" | "Ready" | "any"
    to_state: str
    event: str
    function: str | None
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class EventCount:
    """Events of one name: how many succeeded with how many bytes, and how many failed."""

    count: int
    bytes: int
    failed: int = 0


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One rare event in the order of time; `seconds` since the first moment of watching."""

    seconds: float
    event: str
    address: int | None
    bytes: int | None
    function: str | None
    callers: list[str]


@dataclass(frozen=True, slots=True)
class EventLoss:
    """Events known lost, re-synchronisations, and bytes by which model and snapshot differ (None: not compared)."""

    lost: int
    resyncs: int
    drift_bytes: int | None


@dataclass(frozen=True, slots=True)
class StateDrift:
    """Bytes whose region state the model had as `model` and a look as `look`."""

    model: str  # "None" | "Reserved" | "Prepared" | "Ready"
    look: str
    bytes: int


@dataclass(frozen=True, slots=True)
class IllegalTransition:
    """A transition that runtime/mem.go does not allow: what was asked for, and the states `found` in that range."""

    seconds: float
    event: str
    address: int
    bytes: int
    found: list[str]
    function: str | None


@dataclass(frozen=True, slots=True)
class Drift:
    """How the state rebuilt from events compared with the looks; bytes are sums over all comparisons.

    `mappings` (mapped or not, and the protection) and `states` add up to event_loss.drift_bytes; `after_loss` is a part
    of them, found after events were lost. Not in them: `unsure`, what calls in an unknown order or that failed half
    done left otherwise than assumed, and `stack_growth`, which is no event.
    """

    looks: int
    exact_looks: int  # of them, those whose region states could be compared
    mappings: int
    states: list[StateDrift]
    after_loss: int
    unsure: int
    stack_growth: int
    illegal_count: int
    illegal: list[IllegalTransition]  # the first of them


@dataclass(frozen=True, slots=True)
class GcCycleSpans:
    """Spans handed out and taken back from one cycle's start to the next one's.

    `watched_share`: for which share of that time span events were watched for; nothing is added for the rest.
    """

    allocated: int
    freed: int
    allocated_pages: int
    freed_pages: int
    watched_share: float


@dataclass(frozen=True, slots=True)
class GcCycleRow:
    """One GC cycle; seconds since the first moment of watching. None: not seen.

    `heap_before` is what counted as live when it began, `heap_after` what it marked, `goal` the heap goal that it had.
    Where the probes cannot read them, `goal` and `heap_before` (HeapAlloc) are of the last look before the cycle, and
    `heap_after` is of the first one after it. `scavenged_during` and `scavenged_after` are what sysUnused gave back,
    bytes, until the cycle ended, and from then to the start of the next one.
    """

    started: float | None
    ended: float | None
    goal: int | None
    heap_before: int | None
    heap_after: int | None
    mark_seconds: float | None = None
    scavenged_during: int | None = None
    scavenged_after: int | None = None
    spans: GcCycleSpans | None = None  # None: span events were not watched for


@dataclass(frozen=True, slots=True)
class SpanChurnRow:
    """Spans of one span class, or of one other use, that came and went while span events were watched for.

    `work_bufs`: spans that are managed by hand and are no stacks. `lives`: spans of which both their beginning and
    their end were seen; their mean life is short of the truth, as those that live long do not end while one watches.
    """

    use: Literal["heap", "stacks", "work_bufs"]
    span_class: int | None  # None: not of the heap
    size_class: int | None
    object_size: int | None  # bytes; 0 for large objects
    noscan: bool | None
    allocated: int
    freed: int
    allocated_pages: int
    freed_pages: int
    lives: int
    mean_life_seconds: float | None


@dataclass(frozen=True, slots=True)
class SpanEvents:
    """Spans that came and went. Counts are of `watched_seconds` only, `watched_share` of the whole time of watching.

    The probes were on for `windows` stretches of time, of which `stops` ended because they had used up their `budget`
    (share of the target's time).
    """

    watched_seconds: float
    watched_share: float
    windows: int
    stops: int
    budget: float
    allocated: int
    freed: int
    allocated_pages: int
    freed_pages: int
    classes: list[SpanChurnRow]


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One probe and how often it fired."""

    role: str
    symbol: str
    hits: int


@dataclass(frozen=True, slots=True)
class Overhead:
    """What the tracing itself cost. `target_slowdown_estimate`: share of the target's time.

    `frozen_seconds`: for how long the target was stopped; None: it never was.
    """

    tracer_cpu_seconds: float
    tracer_rss: int
    probes: list[ProbeRow]
    target_slowdown_estimate: float | None
    frozen_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement in plain words, with the figures behind it and what to do."""

    id: str
    severity: Severity
    title: str
    explanation: str
    evidence: dict[str, int | float | str | None]
    action: str


@dataclass(frozen=True, slots=True)
class ArenaHint:
    """An address at which the runtime will try to get its next arenas, upwards from it or downwards."""

    address: int
    down: bool


@dataclass(frozen=True, slots=True)
class FixallocRow:
    """One of mheap's allocators of structs of one size; bytes in use. Its memory is in persistentalloc's chunks."""

    name: str
    object_size: int
    in_use: int


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """All ranges that the runtime got from the OS for one purpose beside the heap arenas."""

    what: str
    kind: str  # of KINDS
    ranges: int
    virtual: int
    resident: int


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Goroutines as runtime.NumGoroutine counts them, and threads (Ms) and Ps as the runtime does.

    `goroutine_states` counts the runtime's own goroutines too; None where there are too many to read.
    """

    goroutines: int
    system_goroutines: int
    goroutine_states: dict[str, int] | None
    ms: int
    ps: int


@dataclass(frozen=True, slots=True)
class RuntimeStructure:
    """How the runtime's memory is organised beside heap, spans and caches. What could not be read is None."""

    metadata: list[MetadataRow]
    fixed_allocs: list[FixallocRow] | None
    arena_hints: list[ArenaHint] | None
    current_arena: dict[str, int] | None  # base and end of what is left of the reservation that the heap grows into
    scheduler: Scheduler | None
    threads: int | None  # of the process, as the kernel counts them


@dataclass(frozen=True, slots=True)
class ResidentSizes:
    """Bytes by the kernel's own counters; `total` is the RSS: anonymous, file and shmem."""

    total: int
    anonymous: int
    file: int
    shmem: int
    swap: int


@dataclass(frozen=True, slots=True)
class LiveResident:
    """What the kernel counted as resident when it last changed, and at the most while watching (role rss)."""

    now: ResidentSizes
    peak: ResidentSizes  # each on its own
    changes: int


@dataclass(frozen=True, slots=True)
class FaultRow:
    """Page faults where mappings of one kind are at the last look: one of KINDS, or "unmapped" where none is.

    `touched`: bytes that were faulted in at least once, in OS pages, or coarser for processes of many GB.
    """

    kind: str
    faults: int
    touched: int


@dataclass(frozen=True, slots=True)
class PageFaults:
    """The page faults of the process while watching (role page-faults).

    Of all `count` faults: `by_kernel` happened when the kernel used the process's memory, `writes` were writes,
    `present` found the page in RAM (copy on write, or not allowed), `unplaced` are in none of `kinds`.
    """

    count: int
    by_kernel: int
    writes: int
    present: int
    unplaced: int
    per_second: float | None
    kinds: list[FaultRow] | None


@dataclass(frozen=True, slots=True)
class RebuiltRange:
    """One range of an address space that was rebuilt from a log of system calls alone.

    `protection` as /proc/PID/maps has it ("rw-p"). `looks_like`: what of the Go runtime it may be, recognised `by` the
    size, order or address of the calls; None where it looks like nothing known. Neither is proven.
    """

    start: int
    size: int
    protection: str
    file: bool
    looks_like: str | None
    by: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """One report; see REPORT in the README for the rules it obeys."""

    taken_at: str
    duration_seconds: float
    backend: Literal["bpf", "strace", "procfs", "replay"]
    backend_reason: str  # why this backend was chosen
    limits: list[Limit]
    consistency: Consistency | None
    process: ProcessFacts
    virtual: Virtual | None
    resident: Resident | None
    kinds: list[KindRow] | None
    heap: Heap | None
    memstats: JsonObject | None  # runtime.MemStats by its own field names; BySize: [[size, mallocs, frees], ...]
    spans: list[SpanClassRow] | None
    span_states: dict[str, SpanState] | None  # in_use, manual, dead
    caches: Caches | None
    events: dict[str, EventCount] | None  # None: nothing was watched
    madvise: dict[str, EventCount] | None  # by advice: dontneed, free, hugepage, ...
    transitions: list[Transition] | None
    event_log: list[LoggedEvent] | None
    event_log_dropped: int  # rare events beyond the log's bound
    event_loss: EventLoss | None
    allocations: JsonObject | None
    overhead: Overhead
    findings: list[Finding] = field(default_factory=list)
    accounting: Accounting | None = None
    structure: RuntimeStructure | None = None
    drift: Drift | None = None  # None: nothing was compared
    scavenged_by: dict[str, EventCount] | None = None  # what sysUnused gave back, by who asked for it
    gc_cycles: list[GcCycleRow] | None = None  # the last ones; None: they could not be seen
    span_events: SpanEvents | None = None  # None: not watched for
    live_resident: LiveResident | None = None  # only with --with rss
    page_faults: PageFaults | None = None  # only with --with page-faults
    rebuilt: list[RebuiltRange] | None = None  # only of logs made by others: what their events say is mapped

    def to_dict(self) -> JsonObject:
        """Return the JSON object of the contract: `schema` first, transitions with `from` and `to`."""
        body = asdict(self)
        if self.transitions is not None:
            body["transitions"] = [
                {"from": row.from_state, "to": row.to_state, "event": row.event,
                 "function": row.function, "count": row.count, "bytes": row.bytes}
                for row in self.transitions
            ]
        return {"schema": SCHEMA, **body}
