"""Runs of free pages are those that one page after the other gives, and no run goes over a gap."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.machine.room import Room
from gomem.tracer.runtime.free_runs import FreeRuns, free_runs
from gomem.tracer.runtime.pages import CHUNK_BYTES, Chunks, PageCache, page_states
from tests.support.runtime_image import ARENA, PAGE, bitmap

NONE = np.zeros((0, 2), np.uint64)


def found(chunks: dict[int, set[int]], scavenged: set[int] | None = None, cache: PageCache | None = None) -> FreeRuns:
    """The runs of chunks at these places, each with these pages allocated; `scavenged` are those of the first."""
    bases = np.array([ARENA + at * CHUNK_BYTES for at in chunks], np.uint64)
    bits = [np.frombuffer(bitmap(pages), "<u8") for pages in chunks.values()]
    gone = [np.frombuffer(bitmap(scavenged or ()), "<u8"), *[np.zeros(8, np.uint64)] * (len(chunks) - 1)]
    read = Chunks(bases, np.array(bits), np.array(gone))
    caches = [cache] if cache is not None else []
    states = page_states(read, caches, NONE, NONE, Room(1 << 30))
    return free_runs(states, read, cache.free.bit_count() if cache is not None else 0)


def one_by_one(chunks: dict[int, set[int]]) -> list[int]:
    """The lengths of all runs, ascending, found page by page."""
    runs, length, last = [], 0, None
    for at, allocated in chunks.items():
        if last is not None and at != last + 1:
            runs.append(length)
            length = 0
        for page in range(512):
            if page in allocated:
                runs.append(length)
                length = 0
            else:
                length += 1
        last = at
    return sorted(run for run in [*runs, length] if run)


edges = st.lists(st.integers(0, 511), max_size=12).map(sorted)
pages = edges.map(lambda cut: {at for low, high in zip(cut[::2], cut[1::2], strict=False) for at in range(low, high)})


@given(st.dictionaries(st.integers(0, 9), pages, min_size=1, max_size=6).map(lambda all: dict(sorted(all.items()))))
def test_runs_are_those_that_are_found_page_by_page(chunks: dict[int, set[int]]) -> None:
    runs, told = one_by_one(chunks), found(chunks)
    assert told.longest == max(runs, default=0)
    for power, (count, size) in enumerate(zip(told.runs.tolist(), told.pages.tolist(), strict=True)):
        members = [run for run in runs if 1 << power <= run < 2 << power]
        assert (count, size) == (len(members), sum(members))
    assert int(told.runs.sum()) == len(runs)
    assert told.padding == 0


def test_scavenged_pages_are_free_pages_like_others() -> None:
    told = found({0: set(range(100))}, scavenged=set(range(200, 300)))
    assert (told.longest, told.runs.tolist()) == (412, [0] * 8 + [1])


def test_what_a_p_took_aside_is_in_no_run() -> None:
    cached = PageCache(ARENA + 64 * PAGE, 0b1111, 0b0011)
    told = found({0: set(range(64, 128))}, cache=cached)
    assert (told.longest, told.cached, told.padding) == (384, 4, 0)
    assert int(told.pages.sum()) == 512 - 64


def test_what_is_allocated_and_scavenged_is_padding() -> None:
    told = found({0: set(range(40))}, scavenged=set(range(10)))
    assert (told.longest, told.padding) == (472, 10)


def test_a_heap_without_chunks_has_no_runs() -> None:
    empty = np.zeros((0, 8), np.uint64)
    read = Chunks(np.zeros(0, np.uint64), empty, empty)
    told = free_runs(page_states(read, [], NONE, NONE, Room(1 << 20)), read, 0)
    assert (told.runs.tolist(), told.longest) == ([], 0)
