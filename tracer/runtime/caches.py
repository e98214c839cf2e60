"""The per-P caches: spans in mcaches, pages in page caches, and what they have not told the statistics yet.

Source: p in runtime/runtime2.go, mcache in runtime/mcache.go, pageCache in runtime/mpagecache.go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.errors import SnapshotError
from tracer.layout.layout import Layout
from tracer.report import McacheRow
from tracer.runtime.memory import Memory, Words, read_words
from tracer.runtime.pages import PageCache
from tracer.runtime.spans import read_span_columns
from tracer.runtime.stats import Unflushed

MOST_PS = 1 << 12


@dataclass(frozen=True, slots=True)
class PCaches:
    """What all Ps hold."""

    unflushed: Unflushed
    page_caches: list[PageCache]
    rows: list[McacheRow]


def read_p_caches(memory: Memory, layout: Layout, allp: int) -> PCaches:
    """Read the caches of every P in the slice at address `allp`."""
    header = read_words(memory, allp, 3)
    address, count = int(header[0]), int(header[1])
    if count > MOST_PS or count > int(header[2]):
        raise SnapshotError(f"the runtime claims {count} Ps")
    classes = len(layout.constants("class_to_size"))
    small = np.zeros(classes, np.int64)
    tiny = 0
    pages: list[PageCache] = []
    rows: list[McacheRow] = []
    for number, p in enumerate(read_words(memory, address, count).tolist()):
        raw = memory.read(p, layout.size("p"))
        pages.append(_page_cache(layout, raw))
        mcache = int.from_bytes(raw[layout.offset("p", "mcache") :][:8], "little")
        if not mcache:
            continue
        spans = _cached_spans(memory, layout, mcache)
        used = _slots_used(memory, layout, spans, small)
        waiting = int(read_words(memory, mcache + layout.offset("mcache", "tinyAllocs"), 1)[0])
        tiny += waiting
        rows.append(McacheRow(number, len(spans), used + waiting))
    return PCaches(Unflushed(tiny, small), [cache for cache in pages if cache.free], rows)


def _page_cache(layout: Layout, raw: bytes) -> PageCache:
    start = layout.offset("p", "pcache")
    base, free, scavenged = (
        int.from_bytes(raw[start + layout.offset("pageCache", name) :][:8], "little")
        for name in ("base", "cache", "scav")
    )
    return PageCache(base, free, scavenged)


def _cached_spans(memory: Memory, layout: Layout, mcache: int) -> Words:
    """Return the spans that an mcache holds, ascending.

    Size class 0 (large objects) is never cached, so slot 0 always holds emptymspan, as all idle slots do.
    """
    spot = layout.field("mcache", "alloc")
    slots = read_words(memory, mcache + spot.offset, spot.size // 8)
    return np.unique(slots[(slots != 0) & (slots != slots[0])])


def _slots_used(memory: Memory, layout: Layout, spans: Words, small: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    """Add to `small`, by size class, the slots allocated since each span was cached; return their sum."""
    columns = read_span_columns(memory, layout, spans, ("span_class", "objects", "objects_before_cache"))
    used = columns["objects"].astype(np.int64) - columns["objects_before_cache"].astype(np.int64)
    size_class = (columns["span_class"] >> np.uint64(1)).astype(np.int64)
    if np.any(size_class >= small.size) or np.any(used < 0):
        raise SnapshotError("a cached mspan has an impossible size class or object count")
    np.add.at(small, size_class, used)
    return int(used.sum())
