from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gomem.tracer.report import (
    Accounting,
    AddressLimits,
    AroundCollections,
    Bound,
    BoundName,
    CallerMappings,
    CArena,
    Cgroup,
    CgroupBill,
    CHeap,
    CollectorWork,
    Consistency,
    Course,
    CourseThird,
    CpuBound,
    CpuLimiter,
    EventCount,
    EventLoss,
    FailedCalls,
    FileIo,
    Finding,
    FirstAndLast,
    FreeRuns,
    GoroutineGrowth,
    GrownCreator,
    HugePages,
    InUse,
    Limit,
    LimitUse,
    LiveCourse,
    LiveThird,
    MappedFile,
    MappingSums,
    MemoryPressure,
    MemorySettings,
    ProcessEnding,
    ProfileBuckets,
    QueuedCalls,
    RebuiltRange,
    Report,
    RuntimeStructure,
    Scheduler,
    Stalled,
    StateResidency,
    ThreadStacks,
    TimerFunction,
    Timers,
    UserMapping,
    UserMappings,
    findings,
)
from gomem.tracer.report.findings.rules import RULES, find
from gomem.tracer.snapshot.pressure import limit_use
from tests.support.samples.reports import (
    GB,
    KB,
    MB,
    NO_MEMORY_LIMIT,
    SAMPLES,
    grown_and_scavenged,
    kernel_only,
    launched,
    lazily_freed,
    span_class,
)

PARTS = ("live", "garbage", "holes", "stacks", "retained", "metadata", "profile_buckets")
Change = Callable[[Report], Report]


def part(report: Report, name: str, **figures: Any) -> Report:
    """The report with figures of one part replaced."""
    return replace(report, **{name: replace(getattr(report, name), **figures)})


def heap(
    report: Report, pages: dict[str, int] | None = None, resident: dict[str, int] | None = None, **figures: Any
) -> Report:
    assert report.heap is not None
    changed = replace(
        report.heap,
        pages=replace(report.heap.pages, **pages or {}),
        resident=replace(report.heap.resident, **resident or {}),
        **figures,
    )
    return replace(report, heap=changed)


def kind(report: Report, name: str, **figures: Any) -> Report:
    assert report.kinds is not None
    return replace(report, kinds=[replace(row, **figures) if row.kind == name else row for row in report.kinds])


def cgroup(report: Report, current: int | None, most: int | None, high: int | None = None, kills: int = 0) -> Report:
    return part(report, "process", cgroup=Cgroup("/a", current, most, high, kills))


def stats(report: Report, **figures: int) -> Report:
    return replace(report, memstats={**(report.memstats or {}), **figures})


NO_LIMITS = AddressLimits(None, None, 40 * MB, 0, 0, 10 * GB, 20 * GB)


def limits(report: Report, **figures: int) -> Report:
    return replace(report, address_limits=replace(NO_LIMITS, **figures))


def virtual(report: Report) -> int:
    assert report.virtual is not None
    return report.virtual.total


def ended(report: Report, count: int, size: int) -> Report:
    scheduler = Scheduler(10, 5, None, ms=4, ps=4, ended_goroutines=count, ended_bytes=size)
    return replace(report, structure=RuntimeStructure([], None, None, None, scheduler, threads=4))


def bill(current: int, *, limit: int | None = 500 * MB, full: float = 0.0, **parts: int) -> CgroupBill:
    """What a cgroup is charged: `parts` of `current`, which fit."""
    pressure = MemoryPressure(Stalled(0.0, 40.0, 0.0, 9.0), Stalled(0.0, full, 0.0, 9.0))
    mapped = parts.setdefault("anon", 0) + parts.setdefault("file_mapped", 0)
    kept = current - sum(parts.get(word, 0) for word in ("active_file", "inactive_file", "slab_reclaimable"))
    return CgroupBill(
        "/pod", 2, current, None, limit, None, None, limit, "/pod" if limit else None,
        current - parts.setdefault("inactive_file", 0), current - kept, current - mapped, parts, {}, pressure,
    )  # fmt: skip


def charged(current: int = 200 * MB, **parts: Any) -> Change:
    """The report of a process whose cgroup is charged for these parts."""
    return lambda report: replace(report, cgroup_bills=[bill(current, **parts)], file_io=FileIo(0, 150 * MB))


def waits(report: Report, timers: int, *, stopped: int = 0, finalizers: int = 0, cleanups: int | None = 0) -> Report:
    """The report with so many timers, and calls that wait."""
    found = Timers(timers, stopped, 96 * timers, min(timers, 2048), [TimerFunction("main.fire", min(timers, 2048))])
    queued = QueuedCalls(finalizers, cleanups)
    return replace(report, structure=RuntimeStructure([], None, None, None, None, 4, timers=found, queued=queued))


def large(report: Report, size: int, **figures: Any) -> Report:
    """The report with its largest object so large."""
    assert report.heap is not None
    assert report.heap.large_objects is not None
    found = report.heap.large_objects
    one = replace(found.largest[0], size=size, resident=size, **figures)
    return heap(report, large_objects=replace(found, largest=[one, *found.largest[1:]]))


def gaps(report: Report, *, in_ram: int, longest: int = 3 * MB, needed: int = 4 * MB, free: int = 120 * MB) -> Report:
    """The report with free pages in runs, and 20 objects that are longer than the longest of them."""
    runs = FreeRuns(free, 40, longest, 0, 0, 20, 20 * needed, needed, [])
    return stats(heap(report, resident={"free": in_ram, "scavenged": 0}, free_runs=runs), HeapSys=400 * MB)


def empty(report: Report, zeros: int) -> Report:
    """The report with an object in huge pages, of which so much is zeros."""
    use = InUse(200 * MB, 200 * MB, 0, 0, 180 * MB, zeros)
    return heap(large(report, 20 * MB, huge=20 * MB, zero_share=0.98), in_use=use)


def bounded(name: BoundName, used: int, limit: int, unit: Literal["bytes", "count"] = "count") -> Change:
    one = Bound(name, unit, limit, used, max(limit - used, 0))
    return lambda report: replace(report, bounds=[Bound("RLIMIT_AS", "bytes", 10 * GB, GB, 9 * GB), one])


def quota(cpus: float, gomaxprocs: int, share: float | None = None) -> Change:
    throttled = None if share is None else int(share * 1000)
    return lambda report: replace(
        report, cpu=CpuBound(cpus, "/pod", 64, gomaxprocs, 1000, throttled, share, None if share is None else 9.0)
    )


def failing(error: str = "ENOMEM", call: str = "mmap", size: int = 64 * MB) -> Change:
    one = FailedCalls(call, error, 3, 3 * size, size, "runtime.(*mheap).grow", ["runtime.(*mheap).grow"], 1.0)
    return lambda report: replace(report, failed_calls=[one], bounds=bounded("vm.max_map_count", 9, 10)(report).bounds)


