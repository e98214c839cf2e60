"""The order-of-magnitude rules that every report obeys, as a checker for unit, live and end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RUNTIME_PAGE = 8192
HEAP_INDEX = 32 << 20  # the L2 table of mheap.arenas on 64-bit Linux
MB = 1 << 20
KINDS = {
    "heap_arena", "heap_metadata", "page_summary", "runtime_other", "thread_stack", "c_heap",
    "binary", "shared_library", "file", "vdso", "other", "other_runtime",
}  # fmt: skip
PAGE_STATES = ("in_use", "stacks", "work_bufs", "free", "scavenged")
REGION_STATES = ("reserved", "prepared", "ready")

Object = Mapping[str, Any]


def broken_rules(
    report: Object,
    smaps_rollup_rss: int | None = None,
    vm_size: int | None = None,
    mapped_ready: int | None = None,
    ready_rounding: int = MB,
) -> list[str]:
    """Return every rule that the JSON object of a report breaks, in words and with the figures.

    smaps_rollup_rss, vm_size and mapped_ready (gcController.mappedReady) are bytes that the caller
    took of the same, quiet process; ready_rounding is what page rounding may add to the last.
    A report that says it is inexact may miss the runtime's identities by its own skew, and its RAM by OS page misses
    the sums of smaps_rollup by no more than it says.
    """
    consistency = report["consistency"]
    skew = 0 if consistency is None or consistency["exact"] else consistency["skew_bytes"]
    broken: list[str] = []
    broken += _negative_figures(report)
    broken += _address_space(report, vm_size)
    broken += _residency(report, smaps_rollup_rss)
    broken += _c_heap(report)
    broken += _user_mappings(report)
    broken += _goroutine_growth(report)
    broken += _between_looks(report)
    broken += _heap(report, skew)
    broken += _memstats(report, skew)
    broken += _spans(report, skew)
    broken += _ready(report, mapped_ready, ready_rounding, skew)
    broken += _events(report)
    broken += _span_events(report)
    broken += _allocations(report)
    broken += _cycles(report)
    broken += _gaps_are_explained(report)
    broken += _texts(report)
    return broken


def _texts(report: Object) -> Iterator[str]:
    """No text tells of what did not happen, or asks for what its reader cannot do."""
    limits, findings = report["limits"], report.get("findings") or []
    said = [f"{limit['what']}: {limit['why']} -> {limit['fix']}" for limit in limits]
    said += [f"{finding['title']}: {finding['explanation']} -> {finding['action']}" for finding in findings]
    for text in said:
        if "python -m" in text or "tracer." in text:
            yield f"asks for a Python module of ours: {text}"
        if report["heap"] is not None and "only the kernel's view is reported" in text:
            yield f"the runtime's figures are there: {text}"
        if f"use --backend {report['backend']}" in text:
            yield f"that backend is in use: {text}"


def _equal(name: str, got: int, want: int, slack: float = 0) -> Iterator[str]:
    if abs(got - want) > slack:
        yield f"{name}: {got} is not {want} (off by {got - want}, allowed {slack:.0f})"


def _at_most(name: str, got: float, most: float, slack: float = 0) -> Iterator[str]:
    if got > most + slack:
        yield f"{name}: {got} is more than {most} (by {got - most}, allowed {slack:.0f})"


def _total(rows: Sequence[Object], column: str) -> int:
    return sum(row[column] for row in rows)


def _negative_figures(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("gc_percent", "drift_bytes", "unexplained", "evidence", "per_second"):
                yield from _negative_figures(item, f"{path}.{key}")
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _negative_figures(item, f"{path}[{at}]")
    elif isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        yield f"{path} is negative: {value}"


def _address_space(report: Object, vm_size: int | None) -> Iterator[str]:
    virtual, kinds = report["virtual"], report["kinds"]
    if virtual is not None:
        parts = [virtual[name] for name in (*REGION_STATES, "unmanaged")]
        if None not in parts:
            yield from _equal("sum of virtual's four parts", sum(parts), virtual["total"])
        elif parts != [None] * 4:
            yield f"virtual: either all four parts are known or none: {parts}"
        if vm_size is not None:
            yield from _equal("virtual.total against VmSize", virtual["total"], vm_size)
    if kinds is None:
        return
    names = [row["kind"] for row in kinds]
    if len(set(names)) != len(names) or not set(names) <= KINDS:
        yield f"kinds are unknown or stand twice: {names}"
    for row in kinds:
        managed = sum(row[name] or 0 for name in REGION_STATES)
        yield from _at_most(f"kind {row['kind']}: reserved + prepared + ready", managed, row["virtual"])
        yield from _at_most(f"kind {row['kind']}: resident", row["resident"] or 0, row["virtual"])
    if virtual is not None:
        yield from _equal("sum(kinds.virtual)", _total(kinds, "virtual"), virtual["total"])
        for name in REGION_STATES:
            if virtual[name] is not None:
                yield from _equal(f"sum(kinds.{name})", _total(kinds, name), virtual[name])


def _residency(report: Object, smaps_rollup_rss: int | None) -> Iterator[str]:
    resident, kinds, virtual = report["resident"], report["kinds"], report["virtual"]
    if resident is None:
        return
    total = resident["total"]
    one_percent = total / 100
    if kinds is not None and report["between_looks"] is None:
        yield from _equal("sum(kinds.resident)", _total(kinds, "resident"), total)
    if virtual is not None:
        yield from _at_most("resident.total against VmSize", total, virtual["total"])
    if smaps_rollup_rss is not None:
        yield from _equal("resident.total against smaps_rollup's Rss", total, smaps_rollup_rss, smaps_rollup_rss / 100)
        # The kernel batches its Rss counters per CPU: a small process may be off by more than 1 %.
        yield from _at_most("resident.skew of a quiet process", resident["skew"] or 0, max(one_percent, MB))
    skew = resident["skew"]
    slack = max(one_percent, MB) if skew is None else skew
    parts = [resident[name] for name in ("anonymous", "file", "shmem")]
    if None not in parts:
        yield from _equal("anonymous + file + shmem", sum(parts), total, slack)
    yield from _page_kinds(report, max(one_percent, MB) + (skew or 0))
    for name in ("lazy_free", "huge_pages", "pss"):
        if resident[name] is not None:
            yield from _at_most(f"resident.{name}", resident[name], total, slack)


def _user_mappings(report: Object) -> Iterator[str]:
    """Mappings of the program's own are a part of the kinds other and file, and by callers they are all of them."""
    found = report["user_mappings"]
    if found is None:
        return
    rows = [row for row in report["kinds"] or () if row["kind"] in ("other", "file")]
    for name in ("virtual", "resident"):
        if found["sums"][name] > _total(rows, name):
            yield f"user_mappings.sums.{name} is {found['sums'][name]}, more than the kinds other and file have"
        if found["by_caller"] is not None and len(found["by_caller"]) < 20:
            parts = sum(row["sums"][name] for row in found["by_caller"]) + found["unseen"][name]
            yield from _equal(f"sum of user_mappings by caller, {name}", parts, found["sums"][name])


