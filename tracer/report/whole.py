"""The report as a whole, and its JSON object."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from msgspec import Meta, Struct, field, to_builtins

from gomem.tracer.report.address_space import (
    Accounting,
    AddressLimits,
    BetweenLooks,
    KindRow,
    LiveResident,
    PageFaults,
    RebuiltRange,
    Resident,
    ThreadStacks,
    Virtual,
)
from gomem.tracer.report.allocations import Allocations
from gomem.tracer.report.bounds import Bound, CpuBound, FailedCalls
from gomem.tracer.report.c_heap import CHeap
from gomem.tracer.report.cgroup_bill import CgroupBill, FileIo
from gomem.tracer.report.course import Course
from gomem.tracer.report.events import EventCount, GcCycleRow, LoggedEvent, SpanEvents, Transition
from gomem.tracer.report.figures import Count, JsonObject, Seconds
from gomem.tracer.report.files import MappedFile
from gomem.tracer.report.finding import Finding
from gomem.tracer.report.goroutine_growth import GoroutineGrowth
from gomem.tracer.report.heap import MEMSTATS, Caches, Heap, SpanClassRow, SpanState
from gomem.tracer.report.held import Holders
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.process import GoRuntime, ProcessEnding, ProcessFacts
from gomem.tracer.report.settings import MemorySettings
from gomem.tracer.report.structure import RuntimeStructure
from gomem.tracer.report.trust import Consistency, Drift, EventLoss, Overhead
from gomem.tracer.report.user_mappings import UserMappings

SCHEMA = "gomem.report/1"


class Report(Struct, frozen=True, tag_field="schema", tag=SCHEMA):
    """One report; see REPORT in the README for the rules it obeys."""

    taken_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    duration_seconds: Seconds
    backend: Literal["bpf", "strace", "procfs", "replay"]
    backend_reason: Annotated[str, Meta(description="why this backend was chosen")]
    limits: list[Limit]
    consistency: Consistency | None
    process: ProcessFacts
    virtual: Virtual | None
    resident: Resident | None
    kinds: list[KindRow] | None
    heap: Heap | None
    memstats: Annotated[JsonObject, MEMSTATS] | None
    spans: list[SpanClassRow] | None
    span_states: Annotated[dict[str, SpanState] | None, Meta(description="in_use, manual, dead")]
    caches: Caches | None
    events: Annotated[dict[str, EventCount] | None, Meta(description="null: nothing was watched")]
    madvise: Annotated[dict[str, EventCount] | None, Meta(description="by advice: dontneed, free, hugepage, ...")]
    transitions: list[Transition] | None
    event_log: list[LoggedEvent] | None
    event_log_dropped: Annotated[Count, Meta(description="rare events beyond the log's bound")]
    event_loss: EventLoss | None
    allocations: Annotated[Allocations | None, Meta(description="null: not watched for")]
    overhead: Overhead
    findings: list[Finding] = field(default_factory=list)
    accounting: Accounting | None = None
    structure: RuntimeStructure | None = None
    drift: Annotated[Drift | None, Meta(description="null: nothing was compared")] = None
    scavenged_by: Annotated[
        dict[str, EventCount] | None,
        Meta(description="what sysUnused gave back: background, allocation, FreeOSMemory, other"),
    ] = None
    gc_cycles: Annotated[list[GcCycleRow] | None, Meta(description="the last ones; null: they could not be seen")] = (
        None
    )
    span_events: Annotated[SpanEvents | None, Meta(description="null: not watched for")] = None
    live_resident: Annotated[LiveResident | None, Meta(description="only with --with rss")] = None
    page_faults: Annotated[PageFaults | None, Meta(description="only with --with page-faults")] = None
    rebuilt: Annotated[
        list[RebuiltRange] | None, Meta(description="only of logs made by others: what their events say is mapped")
    ] = None
    thread_stacks: ThreadStacks | None = None
    c_heap: Annotated[CHeap | None, Meta(description="null: no allocator of C was recognised")] = None
    files: Annotated[list[MappedFile] | None, Meta(description="the 20 of which most is in RAM, those first")] = None
    user_mappings: Annotated[
        UserMappings | None, Meta(description="what the program has mapped for itself; null: the runtime was not read")
    ] = None
    address_limits: AddressLimits | None = None
    cgroup_bills: Annotated[
        list[CgroupBill] | None,
        Meta(description="of the process's memory cgroup, and of its ancestors with a limit, the nearest first"),
    ] = None
    bounds: Annotated[list[Bound] | None, Meta(description="what bounds the process beside RAM, and its distance")] = (
        None
    )
    cpu: CpuBound | None = None
    settings: MemorySettings | None = None
    failed_calls: Annotated[
        list[FailedCalls] | None,
        Meta(description="of memory, most frequent first; beyond 64 groups without callers. null: nothing was watched"),
    ] = None
    file_io: Annotated[FileIo | None, Meta(description="of the process; null: it may not be read")] = None
    courses: Annotated[
        dict[str, Course] | None, Meta(description="figures from look to look, by name; null: too few looks")
    ] = None
    goroutine_growth: Annotated[
        GoroutineGrowth | None, Meta(description="of trace, record and replay's end; null: less than two looks at them")
    ] = None
    between_looks: Annotated[BetweenLooks | None, Meta(description="null: all is of taken_at")] = None
    ending: Annotated[ProcessEnding | None, Meta(description="null: it was not seen to end")] = None
    runtimes: Annotated[
        list[GoRuntime] | None, Meta(description="the Go runtimes of the process, where there are several")
    ] = None
    holders: Annotated[Holders | None, Meta(description="only with --holders")] = None
    chapters: Annotated[
        list[Report] | None,
        Meta(description="of the programs that the process ran before this one, in the order of time; null: of none"),
    ] = None
    children: Annotated[
        list[Report] | None, Meta(description="of child processes that were followed; null: none were to be")
    ] = None

    def to_dict(self) -> JsonObject:
        """Return the JSON object of the contract, `schema` first; NumPy's scalars are plain numbers in it."""
        return cast(JsonObject, to_builtins(self, enc_hook=_scalar))


def stat(report: Report, name: str) -> int | None:
    """Return one figure of runtime.MemStats, None where it could not be had."""
    value = (report.memstats or {}).get(name)
    return value if isinstance(value, int) else None


def _scalar(value: object) -> object:
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    raise TypeError(f"a report cannot hold {type(value).__name__}")
