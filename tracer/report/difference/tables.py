"""What grew of each kind of thing that reports list: tables with a row for each that differs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from gomem.tracer.report import MappedFile, Report
from gomem.tracer.report.difference.contract import Row, Table, Unit

MOST_ROWS: Final = 200
_PAGE: Final = 8192
_SHORTEST: Final = 1e-3  # seconds of watching that make a rate
_FILES: Final = 20  # tracer/kernel: as many files as a report lists
_ARENA_PAGES: Final = ("in_use", "stacks", "free", "scavenged")


@dataclass(slots=True)
class Listed:
    """What one report lists: a size and a count by name. `whole`: what it does not list is not there."""

    sizes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    whole: bool = True

    def add(self, name: str, size: int, count: int | None = None) -> None:
        """Add to what is listed under a name."""
        self.sizes[name] = self.sizes.get(name, 0) + size
        if count is not None:
            self.counts[name] = self.counts.get(name, 0) + count

    def size(self, name: str) -> int | None:
        """Return the size of what has that name; None: not known."""
        return self.sizes.get(name, 0 if self.whole else None)

    def count(self, name: str) -> int | None:
        """Return the count of what has that name; None: not known."""
        return self.counts.get(name, 0 if self.whole else None)


List = Callable[[Report], Listed | None]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of table. `of`: what a report lists, None where it has it not."""

    id: str
    title: str
    of: List
    counts: str | None = None
    unit: Unit = "bytes"


def listed_holders(report: Report) -> Listed | None:
    """Return what each holder has in RAM, by its path."""
    if report.holders is None:
        return None
    found = Listed()
    for row in report.holders.rows:
        found.add(" / ".join(row.path), row.resident)
    return found


def listed_creators(report: Report) -> Listed | None:
    """Return the bytes of stacks and the number of goroutines by the go statement."""
    holders = report.holders
    if holders is None or holders.creators is None:
        return None
    found = Listed(whole=not holders.more_creators)
    for row in holders.creators:
        found.add(row.function or "the start of the program", row.stack_bytes, row.goroutines)
    return found


def listed_files(report: Report, of: Callable[[MappedFile], bool] | None = None) -> Listed | None:
    """Return what of each mapped file is in RAM; `of`: only those that it takes."""
    if report.files is None:
        return None
    found = Listed(whole=len(report.files) < _FILES)
    for row in report.files if of is None else filter(of, report.files):
        found.add(row.path + (" (deleted)" if row.deleted else ""), row.resident, row.mappings)
    return found


def listed_metadata(report: Report) -> Listed | None:
    """Return what of the runtime's own ranges is in RAM, by what they are for."""
    if report.structure is None:
        return None
    found = Listed()
    for row in report.structure.metadata:
        found.add(row.what, row.resident, row.ranges)
    return found


def _kinds(report: Report) -> Listed | None:
    return _listed((row.kind.replace("_", " "), row.resident, row.mappings) for row in report.kinds or ())


def _kinds_virtual(report: Report) -> Listed | None:
    return _listed((row.kind.replace("_", " "), row.virtual, row.mappings) for row in report.kinds or ())


def _pages(report: Report) -> Listed | None:
    if report.heap is None:
        return None
    pages = report.heap.pages
    rows = (("in use", pages.in_use), ("stacks", pages.stacks), ("work buffers", pages.work_bufs),
            ("free, retained", pages.free), ("scavenged", pages.scavenged))  # fmt: skip
    return _listed((name, size, None) for name, size in rows)


def _arenas(report: Report) -> Listed | None:
    if report.heap is None:
        return None
    return _listed((f"{arena.base:#x}", arena.resident, None) for arena in report.heap.arenas)


def _spans(report: Report) -> Listed | None:
    if report.spans is None:
        return None
    return _listed((_span_name(row.object_size, row.noscan), row.pages * _PAGE, row.objects) for row in report.spans)


def _span_name(size: int, noscan: bool) -> str:
    return ("large objects" if not size else f"objects of {size} bytes") + (", without pointers" if noscan else "")


def _large(report: Report) -> Listed | None:
    objects = report.heap.large_objects if report.heap is not None else None
    if objects is None:
        return None
    found = Listed(whole=len(objects.largest) == objects.count)
    for one in objects.largest:
        made = f", from {one.function}" if one.function else ""
        found.add((one.type or ("bytes without pointers" if one.noscan else "no type known")) + made, one.size, 1)
    return found


