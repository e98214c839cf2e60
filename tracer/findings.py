"""What a report means: pure rules from figures to statements that a tired person can act on.

Every rule is a function Report -> Finding | None in RULES. A rule whose figures are missing stays
silent (`limits` says what is missing). Severity is "info" for what looks alarming but is harmless or
merely good to know, "warning" for what costs memory or will, "critical" for what is about to kill.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracer.report import Finding, Heap, Report, Severity

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# Under these an amount is noise on any machine that runs Go services.
NOTEWORTHY: Final = 16 * MIB
LARGE: Final = 64 * MIB
# A process under this is small: shares of it say nothing.
SMALL_PROCESS: Final = 32 * MIB

EMPTY_ADDRESS_SPACE_FACTOR: Final = 4  # VSZ this many times RSS makes people ask
LAZY_SHARE: Final = 0.10  # of RSS: visible as a step in a graph
RETAINED_SHARE: Final = 0.25  # of RSS; the scavenger aims at 10 % over the goal, so less is its normal slack
WASTE_SHARE: Final = 0.40  # of in-use spans; half-empty spans just after a collection are normal up to here
OUTSIDE_SHARE: Final = 0.50  # of RSS: then a heap profile explains less than half
STACK_SHARE: Final = 0.20  # of RSS; 2-8 KiB a goroutine, so 64 MiB are thousands of goroutines
METADATA_SHARE: Final = 0.15  # of RSS; normally 2-5 %
FILE_SHARE: Final = 0.30  # of RSS
CGROUP_NEAR: Final = 0.90  # of memory.max: reclaim starts to cost
CGROUP_FULL: Final = 0.97  # of memory.max: the next burst is an OOM kill
LIMIT_NEAR: Final = 0.90  # of GOMEMLIMIT: the collector starts to work for it
LIMIT_FULL: Final = 0.98  # of GOMEMLIMIT: nearly continuous collection, capped at 50 % of the CPU
LIMIT_HEADROOM: Final = 0.90  # of memory.max: GOMEMLIMIT does not count the binary, C memory and page cache
GOAL_FACTOR: Final = 3.0  # heap goal over live heap; GOGC=100 gives 2
HUGE_PAGE_EXCESS: Final = 1.25  # resident over Ready heap; more means pages that Go never touched or gave back
UNTOUCHED_SHARE: Final = 0.25  # of Ready
UNEXPLAINED_READY: Final = 1 * MIB  # page rounding stays far below

Evidence = dict[str, int | float | str | None]
Rule = Callable[[Report], Finding | None]
RULES: list[Rule] = []

_ORDER: Final[dict[Severity, int]] = {"critical": 0, "warning": 1, "info": 2}


def find(report: Report) -> list[Finding]:
    """Return what the report's figures say, the worst first."""
    found = [finding for rule in RULES if (finding := rule(report)) is not None]
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def _rule(rule: Rule) -> Rule:
    RULES.append(rule)
    return rule


def _stat(report: Report, name: str) -> int | None:
    """Return one figure of runtime.MemStats, None where it could not be had."""
    value = (report.memstats or {}).get(name)
    return value if isinstance(value, int) else None


def _kinds_resident(report: Report, *kinds: str) -> int | None:
    if report.kinds is None:
        return None
    return sum(row.resident for row in report.kinds if row.kind in kinds)


def _runtime_owns(report: Report) -> int | None:
    """Return the bytes that GOMEMLIMIT is held against: Sys - HeapReleased (runtime/mgcpacer.go)."""
    sys, released = _stat(report, "Sys"), _stat(report, "HeapReleased")
    return None if sys is None or released is None else sys - released


def _lazy(report: Report) -> int:
    return (report.resident.lazy_free or 0) if report.resident else 0


def mib(count: int | float) -> str:
    """Return bytes as a person says them in a sentence (findings are data: no renderer formats them)."""
    if count >= 10 * GIB:
        return f"{count / GIB:.0f} GiB"
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    return f"{count / MIB:.0f} MiB" if count >= 10 * MIB else f"{count / MIB:.1f} MiB"