def _goroutine_growth(report: Object) -> Iterator[str]:
    """Go statements that are told of and all others have together what the program has; who grew most comes first."""
    found = report["goroutine_growth"]
    if found is None:
        return
    sums = [row["sums"] for row in found["creators"]]
    for name in ("goroutines_first", "goroutines_last", "stack_first", "stack_last"):
        told = sum(one[name] for one in sums) + found["others"][name]
        yield from _equal(f"sum of goroutine_growth by creator, {name}", told, found["whole"][name])
    grown = [one["goroutines_last"] - one["goroutines_first"] for one in sums]
    if grown != sorted(grown, reverse=True) or len(grown) > 20:
        yield f"goroutine_growth.creators are not the 20 that grew most, in order: {grown}"


def _page_kinds(report: Object, slack: float) -> Iterator[str]:
    """What pages are adds up too: by the kernel, by kind of mapping, by state of address space, and for stacks."""
    resident, kinds, virtual, stacks = (report[name] for name in ("resident", "kinds", "virtual", "thread_stacks"))
    file = [resident[name] for name in ("file_clean", "file_dirty", "file_locked")]
    if None not in (*file, resident["file"]):
        yield from _equal("file_clean + file_dirty + file_locked", sum(file), resident["file"], slack)
    for name in ("anonymous", "shmem"):
        if kinds and resident[name] is not None and all(row[name] is not None for row in kinds):
            yield from _equal(f"sum(kinds.{name})", _total(kinds, name), resident[name], slack)
    for row in kinds or ():
        parts = (row["anonymous"] or 0) + (row["shmem"] or 0)
        yield from _at_most(f"kind {row['kind']}: anonymous + shmem", parts, row["resident"] or 0)
    if virtual is not None and virtual["resident"] is not None:
        in_ram = sum(virtual["resident"][name] for name in (*REGION_STATES, "unmanaged"))
        yield from _equal("sum of virtual.resident's four parts", in_ram, resident["total"])
        yield from _at_most("virtual.unmanaged_no_access", virtual["unmanaged_no_access"], virtual["unmanaged"])
    if kinds and stacks is not None:
        row = next((row for row in kinds if row["kind"] == "thread_stack"), {"resident": 0, "virtual": 0})
        for name in ("resident", "virtual"):
            yield from _equal(f"thread_stacks.{name} against kind thread_stack", stacks[name], row[name])
        yield from _at_most("thread_stacks.largest", stacks["largest"], stacks["resident"])
        yield from _at_most("sum(thread_stacks.rows.resident)", _total(stacks["rows"], "resident"), stacks["resident"])
        for row in stacks["rows"]:
            yield from _at_most("a stack's resident", row["resident"], row["size"])
            if row["deepest"] is not None:
                yield from _at_most("a stack's resident", row["resident"], row["deepest"])
                yield from _at_most("a stack's deepest", row["deepest"], row["size"])


