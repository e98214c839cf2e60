"""Sections on the state: address space, RSS, heap pages, MemStats, cgroup."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.text.bill import headline
from gomem.exporters.text.page import PageStyle, flowing, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import number, percent, plural, size
from gomem.exporters.verdict import without_go
from gomem.tracer.report import RUNTIME_NONE, Heap, KindRow, Report, RuntimeStructure, Virtual, stat

_TOP_KINDS = 8
_TOP_RUNS = 3

_STATE_MEANS = {
    "reserved": "set aside, not usable yet",
    "prepared": "given back or never used",
    "ready": "in use by Go, or at hand",
    "unmanaged": "not Go's: binary, C, files",
}
_STATES = (
    Column("", left=True),
    Column(""),
    Column(""),
    Column("", left=True, worth=1),
    Column("", left=True, worth=2, wraps=26),
)
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
    "other_runtime": "other Go runtimes",
}
_KINDS = (
    Column("by kind", left=True),
    Column("resident"),
    Column("", worth=6),
    Column("", left=True, worth=2),
    Column("virtual", worth=5),
    Column("mappings", worth=1),
    Column("swap"),
    Column("", left=True, worth=4, wraps=16),
)
_PAGE_ROWS = (
    ("in_use", "in use", "spans of objects"),
    ("stacks", "stacks", "goroutine stacks"),
    ("work_bufs", "work bufs", "the collector's buffers"),
    ("free", "free", "retained for reuse"),
    ("scavenged", "scavenged", "returned to the OS"),
)


def address_space(report: Report, look: PageStyle) -> RenderableType | None:
    """Show VSZ split into the runtime's states."""
    virtual = report.virtual
    if virtual is None:
        return None
    heading = f"VSZ {size(virtual.total)}"
    parts = {name: getattr(virtual, name) for name in _STATE_MEANS}
    if all(amount is None for amount in parts.values()):
        return section(f"{heading}, not split by the runtime's states: {_why_not_split(report)}")
    rows = [
        (
            words(name),
            size(amount),
            percent(amount, virtual.total),
            look.bar(amount or 0, virtual.total, name),
            words((meaning + _state_holds(virtual, name), "dim")),
        )
        for name, meaning in _STATE_MEANS.items()
        for amount in (parts[name],)
    ]
    return section(f"{heading} by the runtime's states", table(_STATES, rows, look, headed=False))


def _why_not_split(report: Report) -> str:
    if report.rebuilt is not None:
        return "a log of system calls does not tell them"
    return without_go(report)


def _state_holds(virtual: Virtual, state: str) -> str:
    """Return what is remarkable of a state: RAM where none is expected, and what others have mapped without access."""
    if virtual.resident is not None and state in ("reserved", "prepared"):
        in_ram = getattr(virtual.resident, state)
        return f", {size(in_ram)} in RAM" if in_ram else ""
    closed = (virtual.unmanaged_no_access or 0) if state == "unmanaged" else 0
    return f"; {size(closed)} without access" if closed > virtual.total // 20 else ""


def rss(report: Report, look: PageStyle) -> RenderableType | None:
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


def _kind_table(report: Report, look: PageStyle) -> RenderableType | None:
    resident = report.resident
    if not report.kinds or resident is None or any(row.resident is None for row in report.kinds):
        return None
    shown = sorted((row for row in report.kinds if row.resident or row.virtual), key=lambda row: -(row.resident or 0))
    rows: list[tuple[str | Text, ...]] = [
        _kind_cells(row, row.kind, resident.total, look) for row in shown[:_TOP_KINDS]
    ]
    rest = shown[_TOP_KINDS:]
    if rest:
        rows.append(_kind_cells(_sum(rest), plural(len(rest), "more kind"), resident.total, look))
    total = _sum(shown)
    sums = (size(total.resident), "", "", size(total.virtual), number(total.mappings), size(total.swap), "")
    rows.append((words(("sum", "dim")), *sums))
    if total.swap:
        return table(_KINDS, rows, look)
    at = next(at for at, column in enumerate(_KINDS) if column.name == "swap")
    return table((*_KINDS[:at], *_KINDS[at + 1 :]), [(*row[:at], *row[at + 1 :]) for row in rows], look)


def _sum(rows: list[KindRow]) -> KindRow:
    def of(column: str) -> int:
        return sum(getattr(row, column) or 0 for row in rows)

    return KindRow("sum", *(of(name) for name in KindRow.__struct_fields__[1:]))


def _kind_cells(row: KindRow, name: str, total: int, look: PageStyle) -> tuple[str | Text, ...]:
    return (
        name,
        size(row.resident),
        percent(row.resident or 0, total),
        look.bar(row.resident or 0, total, "green" if row.kind == "heap_arena" else "cyan"),
        size(row.virtual),
        number(row.mappings),
        size(row.swap),
        words((_kind_means(row), "dim")),
    )


def _kind_means(row: KindRow) -> str:
    """Return what a kind is; mappings of files by what most of their pages in RAM are."""
    if row.kind == "file" and (row.shmem or 0) > (row.resident or 0) // 2:
        return "shared memory"
    if row.kind == "file" and (row.anonymous or 0) > (row.resident or 0) // 2:
        return "copies of files"
    return _KIND_MEANS.get(row.kind, "")


