from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.errors import SnapshotError
from gomem.tracer.machine.room import Room
from gomem.tracer.runtime.pages import (
    CHANGE_HELD,
    CHUNK_HELD,
    Chunks,
    HeapPages,
    PageCache,
    PageState,
    page_states,
    read_chunks,
)
from tests.support.runtime_image import ARENA, CHUNK, PAGE, RuntimeImage, bitmap

IN_USE, STACK, WORK_BUF, FREE, SCAVENGED = PageState
NONE = np.zeros((0, 2), np.uint64)
ROOM = Room(1 << 40)


def chunks_of(runtime: RuntimeImage) -> Chunks:
    return read_chunks(runtime.image, runtime.layout, runtime.finish().record("mheap_"))


def extents(*spans: tuple[int, int]) -> np.ndarray:
    return np.array(spans, np.uint64).reshape(-1, 2)


def states(*chunks: tuple[int, list[int], list[int]]) -> Chunks:
    def words(pages: list[int]) -> np.ndarray:
        return np.frombuffer(bitmap(pages), "<u8")

    return Chunks(
        np.array([base for base, _, _ in chunks], np.uint64),
        np.array([words(used) for _, used, _ in chunks]).reshape(-1, 8),
        np.array([words(gone) for _, _, gone in chunks]).reshape(-1, 8),
    )


def told(pages: HeapPages) -> list[tuple[int, int, PageState]]:
    return [(int(start), int(end), PageState(state)) for start, end, state in zip(*pages.runs(), strict=True)]


@pytest.mark.parametrize("release", ["1.19.8", "1.27.3"])
def test_chunks_are_read_across_gaps_and_across_second_level_tables(release: str) -> None:
    runtime = RuntimeImage(release)
    # Chunk 8192 * k begins a new second level table of 32 GB.
    border = 0x8000000000
    runtime.grow(ARENA - 64 * CHUNK, [[5]], [[6]])
    runtime.grow(border - CHUNK, [[0, 1], [511]], [[], [510]])
    runtime.ranges.sort()
    chunks = chunks_of(runtime)
    assert chunks.base.tolist() == [border - CHUNK, border, ARENA - 64 * CHUNK]
    assert chunks.allocated.tolist() == [[3, *[0] * 7], [*[0] * 7, 1 << 63], [32, *[0] * 7]]
    assert chunks.scavenged.tolist() == [[0] * 8, [*[0] * 7, 1 << 62], [64, *[0] * 7]]


def test_a_heap_that_has_not_grown_has_no_pages() -> None:
    chunks = chunks_of(RuntimeImage())
    pages = page_states(chunks, [PageCache(ARENA, 1, 1)], extents((ARENA, 4)), NONE, ROOM)
    assert (len(chunks.base), told(pages), pages.bytes_of(IN_USE)) == (0, [], 0)


@pytest.mark.parametrize(
    "ranges",
    [
        [(ARENA + CHUNK, ARENA)],
        [(ARENA + 1, ARENA + CHUNK)],
        [(ARENA, ARENA + CHUNK + PAGE)],
        [(ARENA + CHUNK, ARENA + 2 * CHUNK), (ARENA, ARENA + CHUNK)],
        [(ARENA, ARENA + 2 * CHUNK), (ARENA + CHUNK, ARENA + 3 * CHUNK)],
        [(1 << 57, (1 << 57) + CHUNK)],
        [(ARENA, ARENA + (1 << 42))],
        [(1 << 47, (1 << 47) + CHUNK)],  # the first chunk behind the table
        [(1 << 56, (1 << 56) + CHUNK)],
        [(ARENA + (1 << 40), ARENA + (1 << 40) + CHUNK)],  # no second level table
    ],
)  # fmt: skip
def test_ranges_that_no_heap_has_are_refused(ranges: list[tuple[int, int]]) -> None:
    runtime = RuntimeImage()
    runtime.ranges = ranges
    with pytest.raises(SnapshotError):
        chunks_of(runtime)


def test_more_ranges_than_a_heap_has_are_not_read() -> None:
    runtime = RuntimeImage().finish()
    at = runtime.globals["mheap_"] + runtime.layout.offset("mheap", "pages.inUse.ranges")
    runtime.image.words(at + 8, 1 << 40, 1 << 40)
    with pytest.raises(SnapshotError, match="address ranges"):
        read_chunks(runtime.image, runtime.layout, runtime.record("mheap_"))