@_rule
def reserved_address_space(report: Report) -> Finding | None:
    """VSZ is far above RSS because most of it is only an address range."""
    virtual, resident = report.virtual, report.resident
    if virtual is None or resident is None or virtual.reserved is None or virtual.prepared is None:
        return None
    idle = virtual.reserved + virtual.prepared
    if virtual.total < EMPTY_ADDRESS_SPACE_FACTOR * resident.total or idle < LARGE:
        return None
    return Finding(
        id="reserved-address-space",
        severity="info",
        title=f"VSZ is {mib(virtual.total)}, but {mib(idle)} of it is only address space",
        explanation="The Go runtime reserves address space ahead of need (PROT_NONE or never touched). "
        "It holds no RAM and counts towards no memory limit.",
        evidence={
            "virtual_total": virtual.total,
            "reserved": virtual.reserved,
            "prepared": virtual.prepared,
            "resident_total": resident.total,
        },
        action="None. Alert on RSS or on the cgroup's memory, not on VSZ.",
    )


@_rule
def lazily_freed(report: Report) -> Finding | None:
    """RSS holds pages that the runtime gave back with MADV_FREE."""
    if report.resident is None:
        return None
    lazy, total = _lazy(report), report.resident.total
    if lazy < NOTEWORTHY or lazy < LAZY_SHARE * total:
        return None
    return Finding(
        id="lazily-freed",
        severity="info",
        title=f"{mib(lazy)} of RSS is already given back and only still counted",
        explanation="The Go runtime released this memory with MADV_FREE: the kernel takes it the moment anybody "
        "needs memory, before it swaps or kills. Until then RSS still shows it.",
        evidence={"lazy_free": lazy, "resident_total": total, "resident_without": total - lazy},
        action="None. To see RSS fall at once, run the program with GODEBUG=madvdontneed=1 (the default since Go 1.16).",
    )


@_rule
def scavenged_but_resident(report: Report) -> Finding | None:
    """Pages that the runtime counts as released are resident, and MADV_FREE does not explain it."""
    if report.heap is None:
        return None
    scavenged = report.heap.resident.scavenged
    excess = scavenged - _lazy(report)
    if excess < NOTEWORTHY:
        return None
    return Finding(
        id="scavenged-but-resident",
        severity="warning",
        title=f"{mib(excess)} that Go has released is still in RAM",
        explanation="The runtime counts these heap pages as returned (HeapReleased), the kernel still holds RAM for "
        "them. Usual cause: transparent huge pages; khugepaged fills the hole again with a 2 MiB page.",
        evidence={
            "scavenged_resident": scavenged,
            "lazy_free": report.resident.lazy_free if report.resident else None,
            "huge_pages": report.resident.huge_pages if report.resident else None,
            "heap_released": report.heap.pages.scavenged,
        },
        action="Set /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none to 0, or enabled to madvise.",
    )


@_rule
def retained_idle_heap(report: Report) -> Finding | None:
    """Free heap pages that the runtime keeps are a large part of RSS."""
    if report.heap is None or report.resident is None:
        return None
    retained, resident = report.heap.pages.free, report.heap.resident.free
    if resident < LARGE or resident < RETAINED_SHARE * report.resident.total:
        return None
    return Finding(
        id="retained-idle-heap",
        severity="info",
        title=f"{mib(resident)} of RSS is free heap that Go keeps for the next peak",
        explanation="No object is in these pages. The background scavenger returns them slowly (it may use 1 % of "
        "one CPU) and keeps about 10 % more than the last collection's heap goal.",
        evidence={
            "retained": retained,
            "retained_resident": resident,
            "heap_goal": report.heap.goal,
            "resident_total": report.resident.total,
        },
        action="Wait, or set GOMEMLIMIT to cap it; debug.FreeOSMemory() returns all of it at once.",
    )


@_rule
def fragmentation(report: Report) -> Finding | None:
    """In-use spans are mostly empty slots."""
    if not report.spans:
        return None
    free = sum(row.free_slots * row.object_size for row in report.spans)
    tail = sum(row.tail_waste for row in report.spans)
    pages = sum(row.pages for row in report.spans) * 8192
    if free + tail < NOTEWORTHY or free + tail < WASTE_SHARE * pages:
        return None
    worst = max(report.spans, key=lambda row: row.free_slots * row.object_size + row.tail_waste)
    return Finding(
        id="fragmentation",
        severity="warning",
        title=f"{mib(free + tail)} of {mib(pages)} heap in use is holes between objects",
        explanation="A span goes back only when its last object dies: few long-lived objects among many dead ones "
        f"hold whole spans. The worst are objects of {worst.object_size} bytes.",
        evidence={
            "free_slot_bytes": free,
            "tail_waste": tail,
            "in_use": pages,
            "worst_span_class": worst.span_class,
            "worst_object_size": worst.object_size,
        },
        action="Look for long-lived objects of that size allocated between short-lived ones (caches filled at "
        "request time); pool them, or allocate them together.",
    )


