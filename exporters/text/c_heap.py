"""The heap of C: what its malloc has in use, and what it has free and keeps."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import number, plural, size
from gomem.tracer.report import CArena, CHeap, Report

_TOP_ARENAS = 5
# A C library that hardly anybody calls has a few pages, which nobody asks about.
_LEAST = 1 << 20
_COLUMNS = (
    Column("arena", left=True),
    Column("size"),
    Column("in use", worth=4),
    Column("free"),
    Column("in RAM", worth=5),
    Column("top", worth=2),
    Column("free chunks", worth=3),
    Column("threads", worth=1),
)


def c_heap(report: Report, look: PageStyle) -> RenderableType | None:
    """Show what C has in use and free, and the arenas that keep most."""
    heap = report.c_heap
    if heap is None or heap.system is None or heap.system + (heap.mapped or 0) < _LEAST:
        return None
    arenas = sorted(heap.arenas or [], key=lambda arena: (-arena.free_resident, -arena.system))
    rows: list[tuple[str | Text, ...]] = [_cells(arena) for arena in arenas[:_TOP_ARENAS]]
    rest = len(arenas) - len(rows)
    more = [words((f"{plural(rest, 'more arena')}", "dim"))] if rest else []
    return section(_heading(heap), table(_COLUMNS, rows, look), *more)


def _heading(heap: CHeap) -> str:
    parts = [f"{size(heap.in_use)} in use", f"{_least(heap)}{size(heap.free)} free ({size(heap.free_resident)} in RAM)"]
    if heap.mapped:
        parts.append(f"{size(heap.mapped)} in {plural(heap.mapped_chunks or 0, 'chunk')} mapped alone")
    trim = f"; malloc_trim(0) would return {size(heap.trimmable)}" if heap.trimmable else ""
    return f"C heap (glibc) in {plural(len(heap.arenas or []), 'arena')}: {', '.join(parts)}{trim}"


def _least(heap: CHeap) -> str:
    return "" if all(arena.complete for arena in heap.arenas or []) else "at least "


def _cells(arena: CArena) -> tuple[str | Text, ...]:
    name = "main" if arena.main else f"{arena.address:#x}"
    figures = (arena.system, arena.in_use, arena.free, arena.free_resident, arena.top)
    return (name, *map(size, figures), number(arena.free_chunks), number(arena.threads))
