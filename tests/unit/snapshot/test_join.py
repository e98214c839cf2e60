from __future__ import annotations

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gomem.tracer.addresses.ranges import Ranges
from gomem.tracer.addresses.region_states import NONE, PREPARED, READY, RESERVED, STATE_NAMES
from gomem.tracer.kernel.mapping_kinds import mapping_kinds
from gomem.tracer.kernel.maps import Mappings, parse_maps
from gomem.tracer.kernel.residency import Page, Residency
from gomem.tracer.machine.room import Room
from gomem.tracer.native.c_memory import NativeRange
from gomem.tracer.report import KINDS
from gomem.tracer.runtime.pages import Chunks, HeapPages, PageState, page_states
from gomem.tracer.runtime.regions import Region
from gomem.tracer.runtime.snapshot import RuntimeSnapshot
from gomem.tracer.snapshot import join as joining
from gomem.tracer.snapshot.join import AddressSpace, join
from tests.support.runtime_image import CHUNK, bitmap

OS_PAGE = 4096
BASE = 0xC000000000
META = BASE + 4 * CHUNK
END = META + 64 * OS_PAGE
NO_SPANS = np.zeros((0, 2), np.uint64)


def snapshot_of(pages: HeapPages, regions: list[Region], mapped_ready: int) -> RuntimeSnapshot:
    regions = sorted(regions, key=lambda region: region.start)
    collector = SimpleNamespace(mapped_ready=mapped_ready)
    return cast(RuntimeSnapshot, SimpleNamespace(pages=pages, regions=regions, collector=collector))


def heap(chunks: dict[int, tuple[set[int], set[int]]], stacks: list[tuple[int, int]] | None = None) -> HeapPages:
    def words(pages: set[int]) -> list[int]:
        return [int(word) for word in np.frombuffer(bitmap(pages), "<u8")]

    bases = sorted(chunks)
    grown = Chunks(
        np.array(bases, np.uint64),
        np.array([words(chunks[base][0]) for base in bases], np.uint64).reshape(-1, 8),
        np.array([words(chunks[base][1]) for base in bases], np.uint64).reshape(-1, 8),
    )
    return page_states(grown, [], np.array(stacks or [], np.uint64).reshape(-1, 2), NO_SPANS, Room(1 << 30))


def maps(*lines: tuple[int, int, str, str]) -> Mappings:
    rows = [f"{low:x}-{high:x} {flags} 0 00:00 0   {name}\n" for low, high, flags, name in sorted(lines)]
    return parse_maps("".join(rows).encode())


def resident_at(pages: list[int], swapped: list[int] | None = None) -> Residency:
    gone = sorted(set(swapped or []) - set(pages))
    both = sorted([*set(pages), *gone])
    start = np.array(both, np.uint64)
    rss = np.array([0 if page in gone else OS_PAGE for page in both], np.uint64)
    flags = np.where(rss > 0, Page.PRESENT, Page.SWAPPED).astype(np.uint8)
    ranges = Ranges(start, start + np.uint64(OS_PAGE))
    return Residency(ranges, flags, rss, np.uint64(OS_PAGE) - rss, "pagemap", exact=True)


