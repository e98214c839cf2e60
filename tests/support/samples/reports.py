"""Reports as they come out of real situations; their figures obey the rules of a report."""

from __future__ import annotations

from msgspec.structs import replace

from gomem.tracer.report import (
    Accounting,
    AddressLimits,
    AllocationClass,
    Allocations,
    AllocationSite,
    AllocationType,
    Arena,
    Bound,
    Caches,
    CallerMappings,
    CArena,
    Cgroup,
    CgroupBill,
    CHeap,
    CollectorWork,
    Consistency,
    CpuBound,
    CpuLimiter,
    Estimate,
    EventCount,
    EventLoss,
    FailedCall,
    FaultRow,
    FileIo,
    FirstAndLast,
    FreeRunRow,
    FreeRuns,
    GcCycleRow,
    GcCycleSpans,
    GoroutineGrowth,
    GrownCreator,
    Heap,
    InUse,
    JsonObject,
    KindRow,
    LargeObject,
    LargeObjects,
    Limit,
    LiveResident,
    LoggedEvent,
    MappedFile,
    MappingSums,
    McacheRow,
    McentralRow,
    MemoryPressure,
    OomKill,
    Overhead,
    PageFaults,
    PageResidency,
    PageStates,
    ProbeRow,
    ProcessEnding,
    ProcessFacts,
    Report,
    Resident,
    ResidentSizes,
    SpanChurnRow,
    SpanClassRow,
    SpanEvents,
    SpanState,
    Stalled,
    StateResidency,
    ThreadStackRow,
    ThreadStacks,
    Transition,
    UserMapping,
    UserMappings,
    Virtual,
)
from gomem.tracer.report.findings.rules import find
from gomem.tracer.snapshot.pressure import limit_use

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
PAGE = 8192
ARENA = 64 * MB
NO_MEMORY_LIMIT = (1 << 63) - 1

STATES = ("in_use", "stacks", "work_bufs", "free", "scavenged")


def arena(base: int, resident: int, **pages: int) -> Arena:
    """An arena with these bytes of pages by state; what is not grown is Reserved."""
    by_state = {state: pages.get(state, 0) for state in STATES}
    ready = sum(by_state.values()) - by_state["scavenged"]
    prepared = by_state["scavenged"]
    return Arena(
        base=base,
        size=ARENA,
        reserved=ARENA - ready - prepared,
        prepared=prepared,
        ready=ready,
        resident=resident,
        **by_state,
    )


def heap_of(arenas: list[Arena], resident: PageResidency, **targets: int | None) -> Heap:
    pages = PageStates(**{state: sum(getattr(row, state) for row in arenas) for state in STATES})
    return Heap(
        arenas=arenas,
        pages=pages,
        resident=resident,
        goal=targets.get("goal"),
        live=targets.get("live"),
        gc_percent=targets.get("gc_percent", 100),
        memory_limit=targets.get("memory_limit"),
        gc_phase="off",
    )


FILE_KINDS = ("binary", "shared_library", "file", "vdso")


def kind(
    name: str, mappings: int, virtual: int, resident: int, reserved: int = 0, prepared: int = 0, ready: int = 0
) -> KindRow:
    anonymous = 0 if name in FILE_KINDS else resident
    return KindRow(name, mappings, virtual, reserved, prepared, ready, resident, 0, anonymous, shmem=0)


def arena_kind(heap: Heap, mappings: int) -> KindRow:
    """The row of heap_arena that agrees with the arenas."""

    def of(column: str) -> int:
        return sum(getattr(row, column) for row in heap.arenas)

    return kind("heap_arena", mappings, of("size"), of("resident"), of("reserved"), of("prepared"), of("ready"))


def virtual_of(kinds: list[KindRow]) -> Virtual:
    def of(column: str) -> int:
        return sum(getattr(row, column) for row in kinds)

    managed = of("reserved") + of("prepared") + of("ready")
    return Virtual(of("virtual"), of("reserved"), of("prepared"), of("ready"), of("virtual") - managed)


def span_class(span_class: int, object_size: int, pages_each: int, spans: int, objects: int) -> SpanClassRow:
    slots = pages_each * PAGE // object_size
    capacity, pages = slots * spans, pages_each * spans
    return SpanClassRow(
        span_class=span_class,
        size_class=span_class >> 1,
        object_size=object_size,
        noscan=bool(span_class & 1),
        spans=spans,
        pages=pages,
        objects=objects,
        capacity=capacity,
        free_slots=capacity - objects,
        tail_waste=pages * PAGE - capacity * object_size,
    )


def large_spans(in_use: int, others: list[SpanClassRow], noscan: bool, spans: int, tail_waste: int) -> SpanClassRow:
    """Large objects in all the pages in use that `others` leave."""
    pages = in_use // PAGE - sum(row.pages for row in others)
    return SpanClassRow(
        span_class=int(noscan),
        size_class=0,
        object_size=0,
        noscan=noscan,
        spans=spans,
        pages=pages,
        objects=spans,
        capacity=spans,
        free_slots=0,
        tail_waste=tail_waste,
    )