def _c_heap(report: Object) -> Iterator[str]:
    """What glibc has free, and what it has in use, is what it has: in each arena and in all."""
    heap = report["c_heap"]
    if heap is None or heap["arenas"] is None:
        return
    for name in ("system", "in_use", "free", "free_resident", "trimmable"):
        yield from _equal(f"sum(c_heap.arenas.{name})", _total(heap["arenas"], name), heap[name])
    for arena in heap["arenas"]:
        yield from _equal("an arena of C: in_use + free", arena["in_use"] + arena["free"], arena["system"])
        for name, most in (("top", "free"), ("free_resident", "free"), ("trimmable", "free_resident")):
            yield from _at_most(f"an arena of C: {name}", arena[name], arena[most])
    if heap["exact"] and not all(arena["complete"] for arena in heap["arenas"]):
        yield "c_heap is exact, and one of its arenas is not complete"


def _between_looks(report: Object) -> Iterator[str]:
    """Of two looks' figures and a moment's states, no report joins anything: it has one or the other."""
    between, kinds = report["between_looks"], report["kinds"] or ()
    unknown = [row["kind"] for row in kinds if row["resident"] is None or row["swap"] is None]
    if between is None:
        if unknown:
            yield f"what is in RAM of {unknown} is null, and between_looks does not say why"
        return
    if len(unknown) < len(kinds):
        yield "between two looks, what is in RAM is said by kind"
    looked = (
        "heap",
        "memstats",
        "spans",
        "span_states",
        "caches",
        "accounting",
        "structure",
        "thread_stacks",
        "c_heap",
    )
    said = [name for name in looked if report[name] is not None]
    if said or report["process"]["cgroup"] is not None:
        yield f"between two looks, a look's figures are there: {said}, cgroup {report['process']['cgroup']}"
    if (report["resident"] is None) != (between["resident_age"] is None):
        yield "between two looks, resident and its age are not there together"
    if between["look_after"] is not None:
        yield from _at_most("the look before", between["look_before"], between["look_after"])


