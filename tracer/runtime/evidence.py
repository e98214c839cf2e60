"""What a layout is checked with, read from the live process: see gomem.tracer.runtime.invariants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words, read_words
from gomem.tracer.runtime.pages import PAGE
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import IN_USE, read_span_columns
from gomem.tracer.runtime.structs import Record, read_record

_MOST_PS = 1 << 12
_SAMPLED_SPANS = 256
_WORD = (1 << 64) - 1


class Processor(Struct, frozen=True):
    """What one P says of itself; `slots` has shape (136,), the mcache's spans by span class."""

    number: int
    mcache: Record | None
    slots: Words
    span_class: Words  # of the span in each slot, shape (136,)


class Evidence(Struct, frozen=True):
    """What the checks look at, besides the snapshot; read anew at each attempt."""

    mheap: Record
    mstats: Record
    controller: Record | None  # releases before Go 1.17 have it not, or little in it
    processors: list[Processor]
    arena_entries: list[tuple[int, int]]  # of sampled spans: the mspan, and what heapArena.spans has for its page
    work: Record | None  # None: the global could not be found
    span_lists: list[tuple[str, int, int, int]]  # what, address of the list, first.list, first.prev


def read_witness(memory: Memory, layout: Layout, addresses: Mapping[str, int], snapshot: RuntimeSnapshot) -> Evidence:
    """Read what the checks need. Raises SnapshotError or LayoutError."""
    mheap = read_record(memory, layout, "mheap", addresses["mheap_"])
    return Evidence(
        mheap=mheap,
        mstats=read_record(memory, layout, "mstats", addresses["memstats"]),
        controller=(
            read_record(memory, layout, "gcControllerState", addresses["gcController"])
            if "gcController" in addresses and layout.has_struct("gcControllerState")
            else None
        ),
        processors=_processors(memory, layout, addresses["allp"]),
        arena_entries=_arena_entries(memory, layout, mheap, snapshot),
        work=read_record(memory, layout, "work", addresses["work"]) if "work" in addresses else None,
        span_lists=_span_lists(memory, layout, addresses.get("work")),
    )


def _processors(memory: Memory, layout: Layout, allp: int) -> list[Processor]:
    address, count, _ = (int(word) for word in read_words(memory, allp, 3))
    if count > _MOST_PS:
        raise SnapshotError(f"the runtime claims {count} Ps")
    spot = layout.field("mcache", "alloc")
    found = []
    for at in read_words(memory, address, count).tolist():
        p = read_record(memory, layout, "p", at)
        pointer = p.number("mcache")
        none = np.zeros(0, np.uint64)
        if not pointer:
            found.append(Processor(p.number("id"), None, none, none))
            continue
        mcache = read_record(memory, layout, "mcache", pointer)
        slots = np.frombuffer(mcache.bytes_at(spot.offset, spot.size), dtype="<u8")
        unique, back = np.unique(slots, return_inverse=True)
        classes = read_span_columns(memory, layout, unique, ("span_class",))["span_class"]
        found.append(Processor(p.number("id"), mcache, slots, classes[back]))
    return found


def _arena_entries(memory: Memory, layout: Layout, mheap: Record, snapshot: RuntimeSnapshot) -> list[tuple[int, int]]:
    """Follow mheap.arenas to the heapArena of some spans, and see which mspan it has for their last page."""
    spans = snapshot.spans
    used = np.flatnonzero(spans.with_state(IN_USE))
    sample = used[:: max(1, used.size // _SAMPLED_SPANS)][:_SAMPLED_SPANS]
    arena, page = snapshot.arena_bytes, layout.constant("arena_base_offset")
    table, l2_bits = layout.offset("mheap", "arenas"), layout.constant("arena_l2_bits")
    entries = layout.offset("heapArena", "spans")
    found = []
    for address, start, pages in zip(
        spans.address[sample].tolist(), spans.start[sample].tolist(), spans.pages[sample].tolist(), strict=True
    ):
        last = start + (pages - 1) * PAGE
        index = ((last - page) & _WORD) // arena
        l1, l2 = index >> l2_bits, index & (1 << l2_bits) - 1
        second = int.from_bytes(mheap.bytes_at(table + l1 * 8, 8), "little")
        heap_arena = int(read_words(memory, second + l2 * 8, 1)[0])
        place = heap_arena + entries + ((last - page) & _WORD) % arena // PAGE * 8
        found.append((address, int(read_words(memory, place, 1)[0])))
    return found


def _span_lists(memory: Memory, layout: Layout, work: int | None) -> list[tuple[str, int, int, int]]:
    found = []
    for name in ("free", "busy") if work is not None else ():
        assert work is not None
        head = work + layout.offset("work", f"wbufSpans.{name}")
        first = int(read_words(memory, head, 1)[0])
        if first:
            back, previous = (
                int(read_words(memory, first + layout.offset("mspan", link), 1)[0]) for link in ("list", "prev")
            )
            found.append((f"work.wbufSpans.{name}", head, back, previous))
    return found
