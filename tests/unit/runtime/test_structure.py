from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.report import ArenaHint, McentralRow, MetadataRow
from gomem.tracer.runtime.metadata import metadata_rows
from gomem.tracer.runtime.regions import Region
from gomem.tracer.runtime.structure import (
    arena_hints,
    current_arena,
    fixed_allocs,
    mcentral_rows,
    read_scheduler,
    read_structure,
)
from tests.support.runtime_image import RuntimeImage

every_release = pytest.mark.parametrize("release", ["1.19.8", "1.21.13", "1.24.11", "1.27.3"])
MOST = (1 << 64) - 1


class Structured:
    """A runtime image with sched and allgs."""

    def __init__(self, release: str = "1.27.3") -> None:
        self.runtime = RuntimeImage(release)
        self.layout = self.runtime.layout
        self.runtime.globals["sched"] = self.runtime.room(self.layout.size("schedt"))
        self.runtime.globals["allgs"] = self.runtime.room(24)
        self.sched(mnext=1)

    def sched(self, **fields: int) -> None:
        for name, value in fields.items():
            self.runtime.set("schedt", self.runtime.globals["sched"], name.replace("__", "."), value)

    def mheap(self, **fields: int) -> None:
        for name, value in fields.items():
            self.runtime.set("mheap", self.runtime.globals["mheap_"], name.replace("__", "."), value)

    def goroutines(self, *statuses: int, length: int | None = None) -> None:
        array = self.runtime.room(8 * max(len(statuses), 1))
        for number, status in enumerate(statuses):
            g = self.runtime.room(self.layout.size("g") + 64 * number)
            self.runtime.set("g", g, "atomicstatus", status)
            self.runtime.image.words(array + 8 * number, g)
        count = len(statuses) if length is None else length
        self.runtime.image.words(self.runtime.globals["allgs"], array, count, count)

    def free(self, of_sched: int, *of_ps: int) -> None:
        counted = self.layout.has("schedt", "gFree.n")
        self.sched(**({"gFree__n": of_sched} if counted else {"gFree__stack__size": of_sched}))
        for p, count in zip(self.runtime.ps, of_ps, strict=True):
            self.runtime.set("p", p, "gFree.n" if counted else "gFree.size", count)

    def set_of(self, span_class: int, name: str, which: int, head: int, tail: int) -> None:
        central = self.layout.field("mheap", "central")
        spot = central.offset + span_class * central.stride + self.layout.offset("mcentral", name)
        spot += which * self.layout.size("spanSet") + self.layout.offset("spanSet", "index")
        self.runtime.image.words(self.runtime.globals["mheap_"] + spot, head << 32 | tail)


@every_release
def test_sets_are_as_long_as_from_head_to_tail_and_trade_their_roles_with_each_sweep(release: str) -> None:
    image = Structured(release)
    image.set_of(10, "partial", 0, 3, 10)
    image.set_of(10, "partial", 1, 0, 2)
    image.set_of(10, "full", 0, 5, 5)
    image.set_of(10, "full", 1, 100, 1100)
    image.mheap(sweepgen=4)
    assert mcentral_rows(image.runtime.record("mheap_")) == [McentralRow(10, 9, 1000, 2, 1000)]
    image.mheap(sweepgen=6)
    assert mcentral_rows(image.runtime.record("mheap_")) == [McentralRow(10, 9, 1000, 7, 0)]


def test_a_pop_that_ran_ahead_of_the_tail_leaves_an_empty_set() -> None:
    image = Structured()
    image.set_of(135, "full", 0, 11, 10)
    assert mcentral_rows(image.runtime.record("mheap_")) == []


def test_a_set_longer_than_any_heap_is_refused() -> None:
    image = Structured()
    image.set_of(0, "full", 0, 0, 0xFFFF_FFFF)
    with pytest.raises(SnapshotError, match="central list"):
        mcentral_rows(image.runtime.record("mheap_"))


def test_hints_come_in_the_runtimes_order() -> None:
    image = Structured()
    places = [image.runtime.room(image.layout.size("arenaHint")) for _ in range(3)]
    for number, place in enumerate(places):
        image.runtime.set("arenaHint", place, "addr", 0xC000000000 + number)
        image.runtime.set("arenaHint", place, "down", number == 1)
        image.runtime.set("arenaHint", place, "next", places[number + 1] if number < 2 else 0)
    image.mheap(arenaHints=places[0])
    hints = arena_hints(image.runtime.image, image.runtime.record("mheap_"))
    assert hints == [
        ArenaHint(0xC000000000, False), ArenaHint(0xC000000001, True), ArenaHint(0xC000000002, False)
    ]  # fmt: skip
    image.runtime.set("arenaHint", places[2], "next", places[0])
    with pytest.raises(SnapshotError, match="arenaHint"):
        arena_hints(image.runtime.image, image.runtime.record("mheap_"))


@pytest.mark.parametrize(("base", "end", "expected"), [(0, 0, None), (16, 32, (16, 32)), (32, 32, (32, 32))])
def test_the_current_arena_is_a_range(base: int, end: int, expected: tuple[int, int] | None) -> None:
    image = Structured()
    image.mheap(curArena__base=base, curArena__end=end)
    assert current_arena(image.runtime.record("mheap_")) == expected