def large_objects_of(row: SpanClassRow) -> LargeObjects:
    """Three of the objects in the spans of a class, by the record that a release keeps of them."""
    at, map_of = 0xC6A0_0400_0000, "map.group[string]*orders.Order"
    largest = [
        LargeObject(at, 8 * MB, 8 * MB, 0, False, map_of, 60_787, "example.com/shop/orders.(*Index).Add",
                    "/src/orders/index.go", 114, 6 * MB, 0.03125),
        LargeObject(at + 8 * MB, 4 * MB, 3 * MB, 0, False, "orders.Order", 37_449, None, None, None, 0, None),
        LargeObject(at + 12 * MB, 2 * MB, 2 * MB, 0, True, None, None, "bufio.NewReaderSize",
                    "/go/src/bufio/bufio.go", 57, 0, None),
    ]  # fmt: skip
    return LargeObjects(row.spans, row.pages * PAGE, row.pages * PAGE - 1 * MB, True, largest)


def span_states(heap: Heap, in_use: int, manual: int, dead: int) -> dict[str, SpanState]:
    pages = heap.pages
    return {
        "in_use": SpanState(in_use, pages.in_use),
        "manual": SpanState(manual, pages.stacks + pages.work_bufs),
        "dead": SpanState(dead, 0),
    }


def memstats_of(heap: Heap, alloc: int, mallocs: int, frees: int, num_gc: int, **sys: int) -> JsonObject:
    """MemStats that agree with the heap's pages; `sys` replaces single figures."""
    pages = heap.pages
    stats: dict[str, int] = {
        "Alloc": alloc, "TotalAlloc": alloc + frees * 96, "Mallocs": mallocs, "Frees": frees, "HeapAlloc": alloc,
        "HeapSys": pages.in_use + pages.free + pages.scavenged, "HeapIdle": pages.free + pages.scavenged,
        "HeapInuse": pages.in_use, "HeapReleased": pages.scavenged, "HeapObjects": mallocs - frees,
        "StackInuse": pages.stacks, "StackSys": pages.stacks, "MSpanInuse": 1_400 * 160, "MSpanSys": 1_530 * 160,
        "MCacheInuse": 2_416, "MCacheSys": 15_704, "BuckHashSys": 1_443_912, "GCSys": 3_112_640 + pages.work_bufs,
        "OtherSys": 1_064_336, "NextGC": heap.goal or 4 * MB, "LastGC": 1_763_710_000_000_000_000,
        "PauseTotalNs": 1_202_334, "NumGC": num_gc, "NumForcedGC": 0,
    } | sys  # fmt: skip
    parts = ("HeapSys", "StackSys", "MSpanSys", "MCacheSys", "BuckHashSys", "GCSys", "OtherSys")
    stats["Sys"] = sum(stats[name] for name in parts)
    return {**stats, "BySize": [[0, 0, 0], [8, 1_204, 998], [16, 20_118, 17_400], [24, 9_001, 8_222]]}


def accounting_of(kinds: list[KindRow], page_rounding: int) -> Accounting:
    """What the runtime counts when all Ready bytes are explained."""
    ready = sum(row.ready for row in kinds)
    return Accounting(ready - 32 * MB - page_rounding, 32 * MB, page_rounding, 0)


def resident_of(kinds: list[KindRow], **parts: int) -> Resident:
    total = sum(row.resident or 0 for row in kinds)
    file = sum(row.resident or 0 for row in kinds if row.kind in FILE_KINDS)
    figures = {
        "anonymous": total - file,
        "file": file,
        "shmem": 0,
        "swap": 0,
        "lazy_free": 0,
        "huge_pages": 0,
        "pss": total - file // 2,
        "skew": 0,
    } | parts
    return Resident(total=total, **figures, file_clean=file, file_dirty=0, file_locked=0)


PROBES = [
    ProbeRow("reserve", "runtime.sysReserveOS", 1),
    ProbeRow("map", "runtime.sysMapOS", 7),
    ProbeRow("used", "runtime.sysUsedOS", 61),
    ProbeRow("unused", "runtime.sysUnusedOS", 212),
    ProbeRow("grow", "runtime.(*mheap).grow", 7),
]