@_rule
def outside_the_go_heap(report: Report) -> Finding | None:
    """Memory that pprof cannot see dominates RSS."""
    if report.heap is None or report.resident is None:
        return None
    foreign = _kinds_resident(report, "c_heap", "other")
    total = report.resident.total
    if foreign is None or foreign < LARGE or foreign < OUTSIDE_SHARE * total:
        return None
    uses_cgo = report.process.cgo
    return Finding(
        id="outside-the-go-heap",
        severity="warning",
        title=f"{mib(foreign)} of {mib(total)} RSS is not the Go runtime's",
        explanation="It was mapped by C code (malloc) or by mmap system calls of the program. "
        "Go's heap profile, MemStats and GOMEMLIMIT do not see it.",
        evidence={
            "resident_outside": foreign,
            "c_heap": _kinds_resident(report, "c_heap"),
            "resident_total": total,
            "cgo": None if uses_cgo is None else str(uses_cgo).lower(),
        },
        action="Look at C libraries (cgo) with their own tools (jemalloc or tcmalloc profiling, MALLOC_ARENA_MAX), "
        "and at code that calls mmap.",
    )


@_rule
def goroutine_stacks(report: Report) -> Finding | None:
    """Stacks are a large part of RSS."""
    if report.heap is None or report.resident is None:
        return None
    stacks = report.heap.resident.stacks
    if stacks < LARGE or stacks < STACK_SHARE * report.resident.total:
        return None
    return Finding(
        id="goroutine-stacks",
        severity="warning",
        title=f"{mib(stacks)} of RSS is goroutine stacks",
        explanation="Stacks start at 2-8 KiB: this much is very many goroutines, or some with deep stacks.",
        evidence={"stacks_resident": stacks, "stack_inuse": report.heap.pages.stacks},
        action="Count the goroutines (runtime.NumGoroutine, /debug/pprof/goroutine): a leak shows as one stack many times.",
    )


@_rule
def runtime_metadata(report: Report) -> Finding | None:
    """The runtime's own records are an unusual part of RSS."""
    metadata = _kinds_resident(report, "heap_metadata", "page_summary", "runtime_other")
    if metadata is None or report.resident is None:
        return None
    if metadata < LARGE or metadata < METADATA_SHARE * report.resident.total:
        return None
    return Finding(
        id="runtime-metadata",
        severity="warning",
        title=f"{mib(metadata)} of RSS is the runtime's own records",
        explanation="Spans, heap bitmaps, profile buckets and GC buffers. They grow with the largest heap that ever "
        "was and are never returned.",
        evidence={
            "metadata_resident": metadata,
            "gc_sys": _stat(report, "GCSys"),
            "mspan_sys": _stat(report, "MSpanSys"),
            "buck_hash_sys": _stat(report, "BuckHashSys"),
            "other_sys": _stat(report, "OtherSys"),
        },
        action="Lower the peak heap (GOMEMLIMIT, GOGC); a restart returns it.",
    )


@_rule
def file_pages(report: Report) -> Finding | None:
    """File-backed pages, which the kernel can drop, are much of RSS."""
    resident = report.resident
    if resident is None or resident.file is None or resident.total < SMALL_PROCESS:
        return None
    if resident.file < LARGE or resident.file < FILE_SHARE * resident.total:
        return None
    return Finding(
        id="file-pages",
        severity="info",
        title=f"{mib(resident.file)} of RSS is pages of files",
        explanation="Program text, libraries and mapped files. Clean ones cost nothing: the kernel drops "
        "them when memory is short and reads them again.",
        evidence={"file": resident.file, "resident_total": resident.total},
        action="None, unless the program writes to the mappings; look at anonymous memory instead of RSS.",
    )


