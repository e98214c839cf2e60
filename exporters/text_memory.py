"""Sections on the state: address space, RSS, heap pages, MemStats, spans, cgroup."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from exporters.page import Look, section, table, words
from exporters.units import number, percent, plural, size
from tracer.report import KindRow, Report, SpanClassRow

_NO_LIMIT = 1 << 62  # math.MaxInt64 stands for "no GOMEMLIMIT" in the runtime
_TOP_SPAN_CLASSES = 5
_TOP_KINDS = 8
_RUNTIME_PAGE = 8192

_STATE_MEANS = {
    "reserved": "an address range only, no RAM",
    "prepared": "costs nothing until it is used (scavenged)",
    "ready": "in use by the Go runtime, or at hand",
    "unmanaged": "not Go's: binary, C, threads, files",
}
_KIND_MEANS = {
    "heap_arena": "Go heap",
    "heap_metadata": "heap records",
    "page_summary": "page allocator",
    "runtime_other": "other Go records",
    "thread_stack": "OS threads",
    "c_heap": "C malloc",
    "binary": "the program",
    "shared_library": "libraries",
    "file": "mapped files",
    "vdso": "the kernel's",
    "other": "anything else",
}
_PAGE_ROWS = (
    ("in_use", "in use", "spans of objects"),
    ("stacks", "stacks", "goroutine stacks"),
    ("work_bufs", "work bufs", "the collector's buffers"),
    ("free", "free", "retained for reuse"),
    ("scavenged", "scavenged", "returned to the OS"),
)


def address_space(report: Report, look: Look) -> RenderableType | None:
    """Show VSZ split into the runtime's states."""
    virtual = report.virtual
    if virtual is None:
        return None
    heading = f"VSZ {size(virtual.total)}"
    parts = {name: getattr(virtual, name) for name in _STATE_MEANS}
    if all(amount is None for amount in parts.values()):
        return section(f"{heading}, not split: the Go runtime could not be read")
    rows = [
        (
            words(name),
            size(amount),
            percent(amount, virtual.total),
            look.bar(amount or 0, virtual.total, name),
            look.remark(meaning),
        )
        for name, meaning in _STATE_MEANS.items()
        for amount in (parts[name],)
    ]
    return section(f"{heading} by the runtime's states", table(("", "", "", "<", "<"), rows, headed=False))


def rss(report: Report, look: Look) -> RenderableType | None:
    """Show RSS by who holds it, and the kernel's own split of it."""
    resident = report.resident
    if resident is None:
        return None
    heading = words((f"RSS {size(resident.total)}", "heading"), *_rss_split(report))
    return section(heading, _kind_table(report, look))


def _rss_split(report: Report) -> list[str | tuple[str, str]]:
    resident = report.resident
    assert resident is not None
    parts = [("anonymous", resident.anonymous), ("file", resident.file), ("shmem", resident.shmem)]
    told = [f"{name} {size(amount)}" for name, amount in parts if amount or name == "anonymous"]
    extra = [
        ("lazily freed", resident.lazy_free),
        ("huge pages", resident.huge_pages),
        ("swap", resident.swap),
        ("PSS", resident.pss),
    ]
    told += [f"{name} {size(amount)}" for name, amount in extra if amount or (name == "PSS" and amount is not None)]
    return [("  " + ", ".join(told), "dim")]


def _kind_table(report: Report, look: Look) -> RenderableType | None:
    resident = report.resident
    if not report.kinds or resident is None:
        return None
    shown = sorted((row for row in report.kinds if row.resident or row.virtual), key=lambda row: -row.resident)
    rows: list[tuple[str | Text, ...]] = [
        _kind_cells(row, row.kind, resident.total, look) for row in shown[:_TOP_KINDS]
    ]
    rest = shown[_TOP_KINDS:]
    if rest:
        rows.append(_kind_cells(_sum(rest), plural(len(rest), "more kind"), resident.total, look))
    total = _sum(shown)
    rows.append((words(("sum", "dim")), size(total.resident), "", "", size(total.virtual), number(total.mappings), ""))
    columns = ["by kind", "resident", "", "<", "virtual", "mappings", "<"]
    if total.swap:
        columns.insert(-1, "swap")
        swap = [size(row.swap) for row in (*shown[:_TOP_KINDS], *([_sum(rest)] if rest else []), total)]
        rows = [(*row[:-1], amount, row[-1]) for row, amount in zip(rows, swap, strict=True)]
    return table(columns, rows)


def _sum(rows: list[KindRow]) -> KindRow:
    def of(column: str) -> int:
        return sum(getattr(row, column) or 0 for row in rows)

    return KindRow("sum", *(of(name) for name in KindRow.__slots__[1:]))


def _kind_cells(row: KindRow, name: str, total: int, look: Look) -> tuple[str | Text, ...]:
    return (
        name,
        size(row.resident),
        percent(row.resident, total),
        look.bar(row.resident, total, "green" if row.kind == "heap_arena" else "cyan"),
        size(row.virtual),
        number(row.mappings),
        look.remark(_KIND_MEANS.get(row.kind, "")),
    )