def huge(enabled: str, none: int = 511, *, disabled: bool = False, advised: int = 0) -> MemorySettings:
    pages = HugePages(enabled, "madvise", "never", none, disabled, advised, 0, advised)
    return MemorySettings(pages, 0, 0, 60, False, "off", 0, None, [], None)


def ids(report: Report) -> dict[str, str]:
    return {finding.id: finding.severity for finding in find(report)}


def finding(report: Report, name: str) -> Finding:
    found = [one for one in find(report) if one.id == name]
    assert found, f"{name} is not among {ids(report)}"
    return found[0]


def worked(mark_share: float | None, *, limited: bool = False, fill: float = 0.0) -> CollectorWork:
    return CollectorWork("watched", 10.0, 30, 3.0, mark_share, 0.01, 0.1, CpuLimiter(limited, fill, 30 * limited))


def near_limit(
    work: CollectorWork | None, *, live: int = 40 * MB, stacks: int = 5 * MB, limit: int = 100 * MB
) -> Change:
    """Go uses 99 MB: what is neither alive nor stacks is garbage, but for 5 MB of records."""
    use = LimitUse(limit, 99 * MB, live, 94 * MB - live - stacks, 0, stacks, 0, 4 * MB, MB)
    return lambda report: heap(report, memory_limit=limit, limit_use=use, collector=work)


def courses(seconds: float, **medians: tuple[int, int, int]) -> Change:
    """Figures that were seen at 30 looks."""
    found = {
        name: Course(seconds, 30, first, last, (last - first) / (seconds * 2 / 3),
                     [CourseThird(10, middle - 1, middle, middle + 1) for middle in (first, between, last)])
        for name, (first, between, last) in medians.items()
    }  # fmt: skip
    return lambda report: replace(report, courses=found)


def freed_by_collections(fallen_without: int = 0, fallen_with: int = 80 * MB, collections: int = 5) -> Change:
    """What is outside of Go, and 3000 objects with finalizers, rise until a collection runs, and then fall."""
    change = courses(600.0, outside=(50 * MB,) * 3, finalizers=(2000,) * 3, collections=(7, 8, 7 + collections))

    def around(report: Report) -> Report:
        made = dict(change(report).courses or {})
        went = AroundCollections(90 * MB, fallen_without, fallen_with)
        made["outside"] = replace(made["outside"], around_collections=went)
        made["finalizers"] = replace(made["finalizers"], around_collections=AroundCollections(3000, 0, 2900))
        return replace(report, courses=made)

    return around


def to_limit(seconds: float, last: int = 80 * MB) -> Change:
    """What no collection frees has grown to `last` within the time; GOMEMLIMIT is 200 MB."""
    change = courses(seconds, not_garbage=(40 * MB, 60 * MB, last), live=(MB, MB, MB), stacks=(MB, 20 * MB, 40 * MB))
    use = LimitUse(200 * MB, 90 * MB, 40 * MB, 5 * MB, 0, 40 * MB, 0, 4 * MB, MB)
    return lambda report: heap(change(report), memory_limit=200 * MB, limit_use=use)


def grown(seconds: float, *medians: int, noise: int = MB) -> Change:
    """Have collections found so much alive in each third of the time, in the median."""
    course = LiveCourse(seconds, [LiveThird(5, median - noise, median, median + noise) for median in medians])
    return lambda report: heap(report, live_course=course)


def collected(report: Report, a_second: float) -> Report:
    """Have the program collect so often since it began."""
    lived = datetime.fromisoformat(report.taken_at) - datetime.fromisoformat(report.process.start_time)
    assert report.memstats is not None
    return replace(report, memstats={**report.memstats, "NumGC": int(lived.total_seconds() * a_second)})


def anonymous(amount: int) -> Change:
    return lambda report: part(cgroup(report, 98 * MB, 100 * MB), "resident", anonymous=amount, lazy_free=0)