def test_each_page_has_one_state() -> None:
    chunks = states((ARENA, [0, 1, 2, 3, 4], [6, 7]))
    pages = page_states(chunks, [], extents((ARENA + PAGE, 2)), extents((ARENA + 3 * PAGE, 1)), ROOM)
    assert pages.state[:9].tolist() == [IN_USE, STACK, STACK, WORK_BUF, IN_USE, FREE, SCAVENGED, SCAVENGED, FREE]
    assert [pages.bytes_of(state) // PAGE for state in PageState] == [2, 2, 1, 505, 2]


def test_padding_pages_that_are_allocated_and_scavenged_count_as_scavenged() -> None:
    pages = page_states(states((ARENA, [0, 1, 2], [0, 1])), [], NONE, NONE, ROOM)
    assert pages.state[:4].tolist() == [SCAVENGED, SCAVENGED, IN_USE, FREE]


def test_pages_in_a_page_cache_are_free_although_the_bitmaps_call_them_allocated() -> None:
    chunks = states((ARENA, list(range(64)), []))
    pages = page_states(chunks, [PageCache(ARENA, 0b1011, 0b1110)], NONE, NONE, ROOM)
    # page 2 was handed out: its scavenged bit means nothing any more
    assert pages.state[:5].tolist() == [FREE, SCAVENGED, IN_USE, SCAVENGED, IN_USE]


def test_a_page_cache_of_a_chunk_that_was_not_read_changes_nothing() -> None:
    chunks = states((ARENA, list(range(512)), []))
    for base in (0, ARENA - 64 * PAGE, ARENA + CHUNK, (1 << 64) - PAGE, 1 << 63):
        assert page_states(chunks, [PageCache(base, (1 << 64) - 1, 0)], NONE, NONE, ROOM).bytes_of(IN_USE) == CHUNK
    straddling = PageCache(ARENA + CHUNK - 2 * PAGE, (1 << 64) - 1, 0)
    assert page_states(chunks, [straddling], NONE, NONE, ROOM).bytes_of(FREE) == 2 * PAGE


def test_runs_do_not_reach_over_a_gap_between_chunks() -> None:
    used = list(range(512))
    pages = page_states(states((ARENA, used, []), (ARENA + 2 * CHUNK, used, []), (ARENA + 3 * CHUNK, used, [])), [],
                        NONE, NONE, ROOM)  # fmt: skip
    assert told(pages) == [(ARENA, ARENA + CHUNK, IN_USE), (ARENA + 2 * CHUNK, ARENA + 4 * CHUNK, IN_USE)]


def test_manual_spans_are_painted_wherever_they_lie_and_cannot_leave_the_heap() -> None:
    used = list(range(512))
    chunks = states((ARENA, used, []), (ARENA + CHUNK, used, []))
    spans = extents(
        (ARENA + 510 * PAGE, 4), (ARENA + 511 * PAGE, 1),  # over the chunks' border; the second lies in the first
        (ARENA + CHUNK + 500 * PAGE, 1 << 63), (0, 1 << 40), ((1 << 64) - PAGE, 1), (1 << 63, 1),
    )  # fmt: skip
    pages = page_states(chunks, [], spans, NONE, ROOM)
    assert told(pages)[1::2] == [
        (ARENA + 510 * PAGE, ARENA + CHUNK + 2 * PAGE, STACK),
        (ARENA + CHUNK + 500 * PAGE, ARENA + 2 * CHUNK, STACK),
    ]


def test_a_heap_that_claims_more_changes_than_we_have_room_for_is_refused() -> None:
    few = Room(300 * CHANGE_HELD)
    assert len(told(page_states(states((ARENA, list(range(0, 300, 2)), [])), [], NONE, NONE, few))) == 300
    few.give_back()
    with pytest.raises(SnapshotError, match="runs of heap pages"):
        page_states(states((ARENA, list(range(0, 512, 2)), [])), [], NONE, NONE, few)


def test_stacks_of_all_of_a_large_heap_take_no_more_than_a_few_bytes_a_page() -> None:
    chunks = states(*((ARENA + number * CHUNK, list(range(512)), []) for number in range(256)))
    spans = extents((ARENA, 256 * 512))
    tracemalloc.start()
    try:
        assert page_states(chunks, [], spans, NONE, ROOM).bytes_of(STACK) == 256 * CHUNK
        assert tracemalloc.get_traced_memory()[1] < 256 * CHUNK_HELD * 2
    finally:
        tracemalloc.stop()


pages_of_a_chunk = st.lists(st.integers(0, 511), max_size=40)


@given(
    st.lists(st.tuples(st.integers(0, 6), pages_of_a_chunk, pages_of_a_chunk), max_size=4, unique_by=lambda c: c[0]),
    st.lists(st.tuples(st.integers(-100, 4000), st.integers(0, 700)), max_size=4),
    st.integers(0, 4000),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 64) - 1),
)
def test_runs_say_of_every_page_what_a_page_by_page_walk_says(
    grown: list[tuple[int, list[int], list[int]]], stacks: list[tuple[int, int]], at: int, free: int, scavenged: int
) -> None:
    grown.sort()
    expected: dict[int, PageState] = {}
    for number, used, gone in grown:
        for page in range(512):
            state = SCAVENGED if page in gone else IN_USE if page in used else FREE
            expected[ARENA + number * CHUNK + page * PAGE] = state
    order = sorted(expected)
    for start, count in stacks:
        # A span covers what follows its first page, as far as the heap has grown there.
        first = ARENA + start * PAGE
        for address in order[order.index(first) :][:count] if first in expected else ():
            if expected[address] is IN_USE:
                expected[address] = STACK
    for bit in range(64):
        address = ARENA + (at + bit) * PAGE
        if free >> bit & 1 and address in expected:
            expected[address] = SCAVENGED if scavenged >> bit & 1 else FREE
    chunks = states(*((ARENA + number * CHUNK, used, gone) for number, used, gone in grown))
    spans = extents(*((ARENA + start * PAGE, count) for start, count in stacks))
    pages = page_states(chunks, [PageCache(ARENA + at * PAGE, free, scavenged)], spans, NONE, ROOM)
    seen = {address: state for start, end, state in told(pages) for address in range(start, end, PAGE)}
    assert seen == expected
    ends = [(end, state) for _, end, state in told(pages)]
    assert not {(start, state) for start, _, state in told(pages)} & set(ends), "two runs should be one"