def grown_and_scavenged() -> Report:
    """A Go 1.27 service after a peak: most of its heap was given back, little is left in use."""
    base = 0xC6A000000 << 4
    arenas = [
        arena(base, 38 * MB, in_use=30 * MB, stacks=2 * MB, free=6 * MB, work_bufs=512 * KB,
              scavenged=ARENA - 38 * MB - 512 * KB),
        arena(base + ARENA, 12 * MB, in_use=9 * MB, free=3 * MB, scavenged=ARENA - 12 * MB),
        arena(base + 2 * ARENA, 0, scavenged=ARENA),
        arena(base + 3 * ARENA, 2 * MB, in_use=2 * MB, scavenged=20 * MB),
    ]  # fmt: skip
    held = PageResidency(
        in_use=41 * MB - 256 * KB,
        stacks=2 * MB,
        work_bufs=512 * KB,
        free=8 * MB + 256 * KB,
        scavenged=512 * KB,
        outside=0,
    )
    heap = heap_of(arenas, held, goal=72 * MB, live=34 * MB, memory_limit=450 * MB)
    kinds = [
        arena_kind(heap, 9),
        kind("heap_metadata", 7, 34 * MB, 3 * MB, ready=34 * MB),
        kind("page_summary", 12, 637 * MB, 204 * KB, reserved=636 * MB, prepared=512 * KB, ready=512 * KB),
        kind("runtime_other", 5, 3 * MB, 2 * MB, ready=3 * MB),
        kind("thread_stack", 1, 132 * KB, 16 * KB),
        kind("binary", 4, 21 * MB, 14 * MB),
        kind("vdso", 3, 28 * KB, 8 * KB),
    ]
    small = [
        span_class(5, 16, 1, 120, 44_118),
        span_class(10, 48, 1, 310, 30_020),
        span_class(21, 144, 1, 500, 9_800),
        span_class(27, 208, 1, 410, 15_700),
        span_class(42, 640, 1, 260, 1_020),
        span_class(53, 2_048, 1, 330, 1_210),
    ]
    spans = [*small, large_spans(heap.pages.in_use, small, noscan=True, spans=41, tail_waste=93_112)]
    heap = replace(
        heap,
        large_objects=large_objects_of(spans[-1]),
        free_runs=FreeRuns(
            heap.pages.free + heap.pages.scavenged - 2 * MB - 64 * KB, 5, ARENA - 38 * MB - 512 * KB + ARENA, 64 * KB,
            2 * MB, 0, 0, None, [FreeRunRow(8 * KB, 2, 24 * KB, 0), FreeRunRow(
                16 * MB, 3, heap.pages.free + heap.pages.scavenged - 2 * MB - 88 * KB, 24 * KB)]),
        in_use=InUse(41 * MB, 41 * MB - 256 * KB, 0, 256 * KB, 6 * MB, 0),
    )  # fmt: skip
    return _with_findings(Report(
        taken_at="2026-03-02T09:14:27.512Z", duration_seconds=10.0, backend="bpf",
        backend_reason="auto: BPF works here", limits=[], consistency=Consistency(True, 1, 0),
        process=ProcessFacts(
            pid=4711, ns_pid=1, start_time="2026-02-27T22:01:03Z", exe="/app/orders", cmdline=["/app/orders", "-v"],
            go_version="go1.27.3", goarch="amd64", build_id="nJf0/abc", main_module="example.com/shop/orders",
            pie=False, stripped=True, cgo=False, layout="table", container_id="4fd1b0c2a9e8f6d3" * 4,
            pod="shop/orders-7c9f",
            cgroup=Cgroup("/kubepods.slice/pod1f/orders", 81 * MB, 512 * MB, None, 0)),
        virtual=virtual_of(kinds), resident=resident_of(kinds), kinds=kinds, heap=heap,
        memstats=memstats_of(heap, 34 * MB + 71_216, 1_902_331, 1_790_220, 88), spans=spans,
        span_states=span_states(heap, 1_971, 260, 3_100),
        caches=Caches([McacheRow(0, 54, 1_201), McacheRow(1, 41, 988)], [McentralRow(5, 12, 100)]),
        events={
            "mmap": EventCount(2, 256 * KB + 64 * MB), "madvise": EventCount(221, 196 * MB, failed=1),
            "munmap": EventCount(0, 0), "map": EventCount(7, 24 * MB), "used": EventCount(61, 30 * MB),
            "unused": EventCount(212, 188 * MB), "reserve": EventCount(1, 64 * MB), "grow": EventCount(7, 24 * MB),
            "arena": EventCount(1, 64 * MB), "scavenge": EventCount(212, 188 * MB), "gc_start": EventCount(4, 0),
            "gc_done": EventCount(4, 0),
        },
        madvise={"dontneed": EventCount(212, 188 * MB), "collapse": EventCount(9, 8 * MB, failed=1)},
        transitions=[
            Transition("Ready", "Prepared", "unused", "runtime.(*pageAlloc).scavengeOne", 212, 188 * MB),
            Transition("Prepared", "Ready", "used", "runtime.(*mheap).allocSpan", 61, 30 * MB),
            Transition("Reserved", "Prepared", "map", "runtime.(*mheap).grow", 7, 24 * MB),
            Transition("None", "Reserved", "reserve", "runtime.(*mheap).sysAlloc", 1, 64 * MB),
        ],
        event_log=None, event_log_dropped=0, event_loss=EventLoss(0, 0, 0), allocations=None,
        overhead=Overhead(0.213, 96 * MB, PROBES, 0.0004), accounting=accounting_of(kinds, 4_096 + 616),
    ))  # fmt: skip