def kept_by_c(report: Report, free: int, of: int = 900 * MB) -> Report:
    """Have C's heap have so much in RAM, part of it free, in four arenas."""
    arenas = [CArena(at << 26, at == 1, 1, of // 4, (of - free) // 4, free // 4, 0, 5, free // 4, free // 4, True)
              for at in range(1, 5)]  # fmt: skip
    heap = CHeap(["glibc"], of, of - free, free, 0, 0, 0, free, free, True, arenas)
    return replace(part(kind(report, "runtime_other", kind="c_heap", resident=of), "resident", total=of + 60 * MB),
                   c_heap=heap)  # fmt: skip


def mapped_by(report: Report, function: str | None, resident: int, closed: int = 0) -> Report:
    """Return a report in which a function has mapped so much."""
    sums = MappingSums(2, resident + closed, closed, resident, 0)
    row = CallerMappings(function, ["syscall.Mmap", function or "0x7f01", "main.main"], sums)
    largest = UserMapping(0x7F0000000000, resident + closed, closed, resident, 0, "", function)
    found = UserMappings(sums, [row], MappingSums(0, 0, 0, 0, 0), [largest])
    return part(replace(report, user_mappings=found), "resident", total=resident + 60 * MB)


# What makes each finding appear, in a report that does not have it, and its severity there.
CASES: list[tuple[str, str, Change]] = [
    ("lazily-freed", "info", lambda report: part(report, "resident", lazy_free=20 * MB)),
    ("scavenged-but-resident", "warning", lambda report: heap(report, resident={"scavenged": 40 * MB})),
    ("retained-idle-heap", "info", lambda report: heap(report, resident={"free": 70 * MB})),
    ("outside-the-go-heap", "warning", lambda report: part(
        kind(report, "runtime_other", kind="c_heap", resident=900 * MB), "resident", total=960 * MB)),
    ("c-heap-free", "warning", lambda report: kept_by_c(report, 800 * MB)),
    ("user-mappings", "info", lambda report: mapped_by(report, "main.cache", 96 * MB)),
    ("thread-stacks", "warning", lambda report: replace(
        report, thread_stacks=ThreadStacks(201, 201, 1600 * MB, 202 * MB, MB, 2 * MB))),
    ("goroutine-stacks", "warning", lambda report: heap(report, resident={"stacks": 80 * MB})),
    ("ended-goroutines", "info", lambda report: ended(report, 40_000, 20 * MB)),
    ("ended-goroutines", "warning", lambda report: ended(report, 500_000, 240 * MB)),
    ("runtime-metadata", "warning", lambda report: kind(report, "heap_metadata", resident=80 * MB)),
    ("deleted-file", "info", lambda report: replace(report, files=[
        MappedFile("/srv/old.db", True, "file", False, 1, 90 * MB, 80 * MB, 0, 0, 0, 80 * MB, 0, 0)])),
    ("file-pages", "info", lambda report: part(report, "resident", file_clean=80 * MB)),
    ("dirty-file-pages", "info", lambda report: part(report, "resident", file_dirty=80 * MB)),
    ("locked-file-pages", "warning", lambda report: part(report, "resident", file_locked=80 * MB)),
    ("near-mapping-limit", "warning", bounded("vm.max_map_count", 60_000, 65_530)),
    ("near-thread-limit", "warning", bounded("pids.max", 97, 100)),
    ("near-thread-limit", "warning", bounded("RLIMIT_NPROC", 900, 1000)),
    ("near-memlock-limit", "warning", bounded("RLIMIT_MEMLOCK", 8 * MB, 8 * MB, "bytes")),
    ("gomaxprocs-above-quota", "info", quota(2.5, 64)),
    ("gomaxprocs-above-quota", "warning", quota(2.5, 4, 0.25)),
    ("memory-calls-failed", "warning", failing()),
    ("working-set-page-cache", "info", charged(active_file=150 * MB)),
    ("cgroup-tmpfs", "warning", charged(shmem=150 * MB)),
    ("cgroup-kernel-memory", "warning", charged(kernel=150 * MB)),
    ("cgroup-other-processes", "info", charged(anon=190 * MB)),
    ("memory-pressure", "warning", charged(full=11.0)),
    ("shared-memory", "warning", lambda report: part(report, "resident", shmem=80 * MB)),
    ("copied-file-pages", "warning", lambda report: kind(
        report, "runtime_other", kind="file", resident=80 * MB, anonymous=80 * MB)),
    ("near-address-space-limit", "warning", lambda report: limits(report, address_space=virtual(report) + 70 * MB)),
    ("near-address-space-limit", "warning", lambda report: limits(report, address_space=virtual(report) - MB)),
    ("near-data-limit", "warning", lambda report: limits(report, data=100 * MB, data_used=91 * MB)),
    ("near-commit-limit", "warning", lambda report: limits(
        report, overcommit=2, commit_limit=10 * GB, committed=9 * GB)),
    ("huge-pages", "info", lambda report: part(
        heap(report, resident={"free": 65 * MB}), "resident", huge_pages=70 * MB)),
    ("many-timers", "info", lambda report: stats(waits(report, 200_000), HeapInuse=100 * MB)),
    ("many-timers", "warning", lambda report: stats(waits(report, 900_000), HeapInuse=300 * MB)),
    ("waiting-finalizers", "warning", lambda report: waits(report, 0, finalizers=900, cleanups=200)),
    ("profile-buckets", "info", lambda report: stats(report, BuckHashSys=20 * MB, Sys=100 * MB)),
    ("profile-buckets", "warning", lambda report: stats(report, BuckHashSys=70 * MB, Sys=100 * MB)),
    ("large-objects", "info", lambda report: stats(large(report, 70 * MB), HeapInuse=100 * MB)),
    ("fragmented-free-heap", "warning", lambda report: gaps(report, in_ram=80 * MB)),
    ("fragmented-free-heap", "info", lambda report: gaps(report, in_ram=10 * MB)),
    ("barely-used-huge-pages", "warning", lambda report: empty(report, 100 * MB)),
    ("barely-used-huge-pages", "info", lambda report: part(empty(report, 100 * MB), "resident", total=GB)),
    ("ready-not-resident", "info", lambda report: kind(report, "runtime_other", ready=900 * MB)),
    ("near-cgroup-limit", "warning", anonymous(40 * MB)),
    ("near-cgroup-limit", "critical", anonymous(98 * MB)),
    ("over-memory-high", "warning", lambda report: cgroup(report, 98 * MB, None, 98 * MB)),
    ("oom-kills", "warning", lambda report: cgroup(report, 1 * MB, 100 * MB, kills=3)),
    ("gomemlimit-unset", "info", lambda report: heap(cgroup(report, 1 * MB, GB), memory_limit=None)),
    ("gomemlimit-unset", "info", lambda report: heap(cgroup(report, 1 * MB, GB), memory_limit=NO_MEMORY_LIMIT)),
    ("gomemlimit-above-cgroup", "warning", lambda report: heap(cgroup(report, 1 * MB, GB), memory_limit=2 * GB)),
    ("gomemlimit-without-headroom", "info", lambda report: heap(cgroup(report, 1, GB), memory_limit=GB - MB)),
    ("near-gomemlimit", "info", near_limit(worked(0.03))),
    ("near-gomemlimit", "warning", near_limit(worked(0.4))),
    ("near-gomemlimit", "critical", near_limit(worked(0.9))),
    ("gomemlimit-ahead", "info", to_limit(30.0)),
    ("gomemlimit-ahead", "warning", to_limit(3600.0)),
    ("goal-far-above-live", "info", lambda report: heap(report, goal=GB, live=100 * MB, gc_percent=900)),
    ("collector-off", "warning", lambda report: heap(report, gc_percent=-1, memory_limit=NO_MEMORY_LIMIT)),
    ("live-heap-grows", "info", grown(30.0, 40 * MB, 60 * MB, 80 * MB)),
    ("live-heap-grows", "warning", grown(3600.0, 40 * MB, 60 * MB, 80 * MB)),
    ("goroutines-grow", "info", courses(10.0, goroutines=(1_000, 1_500, 2_000))),
    ("goroutines-grow", "warning", courses(3600.0, goroutines=(1_000, 1_500, 2_000))),
    ("outside-grows", "info", courses(10.0, outside=(40 * MB, 60 * MB, 80 * MB))),
    ("finalizers-wait-for-gc", "info", courses(
        30.0, outside=(40 * MB, 60 * MB, 80 * MB), finalizers=(1000, 2000, 3000), collections=(7, 7, 7))),
    ("finalizers-wait-for-gc", "warning", freed_by_collections()),
    ("outside-grows", "warning", courses(3600.0, outside=(40 * MB, 60 * MB, 80 * MB))),
    ("swapped", "warning", lambda report: part(report, "resident", swap=20 * MB)),
    ("fragmentation", "warning", lambda report: replace(report, spans=[span_class(21, 144, 1, 9_000, 900)])),
    ("inexact-snapshot", "info", lambda report: replace(report, consistency=Consistency(False, 8, 64 * KB))),
    ("inexact-snapshot", "warning", lambda report: replace(report, consistency=Consistency(False, 8, 64 * MB))),
    ("lost-events", "warning", lambda report: replace(report, event_loss=EventLoss(1, 1, 0))),
    ("drift", "warning", lambda report: replace(report, event_loss=EventLoss(0, 1, -4 * MB))),
    ("looks-like-go", "info", lambda report: replace(
        report, rebuilt=[RebuiltRange(GB, 32 * MB, "rw-p", False, "index of the heap's arenas", "size and order")])),
    ("unexplained-ready", "warning", lambda report: replace(
        report, accounting=Accounting(40 * MB, 32 * MB, 0, -2 * MB))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "severity", "change"), CASES, ids=[f"{name}-{level}" for name, level, _ in CASES])
def test_finding_appears_when_its_figures_do(name: str, severity: str, change: Change) -> None:
    assert name not in ids(grown_and_scavenged())
    found = finding(change(grown_and_scavenged()), name)
    assert found.severity == severity
    assert found.title
    assert found.explanation.endswith(".")
    assert found.action.endswith((".", ")"))
    assert found.evidence
    assert any(value for value in found.evidence.values())


def test_every_finding_has_a_case() -> None:
    tried = {name for name, _, _ in CASES} | {"reserved-address-space"}
    seen = {finding.id for change in (case[2] for case in CASES) for finding in find(change(grown_and_scavenged()))}
    assert seen == tried
    silent = [name for name, rule in RULES.items()
              if not any(rule(change(grown_and_scavenged())) for _, _, change in CASES)]  # fmt: skip
    assert silent == []


@pytest.mark.parametrize("sample", [launched, grown_and_scavenged, lazily_freed, kernel_only])
def test_a_healthy_process_has_info_findings_only(sample: Callable[[], Report]) -> None:
    assert set(ids(sample()).values()) <= {"info"}


def test_page_cache_is_that_of_whoever_moved_as_much() -> None:
    report = charged(active_file=150 * MB, file_mapped=10 * MB)(grown_and_scavenged())
    assert report.resident is not None
    rss = f"{report.resident.total / MB:.0f} MiB"
    title = f"Working set 200 MiB, RSS {rss}: 140 MiB is page cache of files"
    for io, whose in ((FileIo(0, 140 * MB), " that this process wrote"), (FileIo(MB, MB), ""), (None, ""),
                      (FileIo(140 * MB, 0), " that this process read")):  # fmt: skip
        found = finding(replace(report, file_io=io), "working-set-page-cache")
        assert found.title == title + whose
    assert "gomem pod 4711" in found.action


@pytest.mark.parametrize(
    ("set_as", "said", "unsaid"),
    [
        (huge("always"), "set /sys/kernel/mm/transparent_hugepage/enabled to madvise", "already"),
        (huge("madvise"), "enabled is madvise already", "to madvise"),
        (huge("madvise", advised=70 * MB), "have it not ask", "to madvise"),
        (huge("always", advised=70 * MB), "enabled=madvise changes nothing", "to madvise"),
        (huge("never"), "off on this machine already", "to madvise"),
        (huge("always", disabled=True), "off for this process already", "PR_SET_THP_DISABLE) before"),
        (None, "set /sys/kernel/mm/transparent_hugepage/enabled to madvise", "already"),
    ],
)
def test_no_advice_on_huge_pages_is_to_set_what_is_set(set_as: MemorySettings | None, said: str, unsaid: str) -> None:
    many = part(heap(grown_and_scavenged(), resident={"free": 65 * MB}), "resident", huge_pages=70 * MB)
    action = finding(replace(many, settings=set_as), "huge-pages").action
    assert said in action
    assert unsaid not in action
    barely = replace(empty(grown_and_scavenged(), 70 * MB), settings=set_as)
    barely = part(barely, "resident", huge_pages=70 * MB)
    same = action.removeprefix("Only if RSS matters more than speed: ")
    assert same in finding(barely, "barely-used-huge-pages").action


@pytest.mark.parametrize(
    ("set_as", "said", "unsaid"),
    [
        (huge("always"), "max_ptes_none to 0 (it is 511), or set enabled to madvise.", "already"),
        (huge("always", none=0), "Set /sys/kernel/mm/transparent_hugepage/enabled to madvise.", "max_ptes_none"),
        (huge("madvise"), "max_ptes_none to 0 (it is 511).", "to madvise"),
        (huge("madvise", none=0), "max_ptes_none is 0 and enabled is madvise already", "to madvise"),
        (huge("never"), "off on this machine already", "max_ptes_none"),
        (huge("always", disabled=True), "off for this process already", "max_ptes_none"),
    ],
)
def test_no_advice_on_filled_holes_is_to_set_what_is_set(set_as: MemorySettings, said: str, unsaid: str) -> None:
    kept = part(heap(grown_and_scavenged(), resident={"scavenged": 40 * MB}), "resident", huge_pages=40 * MB)
    action = finding(replace(kept, settings=set_as), "scavenged-but-resident").action
    assert said in action
    assert unsaid not in action


@pytest.mark.parametrize(
    "change",
    [
        bounded("vm.max_map_count", 58_000, 65_530),
        bounded("pids.max", 80, 100),
        bounded("RLIMIT_MEMLOCK", 0, 0, "bytes"),
        quota(2.5, 3),
        quota(0.5, 2, 0.9),  # what the runtime chooses by itself
        failing(call="madvise", error="EINVAL"),
        failing(error="EINVAL"),
        failing(size=256 << 40),
    ],
)
def test_limits_that_are_far_are_no_findings(change: Change) -> None:
    report = grown_and_scavenged()
    assert set(ids(change(report))) <= set(ids(report)) | {"near-mapping-limit"}


def test_failed_calls_name_the_limit_that_leaves_less_than_was_asked_for() -> None:
    report = grown_and_scavenged()
    assert "vm.max_map_count leaves 1, less" in finding(failing()(report), "memory-calls-failed").explanation
    short = replace(failing()(report), bounds=[Bound("RLIMIT_DATA", "bytes", GB, GB - MB, MB)])
    assert finding(short, "memory-calls-failed").explanation == "RLIMIT_DATA leaves 1.0 MiB, less than was asked for."
    plenty = replace(short, bounds=[Bound("RLIMIT_DATA", "bytes", GB, 0, GB)])
    assert "No limit of the process" in finding(plenty, "memory-calls-failed").explanation


@pytest.mark.parametrize(
    "figures",
    [
        {"inactive_file": 150 * MB},  # not in the working set
        {"active_file": 150 * MB, "file_mapped": 120 * MB},  # in somebody's RSS
        {"active_file": 60 * MB},
        {"shmem": 60 * MB},
        {"kernel": 150 * MB, "slab_reclaimable": 120 * MB},
        {"anon": 90 * MB},
        {"full": 9.9},
    ],
    ids=str,
)
def test_a_bill_of_which_nothing_is_much_says_nothing(figures: dict[str, Any]) -> None:
    report = grown_and_scavenged()
    assert set(ids(charged(**figures)(report))) == set(ids(report))


def test_a_cgroup_without_a_limit_that_is_no_container_is_nobodys_matter() -> None:
    report = part(charged(shmem=150 * MB, limit=None)(grown_and_scavenged()), "process", container_id=None)
    assert not {one for one in ids(report) if one.startswith("cgroup-")}


def test_a_container_without_a_limit_has_a_bill_all_the_same() -> None:
    report = charged(shmem=150 * MB, limit=None)(grown_and_scavenged())
    assert report.process.container_id
    assert "cgroup-tmpfs" in ids(report)


def reserved(report: Report, held: int = 0, **figures: int) -> Finding:
    assert report.virtual is not None
    in_ram = StateResidency(held, 0, 0, 0, 0)
    report = part(limits(report, **figures), "virtual", resident=in_ram, unmanaged_no_access=0)
    return finding(report, "reserved-address-space")


def test_reserved_address_space_is_explained() -> None:
    found = reserved(launched())
    assert found.evidence["reserved"] == 649 * MB - 4 * MB - 256 * KB
    assert "It holds no RAM. No limit that is set counts it." in found.explanation
    assert found.actionable is False


def test_reserved_address_space_that_is_in_ram_is_not_said_to_hold_none() -> None:
    found = reserved(launched(), held=20 * MB)
    assert "Of these ranges 20 MiB are in RAM all the same; the rest holds none." in found.explanation
    assert "mlock" in reserved(launched(), held=20 * MB, locked=30 * MB).explanation
    unknown = part(replace(launched(), address_limits=None), "virtual", resident=None)
    assert "Most of it holds no RAM. The cgroup's limit" in finding(unknown, "reserved-address-space").explanation


def test_limits_that_count_address_space_are_named() -> None:
    found = reserved(launched(), address_space=4 * GB)
    assert "RLIMIT_AS counts all of it." in found.explanation
    assert found.actionable
    # What is only reserved is no data, and is not committed.
    assert "RLIMIT_DATA" not in reserved(launched(), data=4 * GB).explanation
    assert "CommitLimit" not in reserved(launched(), overcommit=2).explanation
    prepared = part(launched(), "virtual", prepared=100 * MB)
    assert "RLIMIT_DATA counts 100 MiB of it that are mapped writable" in reserved(prepared, data=4 * GB).explanation
    assert "CommitLimit" in reserved(prepared, overcommit=2).explanation


def test_a_limit_of_address_space_is_near_when_no_arena_fits_or_it_is_nearly_used() -> None:
    report = grown_and_scavenged()
    space = virtual(report)
    assert "near-address-space-limit" not in ids(limits(report, address_space=space * 2))
    assert "near-data-limit" not in ids(limits(report, data=100 * MB, data_used=80 * MB))
    assert "near-commit-limit" not in ids(limits(report, overcommit=0, commit_limit=10 * GB, committed=20 * GB))
    for left, words in ((63 * MB, "another 64 MiB"), (64 * MB, "few programs")):
        near = finding(limits(report, address_space=space + left), "near-address-space-limit")
        assert words in near.explanation
    assert "nothing is left" in finding(limits(report, address_space=space - 1), "near-address-space-limit").title


def test_what_can_be_acted_on_comes_before_what_cannot_within_a_severity() -> None:
    report = part(heap(launched(), resident={"free": 70 * MB}), "resident", file_clean=80 * MB)
    found = find(report)
    assert [one.severity for one in found] == ["info"] * len(found)
    assert [one.actionable for one in found] == sorted((one.actionable for one in found), reverse=True)
    assert found[0].id == "retained-idle-heap"
    assert found[-1].id == "reserved-address-space"
    assert all(one.actionable != one.action.startswith("Nothing to do") for one in found)


def test_scavenged_memory_that_is_locked_is_said_to_be_locked() -> None:
    report = part(heap(grown_and_scavenged(), resident={"scavenged": 40 * MB}), "resident", huge_pages=64 * MB)
    assert "khugepaged" in finding(limits(report, locked=4 * MB), "scavenged-but-resident").explanation
    assert "VmLck" in finding(limits(report, locked=900 * MB), "scavenged-but-resident").explanation
    report = part(report, "resident", huge_pages=0)
    assert "Neither" in finding(limits(report, locked=0), "scavenged-but-resident").explanation


def test_lazily_freed_pages_are_not_also_called_scavenged_but_resident() -> None:
    assert "lazily-freed" in ids(lazily_freed())
    assert "scavenged-but-resident" not in ids(lazily_freed())


def test_scavenged_but_resident_names_huge_pages_only_if_there_are_any() -> None:
    report = replace(heap(grown_and_scavenged(), resident={"scavenged": 40 * MB}), address_limits=None)
    assert "VmLck" in finding(part(report, "resident", huge_pages=0), "scavenged-but-resident").action
    assert "khugepaged" in finding(part(report, "resident", huge_pages=64 * MB), "scavenged-but-resident").action


def test_retained_heap_is_compared_with_rss_that_is_not_lazily_freed() -> None:
    assert "retained-idle-heap" in ids(lazily_freed())
    assert "retained-idle-heap" not in ids(part(lazily_freed(), "resident", lazy_free=0))


def test_page_cache_in_a_full_cgroup_is_not_critical() -> None:
    report = cgroup(part(lazily_freed(), "resident", anonymous=728 * MB), 740 * MB, 745 * MB)
    assert finding(report, "near-cgroup-limit").severity == "warning"
    assert finding(report, "near-cgroup-limit").evidence["not_reclaimable"] == (728 - 512) * MB


@pytest.mark.parametrize(("change", "severity"), [
    (near_limit(worked(0.03), live=80 * MB), "info"),
    (near_limit(worked(0.03), live=85 * MB, limit=90 * MB), "warning"),
    (near_limit(worked(0.4), live=85 * MB, limit=90 * MB), "critical"),
    (near_limit(worked(0.03, fill=0.8)), "warning"),
    (near_limit(worked(0.2, limited=True)), "critical"),
    (near_limit(replace(worked(0.2, limited=True, fill=1.0), since_last_cycle=900.0)), "info"),
    (lambda report: collected(near_limit(worked(None))(report), a_second=3.0), "info"),
    (lambda report: collected(near_limit(worked(None))(report), a_second=0.1), "warning"),
    (near_limit(None), "warning"),
], ids=[
    "cheap", "nothing to collect, cheaply", "nothing to collect", "dear", "limited", "once limited", "cheap all along",
    "cheap until now", "unknown",
])  # fmt: skip
def test_gomemlimit_is_judged_by_what_the_collector_costs(change: Change, severity: str) -> None:
    assert finding(change(grown_and_scavenged()), "near-gomemlimit").severity == severity


def test_what_the_collector_costs_is_said_of_now_where_its_marking_was_not_seen() -> None:
    report = collected(near_limit(worked(None))(grown_and_scavenged()), a_second=0.1)  # 1 % of the CPU time since then
    found = finding(report, "near-gomemlimit")
    assert "Nothing to do" not in found.action
    assert "for about 30% of the CPU time" in found.explanation
    assert found.evidence["cpu_share_now"] == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize(("live", "stacks", "named"), [
    (20 * MB, 70 * MB, "goroutine stacks"), (70 * MB, 20 * MB, "the live heap"),
])  # fmt: skip
def test_what_uses_the_limit_is_named(live: int, stacks: int, named: str) -> None:
    found = finding(near_limit(worked(0.9), live=live, stacks=stacks)(grown_and_scavenged()), "near-gomemlimit")
    assert f"70 MiB is {named}" in found.title
    assert "70 MiB" in found.action
    assert found.evidence["not_garbage"] == 95 * MB


@pytest.mark.parametrize(("mark_share", "stacks", "named"), [
    (0.9, 110 * MB, "110 MiB is goroutine stacks"), (0.4, 110 * MB, "130 MiB is the live heap"),
    (0.9, 90 * MB, "130 MiB is the live heap"),
])  # fmt: skip
def test_stacks_that_pass_the_limit_are_named_though_what_is_allocated_while_marking_counts_as_alive(
    mark_share: float, stacks: int, named: str
) -> None:
    report = near_limit(worked(mark_share), live=130 * MB, stacks=stacks)(grown_and_scavenged())
    assert named in finding(report, "near-gomemlimit").title


GONE = Limit("ended-early", "its memory", "as of the last look", "", "note")
REPLACED = Limit("chapter-end", "this program's memory at its end", "as of the last look", "")


@pytest.mark.parametrize(("changed", "named"), [
    ({}, True),
    ({"backend": "procfs"}, True),
    ({"limits": [Limit("events", "events", "not asked for", "")]}, True),
    ({"backend": "replay"}, False),
    ({"ending": ProcessEnding(0, None, False)}, False),
    ({"limits": [GONE]}, False),
    ({"limits": [REPLACED]}, False),
])  # fmt: skip
def test_who_holds_the_heap_and_the_stacks_is_for_a_command_to_say_while_the_process_is_there(
    changed: dict[str, Any], named: bool
) -> None:
    report = replace(near_limit(worked(0.9), live=70 * MB)(grown_and_scavenged()), **changed)
    action = finding(report, "near-gomemlimit").action
    assert (f"`gomem profile {report.process.pid}`" in action) == named
    assert "heap profile" in action
    report = replace(near_limit(worked(0.9), live=20 * MB, stacks=70 * MB)(grown_and_scavenged()), **changed)
    action = finding(report, "near-gomemlimit").action
    assert (f"`gomem profile {report.process.pid} --kind goroutine`" in action) == named
    assert "what they wait for" in action


def test_no_command_is_named_for_a_process_whose_pid_no_log_tells() -> None:
    report = part(near_limit(worked(0.9), live=70 * MB)(grown_and_scavenged()), "process", pid=0)
    assert "gomem profile" not in finding(report, "near-gomemlimit").action


@pytest.mark.parametrize(("ms", "remedy"), [(200, "fewer goroutines be in C"), (5, "C code made 196 of the 201")])
def test_the_remedy_for_stacks_of_threads_is_for_whoever_made_the_threads(ms: int, remedy: str) -> None:
    report = grown_and_scavenged()
    structure = RuntimeStructure([], None, None, None, Scheduler(10, 5, None, ms=ms, ps=4), threads=201)
    stacks = ThreadStacks(201, 201, 1600 * MB, 202 * MB, MB, 2 * MB)
    report = part(replace(report, structure=structure, thread_stacks=stacks), "resident", total=300 * MB)
    assert remedy in finding(report, "thread-stacks").action


@pytest.mark.parametrize(("free", "found"), [(800 * MB, "c-heap-free"), (400 * MB, "outside-the-go-heap")])
def test_memory_of_c_is_said_to_be_free_or_in_use_but_not_both(free: int, found: str) -> None:
    said = ids(kept_by_c(grown_and_scavenged(), free))
    assert {"c-heap-free", "outside-the-go-heap"} & set(said) == {found}


@pytest.mark.parametrize(
    "change",
    [
        freed_by_collections(fallen_without=60 * MB),  # it is closed by hand
        freed_by_collections(fallen_with=4 * MB),  # it survives collections
        freed_by_collections(collections=100),  # they are not rare
        courses(30.0, outside=(40 * MB, 60 * MB, 80 * MB), finalizers=(1000, 1010, 1020), collections=(7, 7, 7)),
        courses(30.0, outside=(40 * MB, 60 * MB, 80 * MB), finalizers=(1000, 2000, 3000), collections=(7, 9, 9)),
        courses(30.0, outside=(40 * MB, 40 * MB, 41 * MB), finalizers=(1000, 2000, 3000), collections=(7, 7, 7)),
    ],
)
def test_memory_outside_of_go_that_does_not_wait_for_collections_is_not_said_to(change: Change) -> None:
    assert "finalizers-wait-for-gc" not in ids(change(grown_and_scavenged()))


def test_mappings_of_code_without_a_name_are_no_finding_and_callers_are_told() -> None:
    report = grown_and_scavenged()
    assert "user-mappings" not in ids(mapped_by(report, None, 96 * MB))
    assert "user-mappings" not in ids(mapped_by(report, "main.cache", 32 * MB))
    found = finding(mapped_by(report, "main.cache", 96 * MB), "user-mappings")
    assert found.title == "96 MiB of 156 MiB RSS is in mappings that main.cache made"
    assert "(called by main.main): 2 mappings of 96 MiB, 96 MiB of it in RAM" in found.explanation


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("main.reserve", "80 GiB of it by main.reserve in 2 mappings"),
        (None, "80 GiB of it in one range at 0x7f0000000000"),
    ],
)
def test_who_reserved_address_space_is_told_or_else_where_it_is(function: str | None, words: str) -> None:
    report = part(mapped_by(grown_and_scavenged(), function, 0, 80 * GB), "virtual", unmanaged_no_access=80 * GB)
    report = part(report, "virtual", total=100 * GB)
    assert f"80 GiB without access, {words}." in finding(report, "reserved-address-space").explanation