def _heap(report: Object, skew: int) -> Iterator[str]:
    heap = report["heap"]
    if heap is None:
        return
    arenas, pages, resident = heap["arenas"], heap["pages"], heap["resident"]
    for state in PAGE_STATES:
        yield from _equal(f"sum(arenas.{state})", _total(arenas, state), pages[state], skew)
        yield from _at_most(f"heap.resident.{state}", resident[state], pages[state], skew)
    in_ram = sum(resident[state] for state in (*PAGE_STATES, "outside"))
    yield from _equal("sum(heap.resident) against sum(arenas.resident)", in_ram, _total(arenas, "resident"), skew)
    for arena in arenas:
        yield from _arena(arena, skew)
    use = heap.get("limit_use")
    if use is not None:
        parts = [use[name] for name in use if name not in ("limit", "total")]
        yield from _equal("sum of limit_use against its total", sum(parts), use["total"])
        memstats = report["memstats"]
        yield from _equal("limit_use.total", use["total"], memstats["Sys"] - memstats["HeapReleased"])
    yield from _holders(report, skew)
    bases = [arena["base"] for arena in arenas]
    if len(set(bases)) != len(bases):
        yield "an arena stands twice"
    row = next((row for row in report["kinds"] or () if row["kind"] == "heap_arena"), None)
    if row is not None:
        for name in (*REGION_STATES, "resident"):
            yield from _equal(f"sum(arenas.{name}) against kind heap_arena", _total(arenas, name), row[name], skew)


def _holders(report: Object, skew: int) -> Iterator[str]:
    """Large objects are spans of their classes; free runs, what Ps took aside and padding are HeapIdle."""
    heap, stats = report["heap"], report["memstats"]
    large, runs, use = (heap.get(name) for name in ("large_objects", "free_runs", "in_use"))
    if large is not None:
        rows = [row for row in report["spans"] if row["size_class"] == 0]
        yield from _equal("large_objects.count", large["count"], _total(rows, "spans"))
        yield from _equal("large_objects.size", large["size"], _total(rows, "pages") * RUNTIME_PAGE)
        yield from _at_most("sum of large_objects.largest", _total(large["largest"], "size"), large["size"])
        for one in large["largest"]:
            yield from _at_most("a large object's resident and swap", one["resident"] + one["swap"], one["size"])
            yield from _at_most("a large object's huge pages", one["huge"] or 0, one["resident"])
    if runs is not None:
        idle = sum(runs[name] for name in ("size", "page_caches", "padding"))
        yield from _equal("free_runs with page caches and padding = HeapIdle", idle, stats["HeapIdle"], skew)
        for name in ("runs", "size"):
            yield from _equal(f"sum(free_runs.by_length.{name})", _total(runs["by_length"], name), runs[name])
        yield from _at_most("free_runs.longest", runs["longest"], runs["size"])
        shorter = 0
        for row in runs["by_length"]:
            yield from _equal("free_runs.by_length.too_short", row["too_short"], shorter)
            yield from _at_most("the shortest runs of a row", row["at_least"] * row["runs"], row["size"])
            shorter += row["size"]
    if use is not None:
        parts = [use[name] for name in ("resident", "swap", "not_resident")]
        yield from _equal("sum of heap.in_use", sum(parts), use["size"])
        yield from _equal("heap.in_use.resident", use["resident"], heap["resident"]["in_use"])
        yield from _at_most("heap.in_use.size", abs(use["size"] - heap["pages"]["in_use"]), 0, skew)
        yield from _at_most("heap.in_use.huge", use["huge"] or 0, use["resident"])
        yield from _at_most("heap.in_use.huge_zeros", use["huge_zeros"] or 0, use["huge"] or 0)


def _arena(arena: Object, skew: int) -> Iterator[str]:
    name = f"arena {arena['base']:#x}"
    grown = sum(arena[state] for state in PAGE_STATES)
    yield from _at_most(f"{name}: states", sum(arena[state] for state in REGION_STATES), arena["size"])
    usable = arena["prepared"] + arena["ready"]
    yield from _at_most(f"{name}: grown pages against prepared + ready", grown, usable, skew)
    # Pages are scavenged exactly when they are not Ready: sysUnused and sysUsed make both changes.
    yield from _at_most(f"{name}: pages not scavenged against ready", grown - arena["scavenged"], arena["ready"], skew)
    yield from _at_most(f"{name}: resident", arena["resident"], arena["size"])