def lazily_freed() -> Report:
    """A Go 1.15 service: 740 MB in RSS, of which 512 MB went back with MADV_FREE; 17 MB are alive."""
    arenas = [arena(0xC000000000 + at * ARENA, ARENA, scavenged=ARENA) for at in range(8)]
    arenas += [
        arena(0xC000000000 + (8 + at) * ARENA, ARENA, free=ARENA - 6 * MB, in_use=6 * MB - 64 * KB, stacks=64 * KB)
        for at in range(3)
    ]
    three = 3 * (6 * MB - 64 * KB)
    held = PageResidency(
        in_use=three, stacks=192 * KB, work_bufs=0, free=3 * (ARENA - 6 * MB), scavenged=512 * MB, outside=0
    )
    heap = heap_of(arenas, held, goal=34 * MB, live=17 * MB)
    kinds = [
        arena_kind(heap, 1),
        kind("heap_metadata", 6, 48 * MB, 15 * MB, ready=48 * MB),
        kind("page_summary", 9, 637 * MB, 3 * MB, reserved=635 * MB, ready=2 * MB, prepared=0),
        kind("runtime_other", 3, 4 * MB, 3 * MB, ready=4 * MB),
        kind("c_heap", 1, 132 * KB, 40 * KB),
        kind("thread_stack", 14, 80 * MB + 132 * KB, 304 * KB),
        kind("binary", 4, 12 * MB, 9 * MB),
        kind("shared_library", 18, 2 * MB, 2 * MB - 344 * KB),
        kind("vdso", 2, 16 * KB, 4 * KB),
        kind("other", 3, 4 * MB, 3 * MB),
    ]
    small = [span_class(8, 32, 1, 300, 60_000), span_class(35, 384, 1, 600, 9_000)]
    spans = [*small, large_spans(heap.pages.in_use, small, noscan=False, spans=9, tail_waste=20_480)]
    return _with_findings(Report(
        taken_at="2026-03-02T09:20:00Z", duration_seconds=0.0, backend="procfs",
        backend_reason="a snapshot needs no events", limits=[], consistency=Consistency(True, 2, 0),
        process=ProcessFacts(
            pid=902, ns_pid=902, start_time="2026-01-11T05:00:00Z", exe="/usr/local/bin/ingest",
            cmdline=["ingest"], go_version="go1.15.15", goarch="amd64", main_module="example.com/ingest", pie=False,
            stripped=False, cgo=True, layout="dwarf"),
        virtual=virtual_of(kinds), resident=resident_of(kinds, lazy_free=512 * MB), kinds=kinds, heap=heap,
        memstats=memstats_of(heap, 17 * MB - 4_096, 80_331_118, 80_240_006, 14_112, GCSys=16 * MB, OtherSys=5 * MB),
        spans=spans,
        span_states=span_states(heap, 909, 24, 40_112), caches=None, events=None, madvise=None, transitions=None,
        event_log=None, event_log_dropped=0, event_loss=None, allocations=None,
        overhead=Overhead(0.08, 71 * MB, [], None),
    ))  # fmt: skip


def kernel_only() -> Report:
    """A C program under strace: the runtime's part of everything is missing."""
    kinds = [
        kind("c_heap", 1, 210 * MB, 198 * MB),
        kind("thread_stack", 3, 16 * MB + 132 * KB, 68 * KB),
        kind("binary", 5, 9 * MB, 5 * MB),
        kind("shared_library", 40, 6 * MB, 3 * MB),
        kind("file", 2, 400 * MB, 120 * MB),
        kind("vdso", 2, 16 * KB, 4 * KB),
        kind("other", 4, 3 * MB, 2 * MB),
    ]
    no_go = Limit("not-go", "the Go runtime's view", "/usr/sbin/mariadbd is not a Go program", "")
    no_bpf = Limit(
        "no-runtime-events", "runtime events", "strace sees system calls only", "run as root on a kernel with BPF"
    )
    return _with_findings(Report(
        taken_at="2026-03-02T09:31:02.004Z", duration_seconds=5.0, backend="strace",
        backend_reason="auto: BPF is not permitted", limits=[no_go, no_bpf], consistency=None,
        process=ProcessFacts(pid=77, ns_pid=77, start_time="2026-03-01T00:00:00Z", exe="/usr/sbin/mariadbd",
                             cmdline=["/usr/sbin/mariadbd", "--user=mysql"]),
        virtual=Virtual(sum(row.virtual for row in kinds), None, None, None, None), resident=resident_of(kinds),
        kinds=kinds, heap=None, memstats=None, spans=None, span_states=None, caches=None,
        events={"brk": EventCount(3, 396 * KB), "mmap": EventCount(1, 1 * MB), "munmap": EventCount(1, 1 * MB)},
        madvise={}, transitions=None, event_log=None, event_log_dropped=0, event_loss=EventLoss(0, 0, None),
        allocations=None, overhead=Overhead(0.31, 44 * MB, [], None),
    ))  # fmt: skip