def test_gomemlimit_is_held_against_sys_minus_released() -> None:
    report = grown_and_scavenged()
    assert report.memstats is not None
    use = limit_use({**report.memstats, "HeapReleased": 0}, 1, 100 * MB)
    assert use is not None
    assert use.total == report.memstats["Sys"]
    assert sum(getattr(use, part) for part in PARTS) == use.total
    assert "near-gomemlimit" not in ids(heap(report, memory_limit=100 * MB, limit_use=replace(use, total=89 * MB)))
    assert "near-gomemlimit" in ids(heap(report, memory_limit=100 * MB, limit_use=replace(use, total=95 * MB)))


def test_gogc_off_with_a_limit_is_a_choice() -> None:
    report = heap(grown_and_scavenged(), gc_percent=-1, memory_limit=450 * MB)
    assert "collector-off" not in ids(report)


def test_no_heap_goal_is_not_a_goal_far_above_live() -> None:
    assert "goal-far-above-live" not in ids(heap(grown_and_scavenged(), goal=(1 << 64) - 1))


def test_drift_within_the_skew_or_after_losses_is_not_our_error() -> None:
    report = replace(grown_and_scavenged(), event_loss=EventLoss(0, 0, 4 * MB))
    assert "drift" in ids(report)
    assert "drift" not in ids(replace(report, consistency=Consistency(False, 3, 5 * MB)))
    assert "drift" not in ids(replace(report, event_loss=EventLoss(7, 1, 4 * MB)))
    assert "drift" not in ids(replace(report, event_loss=EventLoss(0, 0, None)))


