"""Memory maps: of a look at a process that never was, of a heap of 10 GB, and one that means harm."""

from __future__ import annotations

from functools import cache

import numpy as np
from msgspec.structs import replace

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.report import KINDS, Report
from gomem.tracer.report.memory_map import (
    Areas,
    Arenas,
    HeldBytes,
    MapSpans,
    MemoryMap,
    Moment,
    PageBits,
    PageUse,
    Picture,
)
from gomem.tracer.snapshot.inspection import Snapshot
from gomem.tracer.snapshot.join import join
from gomem.tracer.watch.album import Album
from gomem.tracer.watch.session import NO_OVERHEAD, Origin, TargetSession
from tests.support import looks, runtime_image
from tests.support.samples.profiles import MARKUP
from tests.support.samples.reports import SAMPLES

HEAP_OF_LOOKS = runtime_image.ARENA
ARENA, PAGE = 64 << 20, 8192
ARENA_PAGES = ARENA // PAGE
HEAP = 0xC000000000
CLASSES = ((2, 16), (5, 48), (9, 112), (12, 160), (30, 768))  # size class, object size


def seen(*moments: Snapshot) -> tuple[Report, Picture]:
    """Return the report of looks, and what an album keeps of them: one a second, the last one at the end."""
    taken = moments or (looks.look(),)
    session = TargetSession(Origin("procfs", "a test", has_events=False), lambda address: None, 0)
    album = Album()
    session.on_look = album.see
    for at, look in enumerate(taken):
        session.see(look, (at + 1) * 1_000_000_000)
    report = session.report(looks.facts(), looks.look().kernel.taken_at, float(len(taken)), NO_OVERHEAD, [])
    return report, album.picture(0)


def with_residency(look: Snapshot, ranges: list[tuple[int, int, int]]) -> Snapshot:
    """The look with OS pages (first, count, flags) of its arena in RAM or in swap, and nothing else."""
    start = np.array([HEAP_OF_LOOKS + first * looks.OS_PAGE for first, _, _ in ranges], np.uint64)
    size = np.array([count * looks.OS_PAGE for _, count, _ in ranges], np.uint64)
    flags = np.array([flags for _, _, flags in ranges], np.uint8)
    rss = np.where(flags & Page.PRESENT, size, 0).astype(np.uint64)
    swap = np.where(flags & Page.SWAPPED, size, 0).astype(np.uint64)
    residency = Residency(Ranges(start, start + size), flags, rss, swap, "pagemap_scan", True)
    assert look.runtime is not None
    space = join(look.kernel.mappings, residency, look.runtime, None)
    kernel = replace(look.kernel, residency=residency)
    return replace(look, kernel=kernel, space=space)


@cache
def large(arenas: int = 160) -> tuple[Report, Picture]:
    """Return the map of a heap of so many arenas, 10 GB by default, in which nothing is like its neighbours."""
    random = np.random.default_rng(16)
    pages = arenas * ARENA_PAGES
    held = random.integers(1, 4, pages)
    first = np.concatenate((np.zeros(1, np.int64), np.cumsum(held)))
    first = first[first < pages]
    count = np.diff(first, append=pages)
    kind = random.choice(6, len(first), p=[0.05, 0.3, 0.25, 0.2, 0.1, 0.1])  # 0: free or scavenged
    use = np.where(kind > 0, PageUse.IN_USE, random.choice([PageUse.FREE, PageUse.SCAVENGED], len(first)))
    state = np.repeat(use, count).astype(np.uint8)
    both = np.uint8(PageBits.FIRST_RESIDENT | PageBits.SECOND_RESIDENT)
    resident = random.random(pages) < np.where(state == PageUse.SCAVENGED, 0.01, 0.97)
    state[resident] |= both
    spans = np.flatnonzero(kind > 0)
    classes = np.array(CLASSES)[kind[spans] - 1]
    capacity = count[spans] * PAGE // classes[:, 1]
    base = HEAP + ARENA * np.arange(arenas, dtype=np.uint64)
    in_ram = np.add.reduceat(resident * PAGE, np.arange(0, pages, ARENA_PAGES)).astype(np.uint64)
    shown = MemoryMap(
        "2026-03-01T12:00:00.000Z",
        areas(1000),
        Arenas(base.astype(np.uint64), np.full(arenas, ARENA, np.uint64), in_ram, np.zeros(arenas, np.uint64)),
        state,
        MapSpans(
            first[spans].astype(np.uint32), count[spans].astype(np.uint32), (classes[:, 0] << 1).astype(np.uint8),
            np.zeros(len(spans), np.uint8), capacity.astype(np.uint32),
            (capacity * random.random(len(spans)) ** 0.3).astype(np.uint32), classes[:, 1].astype(np.float64),
            np.zeros(len(spans), np.uint32), ("",),
        ),
        True,
    )  # fmt: skip
    held_bytes = [HeldBytes(("Go heap", "spans in use"), int(in_ram.sum()))]
    return SAMPLES["grown_and_scavenged"](), Picture([Moment(0.0, shown)], held_bytes)


def hostile(mappings: int = 1_000_000) -> tuple[Report, Picture]:
    """Return one of a process that has named everything after what a page could run, in very many mappings."""
    report = SAMPLES["grown_and_scavenged"]()
    process = replace(report.process, exe=f"/srv/{MARKUP}", cmdline=[MARKUP] * 3, main_module=MARKUP, pod=MARKUP)
    findings = [replace(finding, title=MARKUP, explanation=MARKUP) for finding in report.findings]
    report = replace(report, process=process, findings=findings)
    _, picture = seen()
    shown = picture.moments[-1].map
    names = [MARKUP, "\x1b[2J\u202e\x00", "x" * 100_000, "__proto__", "{{ 7 * 7 }}"]
    held = [HeldBytes(("unknown", name), 4096 * (at + 1)) for at, name in enumerate(names)]
    bad = MemoryMap(
        shown.taken_at, areas(mappings, names), shown.arenas, shown.pages, shown.spans, shown.page_residency
    )
    return report, Picture([Moment(0.0, bad)], held)


def areas(count: int, names: list[str] | None = None) -> Areas:
    """Return so many mappings of one page each, every second one behind a gap."""
    start = 0x7F0000000000 + 4096 * (np.arange(count, dtype=np.uint64) * np.uint64(3) // np.uint64(2))
    page = np.full(count, 4096, np.uint64)
    number = np.arange(count)
    return Areas(
        start.astype(np.uint64), page, (number % len(KINDS)).astype(np.uint8), np.zeros(count, np.uint8),
        (number % 4).astype(np.uint8), np.where(number % 2, page, 0).astype(np.uint64), np.zeros(count, np.uint64),
        np.zeros(count, np.uint64), (number % len(names or [""])).astype(np.uint32), names or [""],
    )  # fmt: skip