START = [
    (0.000412, "reserve", 0x7F1A_0000_0000, 512 * MB, "runtime.(*pageAlloc).sysInit", ["runtime.(*pageAlloc).init"]),
    (0.000431, "mmap", 0x7F1A_0000_0000, 512 * MB, "runtime.sysReserveOS", []),
    (0.000502, "reserve", 0x7F1A_4000_0000, 64 * MB, "runtime.(*pageAlloc).sysInit", ["runtime.(*pageAlloc).init"]),
    (0.000530, "reserve", 0x7F1A_5000_0000, 8 * MB, "runtime.(*pageAlloc).sysInit", ["runtime.(*pageAlloc).init"]),
    (0.000561, "reserve", 0x7F1A_5800_0000, 1 * MB, "runtime.(*pageAlloc).sysInit", ["runtime.(*pageAlloc).init"]),
    (0.000580, "alloc", 0x7F1A_6000_0000, 256 * KB, "runtime.persistentalloc1", ["runtime.persistentalloc"]),
    (0.000702, "reserve", 0xC000000000, 64 * MB, "runtime.(*mheap).sysAlloc", ["runtime.(*mheap).grow"]),
    (0.000718, "mmap", 0xC000000000, 64 * MB, "runtime.sysReserveOS", []),
    (0.000751, "mmap", 0x7F1A_7000_0000, 32 * MB, "runtime.sysAllocOS", ["runtime.(*mheap).sysAlloc"]),
    (0.000822, "alloc", 0x7F1A_7400_0000, 1 * MB, "runtime.(*mheap).sysAlloc", ["runtime.(*mheap).grow"]),
    (0.000901, "map", 0xC000000000, 4 * MB, "runtime.(*mheap).grow", ["runtime.(*mheap).allocSpan"]),
    (0.000933, "mmap", 0xC000000000, 4 * MB, "runtime.sysMapOS", []),
    (0.000990, "map", 0x7F1A_4000_0000, 128 * KB, "runtime.(*pageAlloc).sysGrow", ["runtime.(*pageAlloc).grow"]),
    (0.001204, "used", 0xC000000000, 4 * MB, "runtime.(*mheap).allocSpan", []),
    (0.001502, "alloc", 0x7F1A_7600_0000, 64 * KB, None, ["runtime.mProf_Malloc"]),
    (0.002210, "mmap", None, None, None, []),
    (0.003001, "used", 0xC000400000, 8 * KB, "runtime.(*mheap).allocSpan", []),
]


def launched() -> Report:
    """A tiny Go 1.25 program that was started by the trace: its start-up reservations are in the log."""
    arenas = [arena(0xC000000000, 1_204 * KB, in_use=600 * KB, stacks=320 * KB, free=1_576 * KB, scavenged=1_600 * KB)]
    held = PageResidency(in_use=588 * KB, stacks=320 * KB, work_bufs=0, free=296 * KB, scavenged=0, outside=0)
    heap = heap_of(arenas, held, goal=4 * MB, live=None, memory_limit=NO_MEMORY_LIMIT)
    kinds = [
        arena_kind(heap, 2),
        kind("heap_metadata", 5, 33 * MB, 160 * KB, ready=33 * MB),
        kind("page_summary", 10, 585 * MB, 44 * KB, reserved=585 * MB - 256 * KB, prepared=0, ready=256 * KB),
        kind("runtime_other", 3, 512 * KB, 120 * KB, ready=512 * KB),
        kind("thread_stack", 1, 132 * KB, 12 * KB),
        kind("binary", 3, 1_600 * KB, 1_016 * KB),
        kind("vdso", 3, 24 * KB, 4 * KB),
    ]
    small = [span_class(5, 16, 1, 9, 2_040), span_class(10, 48, 1, 12, 900)]
    spans = [*small, large_spans(heap.pages.in_use, small, noscan=True, spans=4, tail_waste=1_024)]
    log = [
        LoggedEvent(at, event, address, size, function, callers)
        for at, event, address, size, function, callers in START
    ]
    return _with_findings(Report(
        taken_at="2026-03-02T09:40:11Z", duration_seconds=1.52, backend="bpf", backend_reason="asked for",
        limits=[], consistency=Consistency(True, 1, 0),
        process=ProcessFacts(pid=5120, ns_pid=5120, start_time="2026-03-02T09:40:09.480Z", exe="/tmp/hello",
                             cmdline=["/tmp/hello"], go_version="go1.25.5", goarch="amd64", main_module="hello",
                             pie=False, stripped=False, cgo=False, layout="dwarf"),
        virtual=virtual_of(kinds), resident=resident_of(kinds), kinds=kinds, heap=heap,
        memstats=memstats_of(heap, 141_112, 312, 14, 0, BuckHashSys=4_152, GCSys=1_700_112, MSpanInuse=9_600,
                             MSpanSys=16_320), spans=spans, span_states=span_states(heap, 25, 11, 2), caches=None,
        events={"mmap": EventCount(19, 700 * MB), "reserve": EventCount(6, 649 * MB), "map": EventCount(2, 4 * MB),
                "alloc": EventCount(9, 2 * MB), "used": EventCount(2, 4 * MB)},
        madvise=None,
        transitions=[
            Transition("None", "Reserved", "reserve", "runtime.(*pageAlloc).sysInit", 5, 585 * MB),
            Transition("None", "Reserved", "reserve", "runtime.(*mheap).sysAlloc", 1, 64 * MB),
            Transition("None", "Ready", "alloc", None, 9, 2 * MB),
        ],
        event_log=log, event_log_dropped=3, event_loss=EventLoss(0, 0, 0), allocations=None,
        overhead=Overhead(0.4, 96 * MB, PROBES[:2], None), accounting=accounting_of(kinds, 0),
    ))  # fmt: skip


