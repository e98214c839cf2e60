"""The heap of Go 1.10 and older: one contiguous arena, with its bitmap and its table of spans below it.

Source: mheap and mallocinit in runtime/mheap.go and runtime/malloc.go. On linux/amd64 the arena usually begins at
0xc420000000, and the table of spans at 0xc000000000. Only what is used of the three is mapped.
"""

from __future__ import annotations

import numpy as np

from gomem.tracer.addresses.ranges import Ranges, intersect, normalise
from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.kernel.maps import Mappings
from gomem.tracer.layout.layout import Layout
from gomem.tracer.native.c_memory import NativeRange
from gomem.tracer.process.memory import Memory
from gomem.tracer.runtime.structs import Record, read_record

FIX = "its memory is named, its figures are not: gomem reads those of Go 1.11 and later"
# mallocinit asks for 512 GB of arena, and a bitmap and spans to go with it.
_LARGEST = 1 << 40


def has_contiguous_arena(layout: Layout) -> bool:
    """Tell whether the heap is one contiguous arena."""
    return layout.has("mheap", "arena_start")


def limit_of_figures(go_version: str) -> LayoutError:
    """Return why no figures of such a runtime are shown."""
    return LayoutError(f"{go_version} keeps its heap in one contiguous arena, which is not read", FIX)


def contiguous_heap(memory: Memory, layout: Layout, mheap_address: int, mappings: Mappings) -> list[NativeRange]:
    """Return what is mapped of the arena, its bitmap and its spans, sorted and disjoint.

    Raises SnapshotError if mheap does not describe such a heap, LayoutError if this layout has none.
    """
    mheap = read_record(memory, layout, "mheap", mheap_address)
    spans, bitmap, arena = _edges(mheap)
    anonymous = np.array([not name for name in mappings.name], np.bool_) & (mappings.inode == 0) & ~mappings.shared
    mapped = normalise(mappings.start[anonymous], mappings.end[anonymous])
    found: list[NativeRange] = []
    for (start, end), kind in ((spans, "heap_metadata"), (bitmap, "heap_metadata"), (arena, "heap_arena")):
        one = Ranges(np.array([start], np.uint64), np.array([end], np.uint64))
        inside = intersect(mapped, one)
        found += [
            NativeRange(low, high, kind) for low, high in zip(inside.start.tolist(), inside.end.tolist(), strict=True)
        ]
    return sorted(found, key=lambda one: one.start)


def _edges(mheap: Record) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return where spans, bitmap and arena begin and end. mheap.bitmap is the bitmap's end: it grows downwards."""
    spans, bitmap = mheap.slice("spans"), mheap.number("bitmap")
    start, used, end = (mheap.number(name) for name in ("arena_start", "arena_used", "arena_end"))
    low = bitmap - mheap.number("bitmap_mapped")
    table = spans.address + 8 * spans.capacity
    ordered = 0 < spans.address < table <= low < bitmap <= start < used <= end
    if not ordered or end - spans.address > _LARGEST or any(edge % 4096 for edge in (spans.address, bitmap, start)):
        raise SnapshotError("mheap does not describe one contiguous arena with its bitmap and spans")
    return (spans.address, table), (low, bitmap), (start, end)
