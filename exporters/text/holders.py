"""Sections on who holds the heap: span classes by bytes and by holes, and the largest objects one by one."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import clean, number, percent, size
from gomem.tracer.report import LargeObject, Report, SpanClassRow

_TOP = 5
_MANY_TIMERS = 1000
_RUNTIME_PAGE = 8192
_COLUMNS = (
    Column("object", worth=4),
    Column("spans", worth=2),
    Column("pages", worth=5),
    Column("objects", worth=3),
    Column("full", worth=6),
    Column("free slots"),
    Column("tail", worth=1),
)
_LARGE = (
    Column("size"),
    Column("resident"),
    Column("address", worth=1),
    Column("what", left=True, worth=3, wraps=24),
)


def span_classes(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the span classes that hold most, those that waste most, and the waste of all."""
    if not report.spans:
        return None
    waste = sum(_wasted(row) for row in report.spans)
    pages = sum(row.pages for row in report.spans) * _RUNTIME_PAGE
    spans = sum(row.spans for row in report.spans)
    heading = f"Spans {number(spans)}, {size(pages)} in use, of which {size(waste)} ({percent(waste, pages)}) are holes"
    holes = [row for row in _first(report.spans, _wasted) if _wasted(row)]
    tables = [_table("most in use", _first(report.spans, _held), look)]
    return section(heading, *tables, *([_table("most holes", holes, look)] if holes else []))


def _first(rows: list[SpanClassRow], key: Callable[[SpanClassRow], int]) -> list[SpanClassRow]:
    return sorted(rows, key=key, reverse=True)[:_TOP]


def _held(row: SpanClassRow) -> int:
    return row.pages


def _wasted(row: SpanClassRow) -> int:
    return row.free_slots * row.object_size + row.tail_waste


def _table(name: str, rows: list[SpanClassRow], look: PageStyle) -> Text:
    return table((Column(name, left=True), *_COLUMNS), [_cells(row) for row in rows], look)


def _cells(row: SpanClassRow) -> tuple[str, ...]:
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


def timers(report: Report, look: PageStyle) -> RenderableType | None:
    """Show what timers will call, where there are many."""
    found = report.structure.timers if report.structure else None
    if found is None or found.count < _MANY_TIMERS:
        return None
    heading = f"Timers {number(found.count)}, of which {number(found.stopped)} are stopped"
    rows = [(number(row.timers), clean(row.function, 70)) for row in found.functions[:_TOP]]
    columns = (Column(f"of {number(found.looked_at)}"), Column("will call", left=True, wraps=24))
    return section(heading, table(columns, rows, look))


def large_objects(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the largest objects: what they are made of, and who allocated them."""
    found = report.heap.large_objects if report.heap else None
    if found is None or not found.count:
        return None
    heading = f"Large objects {number(found.count)}, {size(found.size)}, of which {size(found.resident)} are in RAM"
    untyped = any(not one.noscan for one in found.largest) and not found.types_recorded
    release = report.process.go_version or "this release"
    note = words((f"types are not recorded by {clean(release, 20)}", "dim")) if untyped else None
    rows = [
        (size(one.size), size(one.resident), f"{one.address:#x}", words(_what(one), (_by(one), "dim")))
        for one in found.largest[:_TOP]
    ]
    return section(heading, table(_LARGE, rows, look), note)


def _what(one: LargeObject) -> str:
    if one.type is not None and one.count is not None:
        name = clean(one.type, 60)
        return f"{number(one.count)} of {name}" if one.count > 1 else name
    return "without pointers" if one.noscan else "with pointers"


def _by(one: LargeObject) -> str:
    if one.function is None:
        return ""
    return f", allocated by {clean(one.function, 60)}" + (f", line {one.line}" if one.line else "")