def heap_pages(report: Report, look: Look) -> RenderableType | None:
    """Show heap pages by the runtime's state and what of each is in RAM."""
    heap = report.heap
    if heap is None:
        return None
    total = resident = 0
    rows: list[tuple[str | Text, ...]] = []
    whole = sum(getattr(heap.pages, state) for state, _, _ in _PAGE_ROWS)
    for state, name, meaning in _PAGE_ROWS:
        pages, in_ram = getattr(heap.pages, state), getattr(heap.resident, state)
        total, resident = total + pages, resident + in_ram
        bar = look.divided_bar(in_ram, pages, whole, state)
        rows.append(_page_cells(name, pages, in_ram, bar, look.remark(meaning)))
    outside = heap.resident.outside
    if outside:
        resident += outside
        rows.append(("outside", "", size(outside), "", Text(""), look.remark("in no grown page")))
    rows.append((words(("sum", "dim")), size(total), size(resident), size(total - resident + outside), Text(""), ""))
    legend = "█ in RAM, ░ not" if look.blocks else "# in RAM, - not"
    heading = f"Heap pages in {plural(len(heap.arenas), 'arena')}, by the runtime's state and the kernel's"
    return section(heading, table(("", "pages", "resident", "not in RAM", "<" + legend, "<"), rows))


def _page_cells(name: str, pages: int, in_ram: int, bar: Text, remark: Text) -> tuple[str | Text, ...]:
    return (name, size(pages), size(in_ram), size(max(0, pages - in_ram)), bar, remark)


def memstats(report: Report, look: Look) -> RenderableType | None:
    """Show the figures of runtime.MemStats and of the collector that people know by name."""
    stats, heap = report.memstats, report.heap
    if stats is None and heap is None:
        return None

    def stat(name: str) -> int | None:
        value = (stats or {}).get(name)
        return value if isinstance(value, int) else None

    released, sys = stat("HeapReleased"), stat("Sys")
    owned = None if sys is None or released is None else sys - released
    pairs = [(name, size(stat(name))) for name in ("HeapAlloc", "HeapInuse", "HeapIdle", "HeapReleased", "StackInuse")]
    pairs += [("Sys", size(sys)), ("Sys-HeapReleased", size(owned))]
    pairs += [("HeapObjects", number(stat("HeapObjects"))), ("NumGC", number(stat("NumGC")))]
    if heap is not None:
        pairs += [
            ("live", size(heap.live)),
            ("goal", size(heap.goal) if heap.goal is None or heap.goal < _NO_LIMIT else "none"),
            ("GOGC", "off" if heap.gc_percent == -1 else number(heap.gc_percent)),
            ("GOMEMLIMIT", _limit(heap.memory_limit)),
            ("GC phase", heap.gc_phase or "?"),
        ]
    scheduler = report.structure.scheduler if report.structure else None
    if scheduler is not None:
        pairs += [("goroutines", number(scheduler.goroutines)), ("threads", number(scheduler.ms))]
    return section("MemStats", flowing(pairs, look.width - 2))


def _limit(memory_limit: int | None) -> str:
    return size(memory_limit) if memory_limit is not None and memory_limit < _NO_LIMIT else "off"


def flowing(pairs: list[tuple[str, str]], width: int) -> Text:
    """Return `name value` pairs in lines of at most `width` columns, never broken inside a pair."""
    block = Text()
    used = 0
    for name, value in pairs:
        pair = words((name, "dim"), " ", value)
        if used and used + 3 + len(pair) > width:
            block.append("\n")
            used = 0
        elif used:
            block.append("   ")
            used += 3
        block.append_text(pair)
        used += len(pair)
    return block


def fragmentation(report: Report, look: Look) -> RenderableType | None:
    """Show the span classes that waste most, and the waste of all."""
    if not report.spans:
        return None
    waste = sum(_wasted(row) for row in report.spans)
    pages = sum(row.pages for row in report.spans) * _RUNTIME_PAGE
    worst = sorted(report.spans, key=_wasted, reverse=True)[:_TOP_SPAN_CLASSES]
    rows = [_span_cells(row) for row in worst if _wasted(row)]
    spans = sum(row.spans for row in report.spans)
    heading = f"Spans {number(spans)}, {size(pages)} in use, of which {size(waste)} ({percent(waste, pages)}) are holes"
    if not rows:
        return section(heading)
    columns = ("class", "object", "spans", "pages", "objects", "full", "free slots", "tail")
    return section(heading, table(columns, rows))


def _wasted(row: SpanClassRow) -> int:
    return row.free_slots * row.object_size + row.tail_waste


def _span_cells(row: SpanClassRow) -> tuple[str, ...]:
    return (
        f"{row.size_class} {'noscan' if row.noscan else 'scan'}",
        f"{row.object_size} B" if row.object_size else "large",
        number(row.spans),
        size(row.pages * _RUNTIME_PAGE),
        number(row.objects),
        percent(row.objects, row.capacity),
        size(row.free_slots * row.object_size),
        size(row.tail_waste),
    )


def cgroup(report: Report, look: Look) -> RenderableType | None:
    """Show the memory limit around the process, and how much of it is used."""
    group = report.process.cgroup
    if group is None:
        return None
    current, most = group.memory_current, group.memory_max
    if most is None:
        return section(words(("Cgroup", "heading"), f"  {size(current)} used, no limit  ", (group.path, "dim")))
    details = [f"{size(current)} of {size(most)} used ({percent(current, most)})"]
    if group.memory_high:
        details.append(f"memory.high {size(group.memory_high)}")
    if group.oom_kill:
        details.append(plural(group.oom_kill, "OOM kill"))
    line = words(", ".join(details) + "  ", (group.path, "dim"))
    used = current or 0
    style = "critical" if used > 0.95 * most else "warning" if used > 0.9 * most else "green"
    return section(words(("Cgroup  ", "heading")) + look.bar(used, most, style) + Text("  ") + line)
