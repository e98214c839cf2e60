"""Each generation of the page heap and of its statistics before Go 1.19, on synthetic memory."""

from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.errors import LayoutError, SnapshotError
from gomem.tracer.kernel.maps import Mappings, parse_maps
from gomem.tracer.runtime.contiguous import contiguous_heap
from gomem.tracer.runtime.earlier import optional_globals, required_globals
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.runtime.regions import Region
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.runtime.spans import FREE, MANUAL, state_rows
from tests.support.runtime_image import ARENA, CHUNK, PAGE, RuntimeImage

ARENA_BYTES = 64 << 20
ARENA_PAGES = ARENA_BYTES // PAGE
PLAIN = ("1.11.2", "1.12.6", "1.13.4", "1.14.2", "1.15.5")
BY_SPANS = ("1.11.2", "1.12.6", "1.13.1")
WITH_REST = ("1.14.2", "1.15.5", "1.16")


def stats(runtime: RuntimeImage, **fields: int) -> None:
    """Write fields of memstats."""
    for name, value in fields.items():
        runtime.set("mstats", runtime.globals["memstats"], name, value)


def heap(runtime: RuntimeImage, **fields: int) -> None:
    """Write fields of mheap."""
    for name, value in fields.items():
        runtime.set("mheap", runtime.globals["mheap_"], name.replace("__", "."), value)


def element(runtime: RuntimeImage, field: str, number: int, value: int) -> None:
    """Write one word of an array in mheap."""
    runtime.image.words(runtime.globals["mheap_"] + runtime.layout.offset("mheap", field) + 8 * number, value)


def mallocs(runtime: RuntimeImage, span_class: int, count: int) -> None:
    """Write mcentral.nmalloc of a span class."""
    central = runtime.layout.field("mheap", "central")
    offset = central.offset + span_class * central.stride + runtime.layout.offset("mcentral", "nmalloc")
    runtime.image.words(runtime.globals["mheap_"] + offset, count)


def scavenge(runtime: RuntimeImage, span: int, pages: int) -> None:
    """Mark a free span's pages as scavenged, as the release does."""
    if runtime.layout.has("mspan", "npreleased"):
        runtime.set("mspan", span, "npreleased", pages)
    else:
        runtime.set("mspan", span, "scavenged", 1)


def read(runtime: RuntimeImage) -> RuntimeSnapshot:
    """Return the snapshot with the globals that this release needs, and no others."""
    names = {*required_globals(runtime.layout), *optional_globals(runtime.layout)}
    runtime.globals = {name: address for name, address in runtime.globals.items() if name in names}
    return runtime.finish().reader().snapshot()


def figures(snapshot: RuntimeSnapshot, *names: str) -> list[object]:
    """Return fields of MemStats."""
    return [snapshot.memstats[name] for name in names]