def heap_pages(report: Report, look: PageStyle) -> RenderableType | None:
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
        rows.append((name, size(pages), size(in_ram), size(max(0, pages - in_ram)), bar, words((meaning, "dim"))))
    outside = heap.resident.outside
    if outside:
        resident += outside
        rows.append(("outside", "", size(outside), "", "", words(("in no grown page", "dim"))))
    rows.append((words(("sum", "dim")), size(total), size(resident), size(total - resident + outside), "", ""))
    legend = "█ in RAM, ░ not" if look.blocks else "# in RAM, - not"
    columns = (
        Column("", left=True),
        Column("pages"),
        Column("resident"),
        Column("not in RAM", worth=1),
        Column(legend, left=True, worth=2),
        Column("", left=True, worth=3, wraps=23),
    )
    heading = f"Heap pages in {plural(len(heap.arenas), 'arena')}, by the runtime's state and the kernel's"
    return section(heading, table(columns, rows, look), _free_runs(heap, look), _huge_zeros(heap))


def _free_runs(heap: Heap, look: PageStyle) -> RenderableType | None:
    """Say how free pages lie: of the lengths that hold most."""
    runs = heap.free_runs
    if runs is None or not runs.runs:
        return None
    pairs = [("free pages lie in", plural(runs.runs, "run")), ("longest", size(runs.longest))]
    most = sorted(runs.by_length, key=lambda row: row.size, reverse=True)[:_TOP_RUNS]
    pairs += [(f"runs of {size(row.at_least)} and more", f"{number(row.runs)} ({size(row.size)})") for row in most]
    return flowing(pairs, look)


def _huge_zeros(heap: Heap) -> RenderableType | None:
    use = heap.in_use
    if use is None or not use.huge_zeros:
        return None
    return words((f"about {size(use.huge_zeros)} in use are zeros that huge pages bring along", "dim"))


def memstats(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the figures of runtime.MemStats and of the collector that people know by name."""
    stats, heap = report.memstats, report.heap
    if stats is None and heap is None:
        return None

    released, sys = stat(report, "HeapReleased"), stat(report, "Sys")
    owned = None if sys is None or released is None else sys - released
    pairs = [
        (name, size(stat(report, name)))
        for name in ("HeapAlloc", "HeapInuse", "HeapIdle", "HeapReleased", "StackInuse")
    ]
    pairs += [("Sys", size(sys)), ("Sys-HeapReleased", size(owned))]
    pairs += [("HeapObjects", number(stat(report, "HeapObjects"))), ("NumGC", number(stat(report, "NumGC")))]
    if heap is not None:
        pairs += [
            ("live", size(heap.live)),
            ("goal", size(heap.goal) if heap.goal is None or heap.goal < RUNTIME_NONE else "none"),
            ("GOGC", "off" if heap.gc_percent == -1 else number(heap.gc_percent)),
            ("GOMEMLIMIT", _limit(heap.memory_limit)),
            ("GC phase", heap.gc_phase or "?"),
        ]
    if report.structure is not None:
        scheduler, threads = report.structure.scheduler, report.structure.threads
        if scheduler is not None:
            pairs += [("goroutines", number(scheduler.goroutines)), ("Ms", number(scheduler.ms))]
        if threads is not None:
            pairs.append(("OS threads", number(threads)))
        pairs += _beside_objects(report.structure)
    return section("MemStats", flowing(pairs, look))


def _beside_objects(structure: RuntimeStructure) -> list[tuple[str, str]]:
    """Return what there is of what waits, or is kept, beside objects; kinds of which there is none are left out."""
    kept, queued, buckets = structure.specials or {}, structure.queued, structure.profile_buckets
    found = [
        ("timers", structure.timers.count if structure.timers else 0),
        *((kind.replace("_", " "), kept.get(kind, 0)) for kind in ("finalizers", "cleanups", "weak_handles")),
        ("finalizers waiting", queued.finalizers if queued else 0),
        ("cleanups waiting", (queued.cleanups or 0) if queued else 0),
        ("memory profile buckets", (buckets.memory or 0) if buckets else 0),
        ("block profile buckets", (buckets.block or 0) if buckets else 0),
        ("mutex profile buckets", (buckets.mutex or 0) if buckets else 0),
    ]
    return [(name, number(count)) for name, count in found if count]


def _limit(memory_limit: int | None) -> str:
    return size(memory_limit) if memory_limit is not None and memory_limit < RUNTIME_NONE else "off"


def cgroup(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the memory limit around the process, and how much of it is used."""
    group = report.process.cgroup
    if group is None:
        return None
    current, most = group.memory_current, group.memory_max
    bill = words(headline(report.cgroup_bills[0])) if report.cgroup_bills else None
    if most is None:
        return section(words(("Cgroup", "heading"), f"  {size(current)} used, no limit  ", (group.path, "dim")), bill)
    details = [f"{size(current)} of {size(most)} used ({percent(current, most)})"]
    if group.memory_high:
        details.append(f"memory.high {size(group.memory_high)}")
    if group.oom_kill:
        details.append(plural(group.oom_kill, "OOM kill"))
    line = words(", ".join(details) + "  ", (group.path, "dim"))
    used = current or 0
    style = "critical" if used > 0.95 * most else "warning" if used > 0.9 * most else "green"
    return section(words(("Cgroup  ", "heading")) + look.bar(used, most, style) + Text("  ") + line, bill)