def test_what_is_said_of_trust_is_what_happened() -> None:
    """A process that was stopped for its reading is not told that it never is; none was "read afresh 0 times"."""
    torn = replace(grown_and_scavenged(), consistency=Consistency(False, 8, 40 * MB))
    frozen = replace(torn, overhead=replace(torn.overhead, frozen_seconds=0.2))
    said = {name: next(one for one in find(report) if one.id == "inexact-snapshot")
            for name, report in (("torn", torn), ("frozen", frozen))}  # fmt: skip
    assert "--freeze" in said["torn"].action
    assert "--freeze" not in said["frozen"].action
    assert not any("never stopped" in one.explanation for one in said.values())
    lost = next(one for one in find(replace(torn, event_loss=EventLoss(7, 0, None))) if one.id == "lost-events")
    assert "0 times" not in lost.explanation
    assert "buffer" not in lost.action  # there is no option for it


def test_worst_findings_come_first() -> None:
    report = near_limit(worked(0.9))(replace(grown_and_scavenged(), event_loss=EventLoss(9, 1, 0)))
    levels = [finding.severity for finding in find(report)]
    assert levels == sorted(levels, key=["critical", "warning", "info"].index)
    assert levels[0] == "critical"


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
def test_ids_are_stable_words_and_never_stand_twice(sample: Callable[[], Report]) -> None:
    found = [finding.id for finding in find(sample())]
    assert len(found) == len(set(found))