@st.composite
def cuts(draw: st.DrawFn, low: int, high: int, step: int, most: int) -> list[tuple[int, int]]:
    """Disjoint ranges within [low, high), which may touch."""
    points = draw(st.lists(st.integers(0, (high - low) // step), max_size=2 * most, unique=True).map(sorted))
    edges = [low + point * step for point in points]
    return [pair for pair in pairwise(edges) if draw(st.booleans())]


page_numbers = st.builds(
    lambda runs: {page for at, length in runs for page in range(at, min(at + length, 512))},
    st.lists(st.tuples(st.integers(0, 511), st.integers(1, 200)), max_size=4),
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Mappings, Residency, RuntimeSnapshot, list[NativeRange]]:
    lines = [
        (low, high, draw(st.sampled_from(["rw-p", "---p", "r--p", "rw-s"])), draw(st.sampled_from(["", "[heap]"])))
        for low, high in draw(cuts(BASE, META, 16 * OS_PAGE, 5)) + draw(cuts(META, END, OS_PAGE, 6))
    ]
    chunks = {BASE + number * CHUNK: (draw(page_numbers), draw(page_numbers))
              for number in draw(st.sets(st.integers(0, 3)))}  # fmt: skip
    # Arenas of one or two chunks: some chunks may lie in none.
    arenas = draw(st.sampled_from([[], [(0, 1)], [(0, 1), (1, 1), (2, 2)], [(0, 2), (3, 1)], [(1, 2)]]))
    regions = [Region(BASE + at * CHUNK, size * CHUNK, "heap_arena", "arena", False) for at, size in arenas]
    natives = []
    for low, high in draw(cuts(META, END, OS_PAGE, 6)):
        kind = draw(st.sampled_from(["heap_metadata", "page_summary", "c_heap", "thread_stack"]))
        if kind in ("c_heap", "thread_stack"):
            natives.append(NativeRange(low, high, kind))
        else:
            regions.append(Region(low, high - low - draw(st.integers(0, OS_PAGE - 1)), kind, "some"))
    mapped = [page for low, high, _, _ in lines for page in range(low, high, OS_PAGE)]
    some = draw(st.lists(st.sampled_from(mapped), max_size=60)) if mapped else []
    gone = draw(st.lists(st.sampled_from(mapped), max_size=20)) if mapped else []
    stacks = draw(st.lists(st.tuples(st.integers(0, 2047).map(lambda n: BASE + n * 8192), st.integers(1, 64)),
                           max_size=3))  # fmt: skip
    return maps(*lines), resident_at(some, gone), snapshot_of(heap(chunks, stacks), regions, 0), natives


Walked = tuple[Counter[int], Counter[tuple[str, int]], Counter[tuple[str, str]], Counter[tuple[int, str]],
               Counter[int], int]  # fmt: skip


def walk(mappings: Mappings, residency: Residency, snapshot: RuntimeSnapshot, natives: list[NativeRange]) -> Walked:
    """Go through the address space OS page by OS page."""
    page_of = {
        address: int(state)
        for start, end, state in zip(*(column.tolist() for column in snapshot.pages.runs()), strict=True)
        for address in range(start, end, OS_PAGE)
    }
    rss = dict(zip(residency.ranges.start.tolist(), residency.rss.tolist(), strict=True))
    swap = dict(zip(residency.ranges.start.tolist(), residency.swap.tolist(), strict=True))
    kinds = mapping_kinds(mappings, None).tolist()
    arenas = [region for region in snapshot.regions if region.what == "arena"]
    owners: list[Region | NativeRange] = [*snapshot.regions, *natives]
    states: Counter[int] = Counter()
    by_kind: Counter[tuple[str, int]] = Counter()
    in_ram: Counter[tuple[str, str]] = Counter()
    by_arena: Counter[tuple[int, str]] = Counter()
    by_page: Counter[int] = Counter()
    owned = {page: one for one in owners for page in range(one.start, one.end, OS_PAGE)}
    unmapped = set(owned)
    for number, (start, end) in enumerate(zip(mappings.start.tolist(), mappings.end.tolist(), strict=True)):
        for page in range(start, end, OS_PAGE):
            unmapped.discard(page)
            owner = owned.get(page)
            readable = bool(mappings.readable[number])
            if owner is None:
                kind, state = KINDS[kinds[number]], NONE
            elif isinstance(owner, NativeRange):
                kind, state = owner.kind, NONE
            elif owner.what == "arena":
                kind, state = owner.kind, RESERVED
                heap_page = page_of.get(page, -1)
                if heap_page >= 0:
                    state = PREPARED if heap_page == PageState.SCAVENGED else READY
                by_page[heap_page] += rss.get(page, 0)
                by_arena[arenas.index(owner), STATE_NAMES[state].lower()] += OS_PAGE
                by_arena[arenas.index(owner), "resident"] += rss.get(page, 0)
            else:
                kind, state = owner.kind, READY if readable else RESERVED
            states[state] += OS_PAGE
            by_kind[kind, state] += OS_PAGE
            in_ram[kind, "resident"] += rss.get(page, 0)
            in_ram[kind, "swap"] += swap.get(page, 0)
    for page, heap_page in page_of.items():
        for at, arena in enumerate(arenas):
            if arena.start <= page < arena.end:
                by_arena[at, PageState(heap_page).name] += OS_PAGE
    return states, by_kind, in_ram, by_arena, by_page, len(unmapped) * OS_PAGE


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_the_join_says_of_every_os_page_what_a_page_by_page_walk_says(
    world: tuple[Mappings, Residency, RuntimeSnapshot, list[NativeRange]],
) -> None:
    mappings, residency, snapshot, natives = world
    states, by_kind, in_ram, by_arena, by_page, unmapped = walk(mappings, residency, snapshot, natives)
    space = join(mappings, residency, snapshot, None, natives)
    assert space.unmapped == unmapped
    virtual = joining.virtual(space, runtime_known=True)
    assert (virtual.reserved, virtual.prepared, virtual.ready, virtual.unmanaged) == tuple(
        states[state] for state in (RESERVED, PREPARED, READY, NONE)
    )
    assert virtual.total == mappings.virtual_bytes == states.total()
    rows = joining.kind_rows(space)
    for row in rows:
        parts = (row.reserved, row.prepared, row.ready)
        assert parts == tuple(by_kind[row.kind, state] for state in (RESERVED, PREPARED, READY))
        assert row.virtual == sum(by_kind[row.kind, state] for state in range(4))
        assert (row.resident, row.swap) == (in_ram[row.kind, "resident"], in_ram[row.kind, "swap"])
    assert {row.kind for row in rows} == {kind for kind, _ in by_kind}
    assert sum(row.resident or 0 for row in rows) == residency.rss_bytes
    for at, arena in enumerate(joining.arena_rows(space, snapshot)):
        for name in ("reserved", "prepared", "ready", "resident"):
            assert getattr(arena, name) == by_arena[at, name]
        uses = (arena.in_use, arena.stacks, arena.work_bufs, arena.free, arena.scavenged)
        assert uses == tuple(by_arena[at, state.name] for state in PageState)
    told = joining.page_residency(space)
    assert (told.in_use, told.stacks, told.work_bufs, told.free, told.scavenged, told.outside) == tuple(
        by_page[state] for state in (*PageState, -1)
    )


@given(worlds())
@settings(max_examples=20, deadline=None)
def test_without_a_runtime_every_byte_is_unmanaged(
    world: tuple[Mappings, Residency, RuntimeSnapshot, list[NativeRange]],
) -> None:
    mappings, residency, _, _ = world
    space = join(mappings, residency, None, None)
    assert (space.bytes_in(NONE), space.unmapped) == (mappings.virtual_bytes, 0)
    virtual = joining.virtual(space, runtime_known=False)
    assert (virtual.total, virtual.reserved, virtual.ready) == (mappings.virtual_bytes, None, None)


NOTHING = resident_at([])
INDEX = Region(META, 8192, "heap_metadata", "heap index", False)
CHUNKS = Region(META + 8192, 5000, "heap_metadata", "persistentalloc chunk")


def ledger(mapped_ready: int, *lines: tuple[int, int, str, str]) -> tuple[AddressSpace, RuntimeSnapshot, Mappings]:
    mappings = maps((META, META + 16384, "rw-p", ""), *lines)
    snapshot = snapshot_of(heap({}), [INDEX, CHUNKS], mapped_ready)
    return join(mappings, NOTHING, snapshot, None), snapshot, mappings


def runtime_other(space: AddressSpace) -> int:
    return sum(row.virtual for row in joining.kind_rows(space) if row.kind == "runtime_other")


def test_ready_bytes_are_accounted_for_with_the_index_and_the_rounding() -> None:
    space, snapshot, _ = ledger(5000)
    account = joining.accounting(space, snapshot)
    assert account is not None
    assert (account.mapped_ready, account.heap_index, account.page_rounding) == (5000, 8192, 3192)
    assert account.unexplained == 0


def test_anonymous_memory_that_the_runtimes_count_lacks_to_the_byte_is_its_own() -> None:
    space, snapshot, _ = ledger(5000 + 3 * OS_PAGE, (0x10000, 0x12000, "rw-p", ""), (0x20000, 0x21000, "rw-p", ""))
    assert runtime_other(space) == 3 * OS_PAGE
    account = joining.accounting(space, snapshot)
    assert account is not None
    assert account.unexplained == 0


def test_where_the_count_lacks_more_or_less_than_is_left_nothing_is_claimed() -> None:
    for lacking in (-OS_PAGE, 0, OS_PAGE, 2 * OS_PAGE, 4 * OS_PAGE):
        space, snapshot, _ = ledger(5000 + lacking, (0x10000, 0x12000, "rw-p", ""), (0x20000, 0x21000, "rw-p", ""))
        assert runtime_other(space) == 0
        account = joining.accounting(space, snapshot)
        assert account is not None
        assert account.unexplained == lacking


def test_memory_that_cannot_be_the_runtimes_is_never_claimed() -> None:
    for flags, name in (("rw-s", ""), ("---p", ""), ("r--p", ""), ("rw-p", "[heap]"), ("rw-p", "[stack]")):
        space, _, _ = ledger(5000 + OS_PAGE, (0x10000, 0x11000, flags, name))
        assert runtime_other(space) == 0


def test_a_run_over_the_border_of_two_arenas_is_counted_in_both() -> None:
    everything = set(range(512))
    pages = heap({BASE: (everything, set()), BASE + CHUNK: (everything, set())})
    regions = [Region(BASE + at * CHUNK, CHUNK, "heap_arena", "arena", False) for at in range(2)]
    snapshot = snapshot_of(pages, regions, 0)
    space = join(maps((BASE, BASE + 2 * CHUNK, "rw-p", "")), NOTHING, snapshot, None)
    assert [arena.in_use for arena in joining.arena_rows(space, snapshot)] == [CHUNK, CHUNK]