def busy_and_inexact() -> Report:
    """A process that allocates faster than it can be read, near its limits, with lost events."""
    report = grown_and_scavenged()
    assert report.heap is not None
    assert report.memstats is not None
    skewed = {
        **report.memstats,
        "HeapInuse": report.heap.pages.in_use + 3 * MB,
        "HeapSys": report.heap.pages.in_use + 3 * MB + report.heap.pages.free + report.heap.pages.scavenged,
    }
    parts = ("HeapSys", "StackSys", "MSpanSys", "MCacheSys", "BuckHashSys", "GCSys", "OtherSys")
    skewed["Sys"] = sum(int(str(skewed[name])) for name in parts)
    return _with_findings(replace(
        report, findings=[], consistency=Consistency(False, 8, 3 * MB), memstats=skewed,
        heap=replace(
            report.heap, gc_phase="mark", memory_limit=60 * MB, limit_use=limit_use(skewed, 34 * MB, 60 * MB),
            collector=CollectorWork("watched", 10.0, 4, 0.4, 0.031, 0.012, 1.2, CpuLimiter(False, 0.0, 0)),
        ),
        event_loss=EventLoss(1_204, 2, 14 * MB),
        process=replace(report.process, cgroup=Cgroup("/jobs/busy", 92 * MB, 96 * MB, 90 * MB, 2)),
        cgroup_bills=[CgroupBill(
            "/jobs/busy", 2, 92 * MB, 96 * MB, 96 * MB, 90 * MB, None, 96 * MB, "/jobs/busy", 71 * MB, 25 * MB, 22 * MB,
            {"anon": 60 * MB, "file": 27 * MB, "file_mapped": 10 * MB, "active_file": 4 * MB, "inactive_file": 21 * MB,
             "shmem": 2 * MB, "kernel": 5 * MB, "sock": 0},
            {"high": 214, "max": 3, "oom": 2, "oom_kill": 2},
            MemoryPressure(Stalled(0.5, 2.25, 0.75, 31.5), Stalled(0.0, 1.0, 0.25, 12.0)),
        )],
        file_io=FileIo(12 * MB, 3 * MB),
        bounds=[
            Bound("vm.max_map_count", "count", 65_530, 120, 65_410),
            Bound("pids.max", "count", 40, 30, 10, "/jobs/busy"),
            Bound("RLIMIT_MEMLOCK", "bytes", 8 * MB, 0, 8 * MB),
            Bound("CommitLimit", "bytes", None, 3 << 30, None),
        ],
        cpu=CpuBound(1.5, "/jobs", 8, 2, 1000, 50, 0.05, 2.5),
    ))  # fmt: skip