figures = st.one_of(st.none(), st.integers(0, 1 << 64))


@settings(deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.lists(figures, min_size=12, max_size=12), st.integers(-1, 1 << 31))
def test_no_figures_break_a_rule(name: str, amounts: list[int | None], gc_percent: int) -> None:
    report = SAMPLES[name]()
    assert report.resident is not None
    current, most, high, lazy, huge, swap, anon, file, live, goal, limit, sys = amounts
    report = cgroup(report, current, most, high)
    report = part(report, "resident", lazy_free=lazy, huge_pages=huge, swap=swap, anonymous=anon, file=file, total=0)
    if report.heap is not None:
        report = heap(report, live=live, goal=goal, memory_limit=limit, gc_percent=gc_percent)
    for found in find(replace(report, memstats={"Sys": sys, "HeapReleased": live})):
        assert found.title.isprintable()


def test_every_rule_that_is_written_is_listed() -> None:
    written = {
        function
        for room in pkgutil.iter_modules(findings.__path__)
        for function in vars(importlib.import_module(f"{findings.__name__}.{room.name}")).values()
        if inspect.isfunction(function)
        and not function.__name__.startswith("_")
        and function.__annotations__ == {"report": "Report", "return": "Finding | None"}
    }
    assert written == set(RULES.values())