def pages(snapshot: RuntimeSnapshot) -> dict[str, int]:
    """Return how many heap pages are in each state."""
    return {state.name: snapshot.pages.bytes_of(state) // PAGE for state in PageState}


def arena_of_spans(release: str) -> RuntimeImage:
    """An arena in which every page has a span: 1 in use, 4 of a stack, 10 free, 20 scavenged, the rest free."""
    runtime = RuntimeImage(release)
    used = runtime.span(ARENA, 1, objects=100)
    runtime.span(ARENA + PAGE, 4, MANUAL)
    runtime.span(ARENA + 5 * PAGE, 10, FREE)
    gone = runtime.span(ARENA + 15 * PAGE, 20, FREE)
    scavenge(runtime, gone, 20)
    runtime.span(ARENA + 35 * PAGE, ARENA_PAGES - 35, FREE)
    if runtime.layout.has("mheap", "allArenas"):
        runtime.arenas(ARENA)
    free = ARENA_PAGES - 5
    stats(runtime, heap_inuse=PAGE, stacks_inuse=4 * PAGE, heap_idle=free * PAGE, heap_released=20 * PAGE)
    mallocs(runtime, 10, 170)
    runtime.p(used)
    return runtime


@pytest.mark.parametrize("release", BY_SPANS)
def test_pages_are_as_their_spans_say(release: str) -> None:
    snapshot = read(arena_of_spans(release))
    assert snapshot.consistency.exact
    assert pages(snapshot) == {"IN_USE": 1, "STACK": 4, "WORK_BUF": 0, "FREE": ARENA_PAGES - 25, "SCAVENGED": 20}
    starts, _, states = snapshot.pages.runs()
    gone = starts[states == PageState.SCAVENGED].tolist()
    assert gone == [ARENA + 15 * PAGE]
    rows = state_rows(snapshot.spans)
    assert (rows["free"].count, rows["free"].bytes) == (3, (ARENA_PAGES - 5) * PAGE)


def test_go_1_11_tells_of_a_free_span_only_how_many_of_its_pages_are_scavenged() -> None:
    runtime = arena_of_spans("1.11.2")
    scavenge(runtime, runtime.spans[3], 7)
    stats(runtime, heap_released=7 * PAGE)
    snapshot = read(runtime)
    assert snapshot.consistency.exact
    assert pages(snapshot)["SCAVENGED"] == 7


def test_more_scavenged_pages_than_pages_are_refused() -> None:
    runtime = arena_of_spans("1.11.2")
    scavenge(runtime, runtime.spans[3], 21)
    with pytest.raises(SnapshotError, match="scavenged"):
        read(runtime)


def test_spans_all_over_the_address_space_are_refused() -> None:
    runtime = arena_of_spans("1.12.6")
    for number in range(3):
        runtime.span((number + 1) << 46, 1 << 30, FREE)
    with pytest.raises(SnapshotError, match="chunks"):
        read(runtime)


def test_arenas_of_go_1_11_are_where_its_spans_are() -> None:
    runtime = arena_of_spans("1.11.2")
    second = runtime.room(8 << runtime.layout.constant("arena_l2_bits"))
    runtime.image.words(runtime.globals["mheap_"] + runtime.layout.offset("mheap", "arenas"), second)
    index = ((ARENA + (1 << 47)) & (1 << 64) - 1) // ARENA_BYTES
    metadata = runtime.room(4096)
    runtime.image.words(second + 8 * index, metadata)
    regions = read(runtime).regions
    assert [region for region in regions if region.what in ("arena", "heapArena")] == [
        Region(ARENA, ARENA_BYTES, "heap_arena", "arena", counted=False),
        Region(metadata, runtime.layout.size("heapArena"), "heap_metadata", "heapArena"),
    ]


def test_a_span_that_no_release_with_a_page_allocator_has_is_refused() -> None:
    runtime = RuntimeImage("1.16")
    runtime.span(ARENA, 1, FREE)
    with pytest.raises(SnapshotError, match="state"):
        read(runtime)


def test_the_rest_of_an_arena_is_released_between_go_1_13_4_and_1_16() -> None:
    runtime = RuntimeImage("1.13.4")
    runtime.span(ARENA, 1, objects=100)
    runtime.span(ARENA + PAGE, 511, FREE)
    heap(runtime, curArena__base=ARENA + CHUNK, curArena__end=ARENA + ARENA_BYTES)
    runtime.arenas(ARENA)
    rest = ARENA_BYTES - CHUNK
    stats(runtime, heap_inuse=PAGE, heap_idle=ARENA_BYTES - PAGE, heap_released=rest)
    snapshot = read(runtime)
    assert snapshot.consistency.exact
    assert pages(snapshot) == {"IN_USE": 1, "STACK": 0, "WORK_BUF": 0, "FREE": 511, "SCAVENGED": rest // PAGE}


def with_page_allocator(release: str) -> RuntimeImage:
    """A chunk with 3 pages allocated (2 in use, 1 of a stack), 9 free and 500 scavenged ones."""
    runtime = RuntimeImage(release)
    runtime.grow(ARENA, [range(3)], [range(12, 512)])
    runtime.span(ARENA, 2, objects=200, capacity=341)
    runtime.span(ARENA + 2 * PAGE, 1, MANUAL)
    runtime.arenas(ARENA)
    return runtime


@pytest.mark.parametrize("release", WITH_REST)
def test_the_page_allocator_and_the_rest_of_the_arena_make_up_heap_released(release: str) -> None:
    runtime = with_page_allocator(release)
    heap(runtime, curArena__base=ARENA + CHUNK, curArena__end=ARENA + ARENA_BYTES)
    rest = ARENA_BYTES - CHUNK
    if runtime.layout.has("mstats", "heapStats.stats"):
        runtime.delta(0, committed=12 * PAGE, released=500 * PAGE + rest, inHeap=2 * PAGE, inStacks=PAGE)
    else:
        stats(runtime, heap_inuse=2 * PAGE, stacks_inuse=PAGE, heap_idle=509 * PAGE + rest,
              heap_released=500 * PAGE + rest)  # fmt: skip
    snapshot = read(runtime)
    assert snapshot.consistency.exact
    assert figures(snapshot, "HeapSys", "HeapReleased") == [ARENA_BYTES - PAGE, 500 * PAGE + rest]
    assert pages(snapshot)["SCAVENGED"] == 500 + rest // PAGE


@pytest.mark.parametrize(("base", "end"), [(CHUNK, CHUNK - 1), (PAGE, ARENA_BYTES), (0, ARENA_BYTES), (CHUNK, 1 << 46)])
def test_a_current_arena_that_makes_no_sense_is_refused(base: int, end: int) -> None:
    runtime = with_page_allocator("1.16")
    runtime.delta(0, committed=12 * PAGE, released=500 * PAGE, inHeap=2 * PAGE, inStacks=PAGE)
    heap(runtime, curArena__base=ARENA + base, curArena__end=ARENA + end)
    with pytest.raises(SnapshotError, match="arena"):
        read(runtime)


@pytest.mark.parametrize("release", ["1.17.2", "1.18"])
def test_the_rest_of_an_arena_is_reserved_from_go_1_17_on(release: str) -> None:
    runtime = with_page_allocator(release)
    runtime.delta(0, committed=12 * PAGE, released=500 * PAGE, inHeap=2 * PAGE, inStacks=PAGE)
    heap(runtime, curArena__base=ARENA + CHUNK, curArena__end=ARENA + ARENA_BYTES)
    snapshot = read(runtime)
    assert snapshot.consistency.exact
    assert len(snapshot.pages.chunk_base) == 1


@pytest.mark.parametrize("release", PLAIN)
def test_objects_are_what_mheap_counts_corrected_by_what_mcaches_hold(release: str) -> None:
    """A cached span with 100 of 170 objects of 48 bytes; the mcache has freed 3 of them and a large one untold."""
    runtime = RuntimeImage(release)
    sizes = runtime.layout.constants("class_to_size")
    small = sizes.index(48)
    span = runtime.span(ARENA, 1, objects=100, span_class=2 * small)
    mallocs(runtime, 2 * small, 170)
    mallocs(runtime, 2 * small + 1, 5)
    element(runtime, "nsmallfree", small, 2)
    heap(runtime, nlargealloc=4, largealloc=400_000, nlargefree=1, largefree=100_000)
    stats(runtime, tinyallocs=7)
    runtime.p(span, tiny=2)
    mcache = int.from_bytes(runtime.image.read(runtime.ps[0] + runtime.layout.offset("p", "mcache"), 8), "little")
    runtime.set("mcache", mcache, "local_nlargefree", 1)
    runtime.set("mcache", mcache, "local_largefree", 90_000)
    runtime.image.words(mcache + runtime.layout.offset("mcache", "local_nsmallfree") + 8 * small, 3)
    memstats = runtime.finish().reader().counters().memstats
    by_size = memstats["BySize"]
    assert isinstance(by_size, list)
    assert by_size[small] == [48, 105, 5]
    assert (memstats["Mallocs"], memstats["Frees"]) == (105 + 4 + 9, 5 + 2 + 9)
    assert memstats["TotalAlloc"] == 105 * 48 + 400_000
    assert memstats["HeapAlloc"] == 100 * 48 + 210_000


@pytest.mark.parametrize("release", ["1.16", "1.17.2", "1.18"])
def test_up_to_go_1_18_statistics_count_a_cached_span_as_full(release: str) -> None:
    runtime = RuntimeImage(release)
    small = runtime.layout.constants("class_to_size").index(48)
    span = runtime.span(ARENA, 1, objects=100, span_class=2 * small)
    runtime.by_class(0, "smallAllocCount", small, 170)
    runtime.p(span, tiny=3)
    memstats = runtime.finish().reader().counters().memstats
    assert (memstats["Mallocs"], memstats["HeapAlloc"]) == (103, 4800)


def test_tiny_allocations_of_go_1_16_are_in_memstats() -> None:
    runtime = RuntimeImage("1.16")
    stats(runtime, tinyallocs=11)
    assert runtime.finish().reader().counters().memstats["Mallocs"] == 11


@pytest.mark.parametrize("release", [*BY_SPANS, "1.14.2", "1.15.5"])
def test_work_buffers_are_in_gc_sys_and_told_apart_by_their_list(release: str) -> None:
    runtime = arena_of_spans(release) if release in BY_SPANS else RuntimeImage(release)
    if release not in BY_SPANS:
        runtime.grow(ARENA, [range(4)], [range(4, 512)])
        runtime.span(ARENA, 4, MANUAL)
        stats(runtime, heap_idle=508 * PAGE, heap_released=508 * PAGE)
    stats(runtime, stacks_inuse=0, gc_sys=5 * PAGE)
    stack = next(span for span in runtime.spans
                 if runtime.image.read(span + runtime.layout.offset("mspan", "state"), 1)[0] == MANUAL)  # fmt: skip
    runtime.image.words(runtime.globals["work"] + runtime.layout.offset("work", "wbufSpans.busy.first"), stack)
    snapshot = read(runtime)
    assert snapshot.consistency.exact
    assert (pages(snapshot)["WORK_BUF"], snapshot.stats.in_work_bufs) == (4, 4 * PAGE)
    sys = sum(int(value) for value in figures(snapshot, "HeapSys", "StackInuse", "GCSys") if isinstance(value, int))
    assert figures(snapshot, "GCSys", "Sys") == [5 * PAGE, sys]


@pytest.mark.parametrize(
    ("release", "where", "marked", "goal"),
    [
        ("1.11.2", "mstats", "heap_marked", "next_gc"),
        ("1.15.5", "mstats", "heap_marked", "next_gc"),
        ("1.16", "mstats", "heap_marked", "next_gc"),
        ("1.17.2", "gcControllerState", "heapMarked", "heapGoal"),
        ("1.18", "gcControllerState", "heapMarked", "heapGoal"),
    ],
)
def test_the_goal_is_where_the_release_keeps_it(release: str, where: str, marked: str, goal: str) -> None:
    runtime = RuntimeImage(release)
    address = runtime.globals["memstats" if where == "mstats" else "gcController"]
    runtime.set(where, address, marked, 3 << 20)
    runtime.set(where, address, goal, 6 << 20)
    if where == "mstats":
        runtime.globals["gcpercent"] = 0x5F0000
        runtime.image.write(0x5F0000, (-1).to_bytes(4, "little", signed=True))
        del runtime.globals["gcController"]
    else:
        runtime.set(where, address, "gcPercent", -1)
    snapshot = read(runtime)
    collector = snapshot.collector
    assert (collector.live, snapshot.memstats["NextGC"], collector.gc_percent) == (3 << 20, 6 << 20, -1)
    assert (collector.memory_limit, collector.mapped_ready) == (None, None)


@pytest.mark.parametrize("field", ["nlargealloc", "heap_inuse", "heap_released"])
def test_counters_that_no_runtime_can_reach_are_refused(field: str) -> None:
    runtime = RuntimeImage("1.14.2")
    if runtime.layout.has("mstats", field):
        stats(runtime, **{field: 1 << 62})
    else:
        mallocs(runtime, 10, 1 << 62)
    with pytest.raises(SnapshotError):
        read(runtime)


def maps(*rows: tuple[int, int]) -> Mappings:
    """Return private anonymous mappings."""
    lines = "".join(f"{start:x}-{end:x} rw-p 00000000 00:00 0 \n" for start, end in rows)
    return parse_maps(lines.encode())


def contiguous(runtime: RuntimeImage, **fields: int) -> list[tuple[int, int, str]]:
    """Return the ranges of a heap with one arena, with some fields changed."""
    mheap = {"bitmap": 0xC420000000, "bitmap_mapped": 0x10000, "arena_start": 0xC420000000,
             "arena_used": 0xC420200000, "arena_end": 0xC420200000, **fields}  # fmt: skip
    for name, value in mheap.items():
        runtime.set("mheap", runtime.globals["mheap_"], name, value)
    spans = runtime.globals["mheap_"] + runtime.layout.offset("mheap", "spans")
    runtime.image.words(spans, 0xC000000000, 512, 0x4000000)
    mapped = maps((0xC000000000, 0xC000001000), (0xC41FFF0000, 0xC420200000), (0x7F0000000000, 0x7F0000100000))
    found = contiguous_heap(runtime.image, runtime.layout, runtime.globals["mheap_"], mapped)
    return [(one.start, one.end, one.kind) for one in found]


@pytest.mark.parametrize("release", ["1.9", "1.10.2"])
def test_what_is_mapped_of_the_one_arena_its_bitmap_and_spans_is_named(release: str) -> None:
    runtime = RuntimeImage(release)
    assert contiguous(runtime) == [
        (0xC000000000, 0xC000001000, "heap_metadata"),
        (0xC41FFF0000, 0xC420000000, "heap_metadata"),
        (0xC420000000, 0xC420200000, "heap_arena"),
    ]


@pytest.mark.parametrize(
    "lie",
    [
        {"arena_start": 0}, {"arena_used": 0xC420000000}, {"arena_end": 1 << 62}, {"bitmap_mapped": 1 << 63},
        {"bitmap": 0xC420200000}, {"arena_start": 0xC420000001},
    ],
)  # fmt: skip
def test_a_contiguous_heap_that_makes_no_sense_is_refused(lie: dict[str, int]) -> None:
    with pytest.raises(SnapshotError, match="contiguous"):
        contiguous(RuntimeImage("1.10.2"), **lie)


def test_a_later_release_has_no_contiguous_heap() -> None:
    runtime = RuntimeImage("1.11.2")
    with pytest.raises(LayoutError):
        contiguous_heap(runtime.image, runtime.layout, runtime.globals["mheap_"], maps((0x1000, 0x2000)))


def test_spans_of_old_releases_survive_a_patch_release_of_unknown_mspan_size() -> None:
    runtime = RuntimeImage("1.18.4")
    with pytest.raises(LayoutError):
        runtime.layout.size("mspan")
    address = runtime.room(152)
    for name, value in {"startAddr": ARENA, "npages": 1, "state": 1, "elemsize": 48, "nelems": 170}.items():
        runtime.set("mspan", address, name, value)
    runtime.spans.append(address)
    runtime.finish()
    snapshot = runtime.reader().snapshot()
    assert snapshot.spans.capacity.tolist() == [170]
    assert snapshot.spans.object_size.astype(np.int64).tolist() == [48]