def churning() -> Report:
    """A process that collects all the time, whose spans could be watched for a part of it."""
    report = grown_and_scavenged()
    row = SpanChurnRow
    classes = [
        row("heap", 20, 10, 144, False, 40_112, 38_804, 40_112, 38_804, 36_200, 0.61),
        row("heap", 1, 0, 0, True, 812, 790, 51_968, 50_560, 780, 0.0123),
        row("stacks", None, None, None, None, 420, 431, 1_680, 1_724, 401, 2.5e-5),
        row("work_bufs", None, None, None, None, 16, 16, 64, 64, 0, None),
        *(row("heap", at, at // 2, 8 * at, at % 2 == 1, at, 0, at, 0, 0, None) for at in range(30, 40)),
    ]
    sums = {
        name: sum(getattr(one, name) for one in classes)
        for name in ("allocated", "freed", "allocated_pages", "freed_pages")
    }
    seconds = report.duration_seconds
    events = {
        **(report.events or {}),
        "span_alloc": EventCount(sums["allocated"], sums["allocated_pages"] * 8 * KB),
        "span_free": EventCount(sums["freed"], sums["freed_pages"] * 8 * KB),
    }
    cycles = [GcCycleRow(None, 0.01, None, None, None, None, None, 64 * KB, GcCycleSpans(5, 800, 5, 900, 1.0))]
    for at in range(1, 12):
        spans = GcCycleSpans(3_000 + at, 2_900, 5_000, 4_800, 1.0 if at < 6 else 0.4 if at == 6 else 0.0)
        cycles.append(GcCycleRow(at / 2, at / 2 + 0.02, 64 * MB, 58 * MB + at, 31 * MB, 0.02, 0, at * MB, spans))
    cycles.append(GcCycleRow(6.2, None, None, 59 * MB, None, None, 0, None, GcCycleSpans(1, 0, 1, 0, 0.0)))
    return _with_findings(replace(
        report, findings=[], events=events, gc_cycles=cycles,
        span_events=SpanEvents(0.4 * seconds, 0.4, 3, 2, 0.01, **sums, classes=classes),
        goroutine_growth=growth(seconds),
    ))  # fmt: skip


def growth(seconds: float) -> GoroutineGrowth:
    """Return goroutines of one go statement that become ever more, and of some others."""
    rows = [
        GrownCreator("main.(*hub).subscribe", "/src/orders/hub [1].go", 88, FirstAndLast(1_000, 1_900, 2 * MB, 4 * MB),
                     True, True),
        GrownCreator("net/http.(*Server).Serve", "/usr/lib/go/src/net/http/server.go", 3285,
                     FirstAndLast(150, 190, MB, MB + 320 * KB), False, False),
        GrownCreator("main.(*pool).fill", "/src/orders/pool.go", 12, FirstAndLast(60, 61, 480 * KB, 488 * KB), None,
                     None),
        GrownCreator("", "", 0, FirstAndLast(1, 1, 8 * KB, 8 * KB), False, False),
    ]  # fmt: skip
    others = FirstAndLast(12, 9, 96 * KB, 72 * KB)
    sums = [*(row.sums for row in rows), others]
    whole = FirstAndLast(*(sum(getattr(one, name) for one in sums) for name in FirstAndLast.__struct_fields__))
    return GoroutineGrowth(seconds, 7, whole, rows, 3, others)


def allocating() -> Report:
    """A process whose allocations were counted in four bursts."""

    def about(value: float, share: float) -> Estimate:
        return Estimate(value, value * (1 - share), value * (1 + share))

    classes = [
        AllocationClass(0, 0, 3, 9, 0, 1_400_000, 7_200, 950 * MB, about(7_010, 0.21)),
        AllocationClass(2, 16, 0, 16_010, 40_300, 604_000, 33_800_000, 380 * MB, about(34_100_000, 0.034)),
        AllocationClass(5, 48, 21_400, 0, 0, 941_600, 12_900_000, 12_900_000 * 48, about(12_700_000, 0.052)),
    ]
    types = [
        AllocationType("main.session", 0x4B2C40, True, 21_400, 21_400 * 48, about(12.9e6, 0), about(619.2e6, 0)),
        AllocationType(None, None, False, 40_302, 349_000, about(24.2e6, 0.041), about(230e6, 0.044)),
        AllocationType("map[string]struct { " + "field int; " * 30 + "}", 0x4B0010, False, 16_010, 256_160,
                       about(9.6e6, 0.06), about(154e6, 0.06)),
        AllocationType(None, 0xC000012340, True, 3, 196_608, about(1_800, 0.9), about(118e6, 0.9)),
    ]  # fmt: skip
    encode = "encoding/json.(*encodeState)." + "reflectValue" * 6
    sites = [
        AllocationSite("main.(*server).open", "/src/shop/server.go", 214, None, 21_400, 21_400 * 48,
                       about(12.9e6, 0), about(619.2e6, 0)),
        AllocationSite("strconv.FormatInt", "/usr/lib/go/src/strconv/itoa.go", 29, None, 40_302, 349_000,
                       about(24.2e6, 0.041), about(230e6, 0.044)),
        AllocationSite(encode, "/usr/lib/go/src/encoding/json/encode.go", 1021, None, 16_010, 256_160,
                       about(9.6e6, 0.06), about(154e6, 0.06)),
        AllocationSite(None, None, None, 0x7F12_0000_1234, 3, 196_608, about(1_800, 0.9), about(118e6, 0.9)),
    ]  # fmt: skip
    runtime_objects = sum(row.runtime_objects or 0 for row in classes)
    seen = sum(row.scan + row.noscan + row.tiny for row in classes)
    return replace(
        grown_and_scavenged(),
        allocations=Allocations(
            complete=False, bursts=4, watched_seconds=0.083, watched_share=0.0083, budget=0.01, hit_seconds=9.4e-7,
            objects=seen, asked=sum(row.asked for row in classes), zero_size=12, runtime_objects=runtime_objects,
            runtime_bytes=sum(row.runtime_bytes or 0 for row in classes), coverage=seen / runtime_objects,
            classes=classes, types=types, more_types=2, more_objects=7, more_bytes=1_212, untold_objects=0,
            sites=sites, more_sites=1, more_site_objects=3, more_site_bytes=640, unsited_objects=4,
            unseen_classes=31,
        ),
    )  # fmt: skip


def _stacks(kinds: list[KindRow]) -> ThreadStacks:
    """Return what the thread stacks of these rows can be: each mapping with its guard beside it, but the main one's."""
    row = next(row for row in kinds if row.kind == "thread_stack")
    assert row.resident is not None
    stacks = row.mappings // 2 + 1
    median = row.resident // stacks // 4096 * 4096
    largest = row.resident - (stacks - 1) * median
    rows = [
        ThreadStackRow(4711 + at, "worker [blue]" if at else "orders", 0x7F40_0000_0000 - (at << 24), 8 * MB, 4 * KB,
                       median if at else largest, median if at else largest)
        for at in range(min(stacks, 20))
    ]  # fmt: skip
    if stacks > 1:
        rows[-1] = replace(rows[-1], tid=None, name=None)
    return ThreadStacks(stacks, stacks, row.virtual, row.resident, median, largest, rows)


def _files(kinds: list[KindRow]) -> list[MappedFile]:
    """Return the files that these rows can be."""
    names = {"binary": "/srv/orders", "file": "/srv/data [1].db", "shared_library": "/usr/lib/libc.so.6"}
    return [
        MappedFile(names[row.kind], False, "file", row.kind != "file", row.mappings, row.virtual, row.resident or 0, 0,
                   0, 0, None, None, None)
        for row in sorted(kinds, key=lambda row: -(row.resident or 0)) if row.kind in names
    ]  # fmt: skip


def _user_mappings(report: Report) -> UserMappings | None:
    """Return what the rows of kinds that are the program's own can be: half of it was seen to be mapped."""
    rows = [row for row in report.kinds or () if row.kind in ("other", "file")]
    virtual, resident = sum(row.virtual for row in rows), sum(row.resident or 0 for row in rows)
    if report.heap is None or not virtual:
        return None
    whole = MappingSums(sum(row.mappings for row in rows), virtual, 0, resident, 0)
    half = MappingSums(1, virtual // 2, 0, resident // 2, 0)
    rest = MappingSums(whole.mappings - 1, virtual - half.virtual, 0, resident - half.resident, 0)
    largest = [UserMapping(0x7F4B00000000, half.virtual, 0, half.resident, 0, "", "main.(*cache).grow")]
    callers = ["syscall.mmap", "main.(*cache).grow", "main.main"]
    watched = report.events is not None
    return UserMappings(
        whole, [CallerMappings("main.(*cache).grow", callers, half)] if watched else None, rest if watched else None,
        largest,
    )  # fmt: skip


def _c_heap(kinds: list[KindRow]) -> CHeap | None:
    """Return a heap of C that these rows can be: two arenas, and a chunk with a mapping of its own."""
    room = sum(row.resident or 0 for row in kinds if row.kind == "c_heap") // (16 * KB) * (4 * KB)
    if not room:
        return None
    arenas = [
        CArena(0x7F4A2C61DC60, True, 1, 2 * room, room, room, 4 * KB, 31, room // 2, room // 2, True),
        CArena(0x7F4A24000030, False, 3, room, room // 2, room - room // 2, room // 2, 9, 0, 0, True),
    ]
    of = {
        name: sum(getattr(arena, name) for arena in arenas)
        for name in ("system", "in_use", "free", "free_resident", "trimmable")
    }
    return CHeap(["glibc"], top=4 * KB, mapped=room, mapped_chunks=1, exact=True, arenas=arenas, **of)


def _states(report: Report) -> Virtual | None:
    """Return the address space with what of each state is in RAM."""
    if report.virtual is None or report.virtual.reserved is None or report.heap is None:
        return report.virtual
    prepared = report.heap.resident.scavenged
    managed = sum(row.resident or 0 for row in report.kinds or () if row.reserved or row.prepared or row.ready)
    total = sum(row.resident or 0 for row in report.kinds or ())
    in_ram = StateResidency(0, prepared, managed - prepared, total - managed, 0)
    return replace(report.virtual, unmanaged_no_access=16 * KB, resident=in_ram)


def _with_findings(report: Report) -> Report:
    report = replace(
        report,
        thread_stacks=_stacks(report.kinds) if report.kinds else None,
        c_heap=_c_heap(report.kinds or []),
        files=_files(report.kinds) if report.kinds else None,
        user_mappings=_user_mappings(report),
        virtual=_states(report),
        address_limits=AddressLimits(None, None, 90 * MB, 0, 0, 12 << 30, 3 << 30),
    )
    return replace(report, findings=find(report))


def faulting() -> Report:
    """The roles page-faults and rss were asked for, of a program that takes and gives back."""
    rows = [FaultRow("heap_arena", 35_670, 47 * MB), FaultRow("unmapped", 17, 64 * KB), FaultRow("binary", 3, 12 * KB)]
    now = ResidentSizes(total=29 * MB, anonymous=27 * MB, file=2 * MB, shmem=0, swap=0)
    peak = ResidentSizes(total=52 * MB, anonymous=50 * MB, file=2 * MB, shmem=0, swap=3 * MB)
    return replace(
        grown_and_scavenged(),
        live_resident=LiveResident(now, peak, changes=71_204),
        page_faults=PageFaults(
            count=35_712, by_kernel=20, writes=35_600, present=2, unplaced=22, per_second=11_529.3, kinds=rows
        ),
    )


def killed_for_memory() -> Report:
    """A wrapper executed a program that asked for more and more, until the OOM killer took it."""
    wrapper = ProcessFacts(pid=5120, ns_pid=5120, start_time="2026-03-02T09:40:09.480Z", exe="/usr/bin/bash",
                           cmdline=["bash", "-c", "ulimit -v 500000; exec ./hello"])  # fmt: skip
    calls = [
        FailedCall(0.5, "mmap", "ENOMEM", 64 * MB, "runtime.(*mheap).sysAlloc", ["runtime.(*mheap).sysAlloc"]),
        FailedCall(0.000212, "brk", "ENOMEM", None, None, []),
    ]
    oom = OomKill("cgroup", "/kubepods/burstable/pod4c/9f2d", 64 * MB, True)
    ending = ProcessEnding(None, "SIGKILL", False, oom, 66 * MB, 0.91, calls)
    before = replace(kernel_only(), process=wrapper, duration_seconds=0.004, ending=None)
    return replace(launched(), ending=ending, chapters=[before])


def ended_early() -> Report:
    """A program that was over before anybody could look at it."""
    report = launched()
    ending = ProcessEnding(2, None, False, None, 5_316 * KB, 0.004)
    return replace(
        report, duration_seconds=0.0, ending=ending, consistency=None, virtual=None, resident=None, kinds=None,
        heap=None, memstats=None, spans=None, span_states=None, accounting=None, findings=[],
    )  # fmt: skip


SAMPLES = {
    "grown_and_scavenged": grown_and_scavenged,
    "lazily_freed": lazily_freed,
    "kernel_only": kernel_only,
    "launched": launched,
    "busy_and_inexact": busy_and_inexact,
    "churning": churning,
    "allocating": allocating,
    "faulting": faulting,
    "killed_for_memory": killed_for_memory,
}
WITHOUT_A_LOOK = {"ended_early": ended_early}