def _memstats(report: Object, skew: int) -> Iterator[str]:
    stats, heap = report["memstats"], report["heap"]
    if stats is None:
        return
    yield from _equal("HeapSys = HeapInuse + HeapIdle", stats["HeapInuse"] + stats["HeapIdle"], stats["HeapSys"], skew)
    yield from _at_most("HeapReleased against HeapIdle", stats["HeapReleased"], stats["HeapIdle"], skew)
    yield from _at_most("HeapAlloc against HeapInuse", stats["HeapAlloc"], stats["HeapInuse"], skew)
    yield from _equal("Alloc = HeapAlloc", stats["Alloc"], stats["HeapAlloc"])
    yield from _at_most("Alloc against TotalAlloc", stats["Alloc"], stats["TotalAlloc"], skew)
    # A torn read of counters is counted in objects, of which none is smaller than 8 bytes.
    objects = stats["Mallocs"] - stats["Frees"]
    yield from _equal("Mallocs - Frees = HeapObjects", objects, stats["HeapObjects"], skew / 8)
    parts = ("HeapSys", "StackSys", "MSpanSys", "MCacheSys", "BuckHashSys", "GCSys", "OtherSys")
    yield from _equal("Sys = sum of its parts", sum(stats[name] for name in parts), stats["Sys"], skew)
    for used, mapped in (("StackInuse", "StackSys"), ("MSpanInuse", "MSpanSys"), ("MCacheInuse", "MCacheSys")):
        yield from _at_most(f"{used} against {mapped}", stats[used], stats[mapped], skew)
    if heap is None:
        return
    pages = heap["pages"]
    yield from _equal("heap.pages.in_use = HeapInuse", pages["in_use"], stats["HeapInuse"], skew)
    yield from _equal("heap.pages.scavenged = HeapReleased", pages["scavenged"], stats["HeapReleased"], skew)
    retained = stats["HeapIdle"] - stats["HeapReleased"]
    yield from _equal("heap.pages.free = HeapIdle - HeapReleased", pages["free"], retained, skew)
    yield from _equal("heap.pages.stacks = StackInuse", pages["stacks"], stats["StackInuse"], skew)
    yield from _at_most("heap.pages.work_bufs against GCSys", pages["work_bufs"], stats["GCSys"], skew)


def _spans(report: Object, skew: int) -> Iterator[str]:
    spans, states, heap = report["spans"], report["span_states"], report["heap"]
    if spans is not None:
        for row in spans:
            yield from _span_class(row)
        classes = [row["span_class"] for row in spans]
        if len(set(classes)) != len(classes):
            yield "a span class stands twice"
    if heap is None:
        return
    pages = heap["pages"]
    if spans is not None:
        held = _total(spans, "pages") * RUNTIME_PAGE
        yield from _equal("sum(spans.pages) * 8192 = heap.pages.in_use", held, pages["in_use"], skew)
    if states is not None:
        manual = pages["stacks"] + pages["work_bufs"]
        yield from _equal("span_states.in_use.bytes", states["in_use"]["bytes"], pages["in_use"], skew)
        yield from _equal("span_states.manual.bytes", states["manual"]["bytes"], manual, skew)


def _span_class(row: Object) -> Iterator[str]:
    name = f"span class {row['span_class']}"
    yield from _equal(f"{name}: objects + free_slots = capacity", row["objects"] + row["free_slots"], row["capacity"])
    yield from _equal(f"{name}: size class", row["size_class"], row["span_class"] >> 1)
    yield from _at_most(f"{name}: tail_waste", row["tail_waste"], row["pages"] * RUNTIME_PAGE)
    if row["object_size"]:
        slots = row["capacity"] * row["object_size"]
        yield from _equal(f"{name}: slots + tail_waste", slots + row["tail_waste"], row["pages"] * RUNTIME_PAGE)


def _ready(report: Object, mapped_ready: int | None, rounding: int, skew: int) -> Iterator[str]:
    virtual, stats, accounting = report["virtual"], report["memstats"], report["accounting"]
    if virtual is None or virtual["ready"] is None:
        return
    if accounting is not None:
        counted = sum(accounting[name] for name in ("mapped_ready", "heap_index", "page_rounding"))
        found = counted - accounting["unexplained"]
        yield from _equal("accounting, solved for virtual.ready", found, virtual["ready"])
        yield from _equal("accounting.unexplained", accounting["unexplained"], 0, rounding + skew)
    if stats is not None and report["consistency"] is not None and report["consistency"]["exact"]:
        pages = stats["HeapSys"] - stats["HeapReleased"] + stats["StackInuse"]
        yield from _at_most("Ready heap pages against virtual.ready", pages, virtual["ready"])
    if mapped_ready is not None:
        unexplained = virtual["ready"] - mapped_ready - HEAP_INDEX
        yield from _equal("virtual.ready - mappedReady - heap index", unexplained, 0, rounding + skew)