@_rule
def near_cgroup_limit(report: Report) -> Finding | None:
    """The cgroup is nearly full."""
    cgroup = report.process.cgroup
    if cgroup is None or cgroup.memory_current is None or not cgroup.memory_max:
        return None
    used = cgroup.memory_current / cgroup.memory_max
    if used < CGROUP_NEAR:
        return None
    resident = report.resident
    # Page cache is charged to the cgroup too, but reclaimed before anybody is killed: only what is
    # anonymous and not lazily freed is beyond help. Other processes may share the cgroup: a lower bound.
    firm = None if resident is None or resident.anonymous is None else resident.anonymous - _lazy(report)
    full = firm is not None and firm >= CGROUP_FULL * cgroup.memory_max
    return Finding(
        id="near-cgroup-limit",
        severity="critical" if full else "warning",
        title=f"The cgroup uses {mib(cgroup.memory_current)} of its {mib(cgroup.memory_max)} ({used:.0%})",
        explanation="At the limit the kernel first drops page cache and lazily freed pages, then kills. "
        + (
            f"{mib(firm)} of this process is neither: an OOM kill is near."
            if full and firm is not None
            else "Part of it may be page cache, which is not in danger."
        ),
        evidence={
            "memory_current": cgroup.memory_current,
            "memory_max": cgroup.memory_max,
            "not_reclaimable": firm,
            "oom_kill": cgroup.oom_kill,
        },
        action="Compare with memory.stat (anon, file) of the cgroup; raise the limit or set GOMEMLIMIT below it.",
    )


@_rule
def oom_kills(report: Report) -> Finding | None:
    """The cgroup has seen OOM kills."""
    cgroup = report.process.cgroup
    if cgroup is None or not cgroup.oom_kill:
        return None
    return Finding(
        id="oom-kills",
        severity="warning",
        title=f"The cgroup has seen {cgroup.oom_kill} OOM kill{'s' if cgroup.oom_kill != 1 else ''}",
        explanation="The kernel killed processes of this cgroup because it was at its memory limit.",
        evidence={"oom_kill": cgroup.oom_kill, "memory_max": cgroup.memory_max},
        action="Raise the limit, or give the program a GOMEMLIMIT below it.",
    )


def _memory_limit(heap: Heap) -> int | None:
    """Return GOMEMLIMIT, None where none is set (math.MaxInt64 in the runtime)."""
    return heap.memory_limit if heap.memory_limit and heap.memory_limit < 1 << 62 else None


@_rule
def gomemlimit_and_cgroup(report: Report) -> Finding | None:
    """The cgroup has a limit that the Go runtime does not know, or knows wrongly."""
    cgroup, heap = report.process.cgroup, report.heap
    if cgroup is None or heap is None or not cgroup.memory_max:
        return None
    limit = _memory_limit(heap)
    evidence: Evidence = {"memory_max": cgroup.memory_max, "memory_limit": limit}
    if limit is None:
        return Finding(
            id="gomemlimit-unset",
            severity="info",
            title=f"The cgroup is limited to {mib(cgroup.memory_max)}, but GOMEMLIMIT is not set",
            explanation="The collector does not know the limit and may let the heap grow past it.",
            evidence=evidence,
            action=f"Set GOMEMLIMIT to about 90 % of the limit ({int(cgroup.memory_max * 0.9) // MIB}MiB).",
        )
    if limit <= LIMIT_HEADROOM * cgroup.memory_max:
        return None
    above = limit > cgroup.memory_max
    return Finding(
        id="gomemlimit-above-cgroup" if above else "gomemlimit-without-headroom",
        severity="warning" if above else "info",
        title=f"GOMEMLIMIT is {mib(limit)} in a cgroup of {mib(cgroup.memory_max)}",
        explanation="The kernel kills before the Go runtime starts to save."
        if above
        else "GOMEMLIMIT does not count the program's text, C memory and page cache: little room is left for them.",
        evidence=evidence,
        action=f"Set GOMEMLIMIT to about 90 % of the limit ({int(cgroup.memory_max * 0.9) // MIB}MiB).",
    )