@pytest.mark.parametrize(("base", "end"), [(2, 1), (1, MOST), (MOST, MOST)])
def test_a_current_arena_that_is_no_range_is_refused(base: int, end: int) -> None:
    image = Structured()
    image.mheap(curArena__base=base, curArena__end=end)
    with pytest.raises(SnapshotError):
        current_arena(image.runtime.record("mheap_"))


@every_release
def test_each_fixed_size_allocator_of_the_release_is_shown(release: str) -> None:
    image = Structured(release)
    image.mheap(spanalloc__size=160, spanalloc__inuse=1600, cachealloc__size=1200, cachealloc__inuse=2400)
    rows = {row.name: (row.object_size, row.in_use) for row in fixed_allocs(image.runtime.record("mheap_"))}
    assert (rows["spanalloc"], rows["cachealloc"]) == ((160, 1600), (1200, 2400))
    assert {"specialfinalizeralloc", "specialprofilealloc", "arenaHintAlloc"} <= set(rows)
    image.mheap(spanalloc__inuse=MOST)
    with pytest.raises(SnapshotError, match="spanalloc"):
        fixed_allocs(image.runtime.record("mheap_"))


@every_release
def test_goroutines_are_counted_without_the_free_and_the_runtimes_own(release: str) -> None:
    image = Structured(release)
    image.runtime.p()
    image.runtime.p()
    image.goroutines(1, 2, 3, 4, 4, 0x1004, 6, 6, 6, 0)
    image.free(1, 2, 0)
    image.sched(ngsys=2, mnext=9, nmfreed=3)
    image.runtime.finish()
    found = read_scheduler(image.runtime.image, image.layout, image.runtime.globals)
    assert (found.goroutines, found.system_goroutines, found.ms, found.ps) == (5, 2, 6, 2)
    assert found.goroutine_states == {"runnable": 1, "running": 1, "syscall": 1, "waiting": 3}
    size = image.layout.size("g")
    assert found.ended_goroutines == 3
    assert found.ended_bytes is not None
    assert 3 * size <= found.ended_bytes <= 3 * (size + 64)


@pytest.mark.parametrize(
    "lie",
    [
        {"ngsys": -1}, {"ngsys": 3}, {"mnext": -5}, {"mnext": 1 << 40}, {"nmfreed": 1 << 62},
        {"gFree__stack__size": -1}, {"gFree__stack__size": 1 << 30},
    ],
)  # fmt: skip
def test_counts_that_no_scheduler_has_are_refused(lie: dict[str, int]) -> None:
    image = Structured()
    image.goroutines(1, 2)
    image.sched(**lie)
    image.runtime.finish()
    with pytest.raises(SnapshotError):
        read_scheduler(image.runtime.image, image.layout, image.runtime.globals)


@pytest.mark.parametrize("length", [3, 1 << 18, 1 << 40, MOST])
def test_more_goroutines_than_there_are_end_in_an_error(length: int) -> None:
    image = Structured()
    image.goroutines(4, 4, length=length)
    image.runtime.finish()
    with pytest.raises(SnapshotError):
        read_scheduler(image.runtime.image, image.layout, image.runtime.globals)


def test_what_cannot_be_read_is_named_and_the_rest_is_there() -> None:
    image = Structured()
    image.mheap(arenaHints=0x12345678, spanalloc__size=160, curArena__base=9, curArena__end=3)
    image.runtime.finish()
    del image.runtime.globals["sched"]
    mheap = image.runtime.record("mheap_")
    structure, missed = read_structure(image.runtime.image, image.layout, image.runtime.globals, mheap)
    assert [why.partition(":")[0] for why in missed] == ["arena hints", "current arena", "goroutines"]
    assert (structure.arena_hints, structure.current_arena, structure.scheduler) == (None, None, None)
    assert structure.mcentral == []
    assert structure.fixed_allocs


def test_a_release_without_span_sets_has_no_central_rows() -> None:
    runtime = RuntimeImage("1.27.3")
    assert mcentral_rows(runtime.record("mheap_")) == []
    with pytest.raises(LayoutError, match="sched"):
        read_scheduler(runtime.image, runtime.layout, runtime.globals)


def test_metadata_is_summed_by_purpose_in_whole_os_pages() -> None:
    regions = [
        Region(0x1000, 4096, "heap_metadata", "gc bits"),
        Region(0x4000, 5000, "heap_metadata", "gc bits"),
        Region(0x8000, 4096, "page_summary", "page summary level 0"),
        Region(0x100000, 1 << 16, "heap_arena", "arena"),
    ]
    start = np.array([0x5000, 0x8000, 0x100000], np.uint64)
    ranges = Ranges(start, start + np.uint64(4096))
    bytes_each = np.full(3, 4096, np.uint64)
    flags = np.full(3, int(Page.PRESENT), np.uint8)
    residency = Residency(ranges, flags, bytes_each, np.zeros(3, np.uint64), "pagemap_scan", exact=True)
    assert metadata_rows(regions, residency) == [
        MetadataRow("gc bits", "heap_metadata", 2, 4096 + 8192, 4096),
        MetadataRow("page summary level 0", "page_summary", 1, 4096, 4096),
    ]