def _events(report: Object) -> Iterator[str]:
    events, advice = report["events"], report["madvise"]
    if events is None:
        return
    if advice is not None and "madvise" in events:
        for column in ("count", "bytes"):
            split = sum(row[column] for row in advice.values())
            yield from _equal(f"sum(madvise.{column})", split, events["madvise"][column])
    for row in report["transitions"] or ():
        if row["event"] in events:
            yield from _at_most(f"transition {row['event']}", row["count"], events[row["event"]]["count"])


def _gaps_are_explained(report: Object) -> Iterator[str]:
    for part in ("virtual", "resident", "kinds", "heap", "memstats", "spans"):
        if report[part] is None and not report["limits"]:
            yield f"{part} is null and limits does not say why"


def _span_events(report: Object) -> Iterator[str]:
    """Classes add up to the whole, and to the events; nothing was watched for longer than the report."""
    churn = report.get("span_events")
    if churn is None:
        return
    for column in ("allocated", "freed", "allocated_pages", "freed_pages"):
        yield from _equal(f"sum of span_events.classes.{column}", _total(churn["classes"], column), churn[column])
    events = report["events"] or {}
    for name, column in (("span_alloc", "allocated"), ("span_free", "freed")):
        yield from _equal(f"events.{name}", events.get(name, {"count": 0})["count"], churn[column])
    yield from _at_most("span_events.stops", churn["stops"], churn["windows"])
    watched, seconds = churn["watched_seconds"], report["duration_seconds"]
    yield from _at_most("span_events.watched_seconds", watched, seconds, slack=0.001)


def _allocations(report: Object) -> Iterator[str]:
    """Classes, types and call sites add up to what was seen, and what the runtime counted to its own sums."""
    found = report.get("allocations")
    if found is None:
        return
    classes, types = found["classes"], found["types"]
    seen = sum(_total(classes, column) for column in ("scan", "noscan", "tiny"))
    yield from _equal("sum of allocations.classes", seen, found["objects"])
    yield from _equal("sum of allocations.classes.asked", _total(classes, "asked"), found["asked"])
    of_types = _total(types, "objects") + found["more_objects"] + found["untold_objects"]
    yield from _equal("sum of allocations.types", of_types, found["objects"])
    sites = found["sites"]
    of_sites = _total(sites, "objects") + found["more_site_objects"] + found["unsited_objects"]
    yield from _equal("sum of allocations.sites", of_sites, found["objects"])
    for row in sites:
        if (row["function"] is None) == (row["address"] is None):
            yield "a call site with a function and an address, or with neither"
    if found["runtime_objects"] is not None:
        yield from _equal("allocations.runtime_objects", _total(classes, "runtime_objects"), found["runtime_objects"])
        yield from _equal("allocations.runtime_bytes", _total(classes, "runtime_bytes"), found["runtime_bytes"])
    estimates = [row[name] for row in (*types, *sites) for name in ("estimated_objects", "estimated_bytes")]
    for estimate in [*(row["estimated_objects"] for row in classes), *estimates]:
        if estimate is not None and found["complete"]:
            yield "an estimate, where all was counted"
        if estimate is not None and estimate["low"] is not None:
            yield from _at_most("low end of an estimate", estimate["low"], estimate["value"])
            yield from _at_most("an estimate", estimate["value"], estimate["high"])


def _cycles(report: Object) -> Iterator[str]:
    """A cycle ends after it starts, and before the next one starts."""
    last = 0.0
    for number, cycle in enumerate(report["gc_cycles"] or ()):
        for moment in ("started", "ended"):
            if cycle[moment] is not None:
                yield from _at_most(f"gc_cycles: what comes before {moment} of {number}", last, cycle[moment])
                last = cycle[moment]
        if cycle["started"] is not None and cycle["ended"] is not None:
            took = cycle["ended"] - cycle["started"]
            # What came while the probes were being attached is at 0.
            yield from _at_most(f"gc_cycles: length of {number}", took, cycle["mark_seconds"], slack=1e-6)