@_rule
def near_gomemlimit(report: Report) -> Finding | None:
    """The memory that the runtime owns is close to GOMEMLIMIT."""
    owned = _runtime_owns(report)
    limit = _memory_limit(report.heap) if report.heap else None
    if owned is None or limit is None or owned < LIMIT_NEAR * limit:
        return None
    assert report.heap is not None
    live = report.heap.live
    # Garbage lets a heap stand at its limit for good; only live memory there makes the collector spin.
    spins = owned >= LIMIT_FULL * limit and live is not None and live >= LIMIT_NEAR * limit
    return Finding(
        id="near-gomemlimit",
        severity="critical" if spins else "warning",
        title=f"Go uses {mib(owned)} of GOMEMLIMIT {mib(limit)} ({owned / limit:.0%})",
        explanation="The live heap itself is at the limit: the collector runs nearly all the time (up to half of the "
        "CPU) and cannot free anything."
        if spins
        else "The collector now runs as often as the limit needs, whatever GOGC says. "
        "With a live heap well below the limit this is as intended.",
        evidence={
            "sys_minus_released": owned,
            "memory_limit": limit,
            "live": live,
            "num_gc": _stat(report, "NumGC"),
        },
        action="Raise GOMEMLIMIT, or find what holds the live heap (heap profile)."
        if spins
        else "Watch the collector's CPU share; raise GOMEMLIMIT if it climbs.",
    )


@_rule
def goal_far_above_live(report: Report) -> Finding | None:
    """GOGC lets the heap grow to a multiple of what is alive."""
    heap = report.heap
    if heap is None or not heap.goal or not heap.live or heap.gc_percent is None or heap.gc_percent <= 0:
        return None
    # An unset goal is MaxUint64 in the runtime; it says nothing of GOGC.
    if heap.goal >= 1 << 62 or heap.goal < GOAL_FACTOR * heap.live or heap.goal - heap.live < LARGE:
        return None
    return Finding(
        id="goal-far-above-live",
        severity="info",
        title=f"The heap may grow to {mib(heap.goal)} before the next collection; {mib(heap.live)} are alive",
        explanation=f"GOGC is {heap.gc_percent}: memory is traded for fewer collections.",
        evidence={"goal": heap.goal, "live": heap.live, "gc_percent": heap.gc_percent},
        action="Lower GOGC, or set GOMEMLIMIT, if the memory is needed elsewhere.",
    )


@_rule
def collector_off(report: Report) -> Finding | None:
    """GOGC=off without a memory limit: the heap only grows."""
    heap = report.heap
    if heap is None or heap.gc_percent is None or heap.gc_percent >= 0 or _memory_limit(heap) is not None:
        return None
    return Finding(
        id="collector-off",
        severity="warning",
        title="The garbage collector is off (GOGC=off) and no GOMEMLIMIT is set",
        explanation="Nothing is ever freed: the heap grows until the process ends or is killed.",
        evidence={"gc_percent": heap.gc_percent, "heap_inuse": heap.pages.in_use},
        action="Set GOMEMLIMIT together with GOGC=off, or leave GOGC on.",
    )


@_rule
def swapped(report: Report) -> Finding | None:
    """Part of the process is in swap."""
    resident = report.resident
    if resident is None or resident.swap is None or resident.swap < NOTEWORTHY:
        return None
    return Finding(
        id="swapped",
        severity="warning",
        title=f"{mib(resident.swap)} is swapped out",
        explanation="Every collection reads the whole live heap: with parts of it in swap it becomes very slow.",
        evidence={"swap": resident.swap, "resident_total": resident.total},
        action="Give the machine or the cgroup more memory, or the program a GOMEMLIMIT.",
    )


@_rule
def huge_pages(report: Report) -> Finding | None:
    """Transparent huge pages hold more RAM than the heap's Ready pages."""
    resident, heap = report.resident, report.heap
    if resident is None or heap is None or not resident.huge_pages:
        return None
    ready = heap.pages.in_use + heap.pages.stacks + heap.pages.work_bufs + heap.pages.free
    in_ram = sum(arena.resident for arena in heap.arenas) - min(_lazy(report), heap.resident.scavenged)
    excess = in_ram - ready
    if excess < NOTEWORTHY or in_ram < HUGE_PAGE_EXCESS * ready or resident.huge_pages < excess:
        return None
    return Finding(
        id="huge-pages",
        severity="info",
        title=f"Transparent huge pages add {mib(excess)} to RSS",
        explanation="The kernel backs the heap with 2 MiB pages, also where Go uses only a part of one.",
        evidence={"huge_pages": resident.huge_pages, "heap_resident": in_ram, "heap_ready": ready},
        action="Only if it hurts: set transparent_hugepage/enabled to madvise, or khugepaged/max_ptes_none to 0.",
    )