def test_the_time_until_the_limit_is_that_of_the_slope_and_the_part_that_grows_is_named() -> None:
    found = finding(to_limit(30.0)(grown_and_scavenged()), "gomemlimit-ahead")
    assert found.evidence["per_second"] == 2 * MB
    assert found.evidence["seconds_left"] == 60.0
    assert "in about 60 s" in found.title
    assert "most of that goroutine stacks" in found.explanation
    assert found.action.startswith("Run fewer goroutines")


def test_a_limit_that_is_far_off_or_not_set_is_not_ahead() -> None:
    report = to_limit(30.0)(grown_and_scavenged())
    assert "gomemlimit-ahead" not in ids(heap(report, memory_limit=NO_MEMORY_LIMIT))
    assert "gomemlimit-ahead" not in ids(heap(report, memory_limit=100 * GB))
    assert "gomemlimit-ahead" not in ids(to_limit(30.0, 60 * MB)(grown_and_scavenged()))


def test_the_limit_to_set_leaves_room_for_what_was_measured_outside_of_go() -> None:
    report = heap(cgroup(grown_and_scavenged(), 1 * MB, GB), memory_limit=None)
    assert report.kinds is not None
    go = sum(row.resident or 0 for row in report.kinds
             if row.kind in ("heap_arena", "heap_metadata", "page_summary", "runtime_other"))  # fmt: skip
    report = part(report, "resident", anonymous=go + 200 * MB, shmem=24 * MB, file_locked=0)
    found = finding(report, "gomemlimit-unset")
    assert found.evidence["outside_of_go"] == 224 * MB
    assert f"Set GOMEMLIMIT={800 * 95 // 100}MiB: 224 MiB" in found.action
    assert "about 90 %" in finding(part(report, "resident", anonymous=None), "gomemlimit-unset").action


@pytest.mark.parametrize(
    ("medians", "noise"),
    [
        ((40, 60, 60), 1),  # it has stopped
        ((40, 60, 66), 1),  # it slows down
        ((40, 60, 80), 20),  # it breathes, by as much as it rises
        ((40, 42, 80), 1),  # a step
        ((40, 78, 80), 1),
        ((40, 46, 52), 1),  # of no weight
        ((1000, 1040, 1080), 1),  # of no weight for a heap of that size
        ((80, 60, 40), 1),
        ((40, 80, 60), 1),
    ],
)
def test_a_live_heap_that_does_not_grow_on_is_not_told_of(medians: tuple[int, ...], noise: int) -> None:
    report = grown(3600.0, *(size * MB for size in medians), noise=noise * MB)(grown_and_scavenged())
    assert "live-heap-grows" not in ids(report)


@pytest.mark.parametrize("middle", [(40, 40, 80), (40, 60, 80), (40, 70, 79)])
def test_a_step_that_came_in_the_second_third_is_no_growth(middle: tuple[int, int, int]) -> None:
    thirds = [LiveThird(5, *(size * MB for size in third)) for third in ((39, 40, 41), middle, (79, 80, 81))]
    assert "live-heap-grows" not in ids(heap(grown_and_scavenged(), live_course=LiveCourse(3600.0, thirds)))


@pytest.mark.parametrize("medians", [(1_000, 1_040, 1_080), (1_000, 2_000, 2_000), (2_000, 1_500, 1_000)])
def test_goroutines_that_came_to_rest_or_are_a_few_more_do_not_grow(medians: tuple[int, int, int]) -> None:
    assert "goroutines-grow" not in ids(courses(3600.0, goroutines=medians)(grown_and_scavenged()))