def _c_heap(report: Report) -> Listed | None:
    heap = report.c_heap
    if heap is None or heap.system is None:
        return None
    found = Listed()
    rows = (("in use in arenas", heap.in_use), ("free and in RAM", heap.free_resident),
            ("chunks with a mapping of their own", heap.mapped))  # fmt: skip
    for name, size in rows:
        if size is not None:
            found.add(name, size)
    return found


def _bill(report: Report) -> Listed | None:
    if not report.cgroup_bills:
        return None
    return _listed((name, size, None) for name, size in report.cgroup_bills[0].parts.items())


def _sites(report: Report) -> Listed | None:
    """Return how fast each call site allocated, in bytes a second."""
    allocations, seconds = report.allocations, report.duration_seconds
    if allocations is None or seconds < _SHORTEST:
        return None
    found = Listed(whole=not allocations.more_sites)
    for site in allocations.sites:
        name = site.function or f"code at {site.address or 0:#x}"
        total = site.estimated_bytes.value if site.estimated_bytes is not None else float(site.bytes)
        if allocations.complete or site.estimated_bytes is not None:
            found.add(f"{name}:{site.line}" if site.line else name, round(total / seconds))
    return found


def _listed(rows: Iterable[tuple[str, int | None, int | None]]) -> Listed | None:
    found = Listed()
    for name, size, count in rows:
        if size is None:
            return None
        found.add(name, size, count)
    return found if found.sizes else None


KINDS: Final = (
    _Kind("holders", "RSS by holder", listed_holders),
    _Kind("creators", "Goroutine stacks by creator", listed_creators, "goroutines"),
    _Kind("kinds", "RSS by kind of mapping", _kinds, "mappings"),
    _Kind("pages", "Heap pages by the runtime's state", _pages),
    _Kind("span-classes", "Heap in use by span class", _spans, "objects"),
    _Kind("large-objects", "The largest objects, by type and call", _large, "objects"),
    _Kind("arenas", "RSS by arena", _arenas),
    _Kind("metadata", "RSS of the runtime's own records", listed_metadata, "ranges"),
    _Kind("c-heap", "C heap (glibc's malloc)", _c_heap),
    _Kind("files", "Mapped files in RAM", listed_files, "mappings"),
    _Kind("address-space", "Address space by kind of mapping", _kinds_virtual, "mappings"),
    _Kind("cgroup", "What the memory cgroup is charged for", _bill),
    _Kind("call-sites", "Allocation by call site, while it was watched", _sites, None, "bytes_per_second"),
)


def tables(before: Report, after: Report, *, same_process: bool) -> list[Table]:
    """Return all tables, also those that have nothing to compare."""
    return [
        _empty(kind, "addresses of one process are not those of another")
        if kind.id == "arenas" and not same_process
        else _table(kind, kind.of(before), kind.of(after))
        for kind in KINDS
    ]


def _empty(kind: _Kind, why_not: str) -> Table:
    return Table(kind.id, kind.title, kind.unit, kind.counts, [], 0, 0, why_not)


def _table(kind: _Kind, before: Listed | None, after: Listed | None) -> Table:
    if before is None or after is None:
        has = "only the second report" if after is not None else "only the first report"
        return _empty(kind, f"{'neither report' if before is after else has} has this")
    rows = [row for row in changes(before, after) if row.grown is None or row.grown or row.count_grown]
    left_out = rows[MOST_ROWS:]
    rest = sum(row.grown or 0 for row in left_out)
    return Table(kind.id, kind.title, kind.unit, kind.counts, rows[:MOST_ROWS], len(left_out), rest, None)


def changes(before: Listed, after: Listed) -> list[Row]:
    """Return a row for each name, those that differ most first; what is not known on one side last."""
    rows = []
    for name in dict.fromkeys((*after.sizes, *before.sizes)):
        sizes = before.size(name), after.size(name)
        counted = name in before.counts or name in after.counts
        counts = (before.count(name), after.count(name)) if counted else (None, None)
        rows.append(Row(name, *sizes, grown(*sizes), *counts, grown(*counts)))
    return sorted(rows, key=_weight)


def grown(before: int | None, after: int | None) -> int | None:
    """Return by how much it grew; None where one of the two is not known."""
    return None if before is None or after is None else after - before


def _weight(row: Row) -> tuple[bool, int, int, str]:
    known = row.grown is not None
    return not known, -abs(row.grown or 0), -max(row.before or 0, row.after or 0), row.name