@_rule
def ready_not_resident(report: Report) -> Finding | None:
    """Memory that the runtime counts as Ready was never touched, or was swapped out."""
    virtual = report.virtual
    if virtual is None or virtual.ready is None or report.kinds is None:
        return None
    managed = [row for row in report.kinds if row.ready]
    # Resident bytes of a kind may lie in its Prepared parts: this is a lower bound of what is absent.
    absent = sum(max(0, row.ready - row.resident - row.swap) for row in managed)
    if absent < LARGE or absent < UNTOUCHED_SHARE * virtual.ready:
        return None
    return Finding(
        id="ready-not-resident",
        severity="info",
        title=f"Go counts {mib(absent)} as in use that holds no RAM yet",
        explanation="Mapped and ready, but never touched: the kernel gives RAM at the first access only. "
        "So MemStats.Sys is above what the process really costs (32 MiB of it is the runtime's heap index).",
        evidence={"ready": virtual.ready, "ready_not_resident": absent, "sys": _stat(report, "Sys")},
        action="None.",
    )


@_rule
def inexact_snapshot(report: Report) -> Finding | None:
    """The snapshot was torn by a target that moved on."""
    consistency = report.consistency
    if consistency is None or consistency.exact:
        return None
    skewed = report.heap.pages.in_use if report.heap else 0
    much = consistency.skew_bytes > max(NOTEWORTHY, skewed // 10)
    return Finding(
        id="inexact-snapshot",
        severity="warning" if much else "info",
        title=f"The figures are inexact by {mib(consistency.skew_bytes)}",
        explanation=f"The target allocated faster than it could be read ({consistency.attempts} attempts); "
        "it is never stopped for a reading.",
        evidence={"skew_bytes": consistency.skew_bytes, "attempts": consistency.attempts},
        action="Take the report again at a quieter moment if a figure looks odd.",
    )


@_rule
def lost_events(report: Report) -> Finding | None:
    """Events were lost, so counts of what happened are too low."""
    loss = report.event_loss
    if loss is None or not loss.lost:
        return None
    return Finding(
        id="lost-events",
        severity="warning",
        title=f"{loss.lost} events were lost",
        explanation="Counts and bytes of events and transitions are too low. The state is not affected: "
        f"it was read afresh ({loss.resyncs} times).",
        evidence={"lost": loss.lost, "resyncs": loss.resyncs, "drift_bytes": loss.drift_bytes},
        action="Trace for a shorter time, or with a larger buffer.",
    )


@_rule
def drift(report: Report) -> Finding | None:
    """The state rebuilt from events differs from the snapshot: a finding about gomem, not the target."""
    loss = report.event_loss
    if loss is None or loss.lost or loss.drift_bytes is None:
        return None
    skew = report.consistency.skew_bytes if report.consistency else 0
    if abs(loss.drift_bytes) <= max(UNEXPLAINED_READY, skew):
        return None
    return Finding(
        id="drift",
        severity="warning",
        title=f"Events and snapshot disagree by {mib(abs(loss.drift_bytes))}",
        explanation="The state rebuilt from events is not the state that was read, though no event was lost. "
        "This is gomem's error, not the target's; the figures shown are those that were read.",
        evidence={"drift_bytes": loss.drift_bytes, "resyncs": loss.resyncs, "skew_bytes": skew},
        action="Please report it, with `--format json` of this run.",
    )


@_rule
def unexplained_ready(report: Report) -> Finding | None:
    """Ready bytes that the runtime's own counters do not explain: a finding about gomem.

    Upper bound without mappedReady: all that MemStats counts as mapped and not released, plus the
    32 MiB heap index that the runtime maps without counting, plus page rounding.
    """
    owned = _runtime_owns(report)
    if owned is None or report.virtual is None or report.virtual.ready is None:
        return None
    if report.consistency is None or not report.consistency.exact:
        return None
    unexplained = report.virtual.ready - owned - 32 * MIB
    if unexplained <= UNEXPLAINED_READY:
        return None
    return Finding(
        id="unexplained-ready",
        severity="warning",
        title=f"{mib(unexplained)} counts as Ready, but the runtime does not know it",
        explanation="The runtime's counters do not add up to what gomem calls Ready. "
        "This is gomem's error, not the target's.",
        evidence={"ready": report.virtual.ready, "sys_minus_released": owned, "unexplained": unexplained},
        action="Please report it, with `--format json` of this run.",
    )