def grown_by(row: GrownCreator, whole: FirstAndLast) -> Report:
    """Goroutines that grow, of which these are by one go statement."""
    nobody = FirstAndLast(0, 0, 0, 0)
    report = courses(10.0, goroutines=(1_000, 1_500, 2_000))(grown_and_scavenged())
    return replace(report, goroutine_growth=GoroutineGrowth(9.0, 5, whole, [row], 0, nobody))


LEAK = GrownCreator("main.(*hub).run", "/src/hub.go", 88, FirstAndLast(100, 900, 0, 0), True, True)
BY_ALL = FirstAndLast(1_000, 2_200, 0, 0)


@pytest.mark.parametrize("only_grows", [True, False, None])
def test_who_has_created_most_of_the_goroutines_that_there_are_more_is_named(only_grows: bool | None) -> None:
    report = grown_by(replace(LEAK, only_grows=only_grows), BY_ALL)
    found = finding(report, "goroutines-grow")
    assert found.title.endswith(", most of them created by main.(*hub).run")
    assert "100 at the first look at goroutines, 900 at the last" in found.explanation
    assert ("more at each look" in found.explanation) == (only_grows is True)
    assert (found.evidence["creator"], found.evidence["creator_grown"]) == ("main.(*hub).run (hub.go:88)", 800)
    assert f"`gomem goroutines {report.process.pid} --by stack`" in found.action
    over = finding(replace(report, backend="replay"), "goroutines-grow")
    assert "hub.go:88" in over.action
    assert "`gomem" not in over.action


@pytest.mark.parametrize(
    ("row", "whole"),
    [
        (replace(LEAK, some_stay=False, only_grows=False), BY_ALL),  # all come and go
        (replace(LEAK, some_stay=None, only_grows=None), BY_ALL),  # it is not known
        (replace(LEAK, sums=FirstAndLast(100, 600, 0, 0)), BY_ALL),  # less than half
        (replace(LEAK, function="", file=""), BY_ALL),  # nobody's
        (LEAK, FirstAndLast(2_000, 1_990, 0, 0)),  # there are fewer by these looks
    ],
)
def test_who_has_not_is_not(row: GrownCreator, whole: FirstAndLast) -> None:
    report = grown_by(row, whole)
    found = finding(report, "goroutines-grow")
    assert "created by" not in found.title
    assert found.evidence["creator"] is None
    assert f"`gomem goroutines {report.process.pid} -d 30s`" in found.action


def test_growth_is_told_though_collections_find_some_garbage_alive() -> None:
    """What is allocated while a collection marks counts as marked: some of it is garbage."""
    report = grown(3600.0, *(size * MB for size in (40, 60, 80)), noise=12 * MB)(grown_and_scavenged())
    assert "live-heap-grows" in ids(report)


def test_what_grows_names_the_command_where_the_process_can_be_asked() -> None:
    report = grown(30.0, 40 * MB, 60 * MB, 80 * MB)(grown_and_scavenged())
    pid = report.process.pid
    assert f"`gomem profile {pid} -o before.pb.gz`" in finding(report, "live-heap-grows").action
    assert "profile " not in finding(replace(report, backend="replay"), "live-heap-grows").action.replace(
        "profiles", ""
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("goroutine-stacks", lambda report: heap(report, resident={"stacks": 80 * MB})),
        ("shared-memory", lambda report: part(report, "resident", shmem=100 * MB, total=200 * MB)),
        ("near-cgroup-limit", lambda report: cgroup(report, 95 * MB, 100 * MB)),
    ],
)
def test_a_remedy_that_another_command_answers_names_it(name: str, change: Change) -> None:
    report = change(grown_and_scavenged())
    command = "goroutines {}" if name == "goroutine-stacks" else "profile {} --kind resident"
    assert f"`gomem {command.format(report.process.pid)}`" in finding(report, name).action
    assert "`gomem" not in finding(replace(report, backend="replay"), name).action


def test_free_pages_that_a_large_object_would_fit_into_are_no_gaps() -> None:
    name = "fragmented-free-heap"
    assert name not in ids(gaps(grown_and_scavenged(), in_ram=80 * MB, longest=100 * MB, needed=101 * MB))
    assert name not in ids(gaps(grown_and_scavenged(), in_ram=80 * MB, needed=121 * MB))
    assert name not in ids(gaps(grown_and_scavenged(), in_ram=80 * MB, free=60 * MB))


def test_a_heap_that_was_seen_to_grow_is_said_to_have_grown() -> None:
    report = gaps(grown_and_scavenged(), in_ram=80 * MB)
    assert report.events is not None
    still = replace(report, events={**report.events, "grow": EventCount(0, 0)})
    assert "makes it grow" in finding(still, "fragmented-free-heap").title
    growing = replace(report, events={**report.events, "grow": EventCount(40, 160 * MB)})
    title = finding(growing, "fragmented-free-heap").title
    assert title == "HeapSys grew by 160 MiB although 120 MiB of the heap are free: the longest free run is 3.0 MiB"


def test_free_heap_in_pieces_is_not_said_to_be_kept_for_the_next_peak() -> None:
    assert "in pieces" in finding(gaps(grown_and_scavenged(), in_ram=80 * MB), "retained-idle-heap").title
    whole = gaps(grown_and_scavenged(), in_ram=80 * MB, longest=100 * MB)
    assert "for the next peak" in finding(whole, "retained-idle-heap").title


@pytest.mark.parametrize(
    ("counts", "told", "first"),
    [
        (None, "waited for a mutex. None", "Raise runtime.MemProfileRate"),
        (ProfileBuckets(90_000, None, None), "There are 90,000 of memory.", "Raise runtime.MemProfileRate"),
        (ProfileBuckets(900, 80_000, 0), "There are 900 of memory, 80,000 of blocking.", "Lower SetBlockProfileRate"),
        (ProfileBuckets(900, 0, 80_000), "There are 900 of memory, 80,000 of mutexes.", "Lower SetBlockProfileRate"),
    ],
)
def test_the_profile_with_most_buckets_is_to_sample_less(counts: ProfileBuckets | None, told: str, first: str) -> None:
    report = waits(stats(grown_and_scavenged(), BuckHashSys=70 * MB, Sys=100 * MB), 0)
    assert report.structure is not None
    found = finding(replace(report, structure=replace(report.structure, profile_buckets=counts)), "profile-buckets")
    assert told in found.explanation
    assert found.action.startswith(first)
    assert found.evidence["memory_buckets"] == (counts.memory if counts else None)


def test_stopped_timers_and_a_few_finalizers_are_not_told_of() -> None:
    report = stats(waits(grown_and_scavenged(), 900_000, stopped=890_000, finalizers=500, cleanups=None), HeapInuse=MB)
    assert not {"many-timers", "waiting-finalizers"} & set(ids(report))
