"""The per-P caches: spans in mcaches, pages in page caches, and what they have not told the statistics yet.

Source: p in runtime/runtime2.go, mcache in runtime/mcache.go, pageCache in runtime/mpagecache.go.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.addresses.ranges import distinct
from gomem.tracer.errors import SnapshotError
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words, read_words
from gomem.tracer.report import McacheRow, PageCacheRow
from gomem.tracer.runtime.earlier import LocalFrees, first_number, local_frees
from gomem.tracer.runtime.pages import PageCache
from gomem.tracer.runtime.spans import read_span_columns
from gomem.tracer.runtime.stats import Unflushed, with_frees
from gomem.tracer.runtime.structs import read_record

MOST_PS = 1 << 12


class PCaches(Struct, frozen=True):
    """What all Ps hold; `cached_spans` by span class, shape (256,). Empty page caches are left out."""

    unflushed: Unflushed
    page_caches: list[PageCache]
    rows: list[McacheRow]
    cached_spans: NDArray[np.int64]
    page_rows: list[PageCacheRow]


def read_p_caches(memory: Memory, layout: Layout, allp: int) -> PCaches:
    """Read the caches of every P in the slice at address `allp`."""
    header = read_words(memory, allp, 3)
    address, count = int(header[0]), int(header[1])
    if count > MOST_PS or count > int(header[2]):
        raise SnapshotError(f"the runtime claims {count} Ps")
    pages: dict[int, PageCache] = {}
    owners: list[int] = []
    tiny: list[int] = []
    freed: list[LocalFrees | None] = []
    held = [np.zeros(0, np.uint64)]
    for number, p in enumerate(read_words(memory, address, count).tolist()):
        mcache, page_cache = _read_p(memory, layout, p)
        if page_cache.free:
            pages[number] = page_cache
        if not mcache:
            continue
        spans, allocs, frees = _read_mcache(memory, layout, mcache)
        owners.append(number)
        tiny.append(allocs)
        freed.append(frees)
        held.append(spans)
    gathered = _gathered(memory, layout, pages, owners, tiny, held[1:])
    return replace(gathered, unflushed=with_frees(gathered.unflushed, freed))


def _read_p(memory: Memory, layout: Layout, p: int) -> tuple[int, PageCache]:
    """Return the mcache's address and the page cache of one P, of which the fields lie close together."""
    mcache = layout.offset("p", "mcache")
    if not layout.has("p", "pcache"):
        return int(read_words(memory, p + mcache, 1)[0]), PageCache(0, 0, 0)
    pages = layout.offset("p", "pcache")
    first = min(mcache, pages)
    raw = memory.read(p + first, max(mcache + 8, pages + layout.size("pageCache")) - first)

    def word(offset: int) -> int:
        return int.from_bytes(raw[offset - first :][:8], "little")

    base, free, scavenged = (word(pages + layout.offset("pageCache", name)) for name in ("base", "cache", "scav"))
    return word(mcache), PageCache(base, free, scavenged)


def _read_mcache(memory: Memory, layout: Layout, mcache: int) -> tuple[Words, int, LocalFrees | None]:
    """Return the spans that an mcache holds, ascending, its tiny allocations, and what it has freed.

    Size class 0 (large objects) is never cached, so slot 0 always holds emptymspan, as all idle slots do.
    """
    record = read_record(memory, layout, "mcache", mcache)
    spot = layout.field("mcache", "alloc")
    slots = np.frombuffer(record.bytes_at(spot.offset, spot.size), dtype="<u8")
    tiny = first_number(record, "tinyAllocs", "local_tinyallocs")
    return distinct(slots[(slots != 0) & (slots != slots[0])]), tiny, local_frees(record)


def _gathered(
    memory: Memory, layout: Layout, pages: dict[int, PageCache], owners: list[int], tiny: list[int], held: list[Words]
) -> PCaches:
    """Count what has been allocated from the spans of all mcaches since they were cached."""
    classes = len(layout.constants("class_to_size"))
    lengths = [len(spans) for spans in held]
    spans = np.concatenate([np.zeros(0, np.uint64), *held])
    owner = np.repeat(np.arange(len(held)), lengths)
    # A span is in one mcache only; a torn read may see it in two, and counts it twice then.
    order = np.argsort(spans, kind="stable")
    # Up to Go 1.18 statistics count all slots of a span as allocated once an mcache takes it, and correct that later.
    early = not layout.has("mspan", "allocCountBeforeCache")
    counted = "capacity" if early else "objects_before_cache"
    columns = read_span_columns(memory, layout, spans[order], ("span_class", "objects", counted))
    used = columns["objects"].astype(np.int64) - columns[counted].astype(np.int64)
    span_class = columns["span_class"].astype(np.int64)
    if np.any(span_class >= 2 * classes) or np.any(used > 0 if early else used < 0):
        raise SnapshotError("a cached mspan has an impossible size class or object count")
    small = np.zeros(classes, np.int64)
    np.add.at(small, span_class >> 1, used)
    by_p = np.zeros(len(held), np.int64)
    np.add.at(by_p, owner[order], np.maximum(used, 0))
    rows = [
        McacheRow(number, length, objects + waiting)
        for number, length, objects, waiting in zip(owners, lengths, by_p.tolist(), tiny, strict=True)
    ]
    page_rows = [
        PageCacheRow(number, cache.base, cache.free.bit_count(), (cache.free & cache.scavenged).bit_count())
        for number, cache in pages.items()
    ]
    by_class = np.bincount(span_class, minlength=256)
    return PCaches(Unflushed(sum(tiny), small), list(pages.values()), rows, by_class, page_rows)
