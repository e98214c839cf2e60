"""A look as a map: every page has what the runtime and the kernel say of it, and all sums are the report's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gomem.tracer.kernel.residency import Page
from gomem.tracer.report.memory_map import MemoryMap, PageBits, PageUse
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.snapshot.join import NOT_GROWN, join
from gomem.tracer.snapshot.memory_map import memory_map
from tests.support import looks
from tests.support.looks import OS_PAGE
from tests.support.runtime_image import PAGE
from tests.support.samples.maps import seen, with_residency

PAGES = looks.ARENA_BYTES // PAGE
RESIDENT = PageBits.FIRST_RESIDENT | PageBits.SECOND_RESIDENT


def resident_by_use(shown: MemoryMap) -> list[int]:
    use, halves = shown.pages & 7, ((shown.pages >> 3) & 1) + ((shown.pages >> 4) & 1)
    return [int(halves[use == each].sum()) * OS_PAGE for each in PageUse]


def test_uses_of_pages_are_numbered_as_the_runtimes_states() -> None:
    assert [use.name for use in PageUse][:5] == [state.name for state in PageState]
    assert [use.value for use in PageUse][:5] == [state.value for state in PageState]


def test_pages_spans_and_sums_are_those_of_the_report() -> None:
    report, picture = seen()
    shown = picture.moments[-1].map
    assert report.heap is not None
    assert report.resident is not None
    counts = np.bincount(shown.pages & 7, minlength=6)
    pages = report.heap.pages
    assert (counts[:5] * PAGE).tolist() == [
        pages.in_use, pages.stacks, pages.work_bufs, pages.free, pages.scavenged]  # fmt: skip
    assert counts.sum() == PAGES
    told = report.heap.resident
    assert resident_by_use(shown) == [
        told.in_use, told.stacks, told.work_bufs, told.free, told.scavenged, told.outside]  # fmt: skip
    assert int(shown.arenas.resident.sum() + shown.areas.resident.sum()) == report.resident.total
    assert sum(held.resident for held in picture.holders) == report.resident.total
    objects = shown.spans.manual == 0
    assert report.spans is not None
    assert int(shown.spans.objects[objects].sum()) == sum(row.objects for row in report.spans)
    assert int(shown.spans.pages[objects].sum()) == sum(row.pages for row in report.spans)
    assert shown.spans_outside == shown.pages_left_out == 0


def test_a_page_has_the_bits_of_its_halves() -> None:
    present, gone, huge = int(Page.PRESENT), int(Page.SWAPPED), int(Page.PRESENT | Page.HUGE)
    ranges = [(0, 3, present), (5, 1, present), (6, 3, gone), (16, 4, huge)]
    pages = memory_map(with_residency(looks.look(), ranges)).pages
    first, second = PageBits.FIRST_RESIDENT, PageBits.SECOND_RESIDENT
    bits = [int(page) & ~7 for page in pages[:11]]
    gone_first, gone_second = PageBits.FIRST_SWAPPED, PageBits.SECOND_SWAPPED
    assert bits[:5] == [first | second, first, second, gone_first | gone_second, gone_first]
    assert bits[5:8] == [0, 0, 0]
    assert bits[8:11] == [RESIDENT | PageBits.HUGE, RESIDENT | PageBits.HUGE, 0]


def test_without_page_residency_no_page_is_told_and_sums_still_are() -> None:
    look = looks.look()
    coarse = replace(look.kernel.residency, method="smaps", exact=False)
    shown = memory_map(replace(look, kernel=replace(look.kernel, residency=coarse)))
    assert not shown.page_residency
    assert not np.any(shown.pages & ~np.uint8(7))
    assert int(shown.arenas.resident.sum()) == 20 * PAGE


def test_without_the_runtime_there_are_areas_only() -> None:
    look = looks.look()
    blind = replace(look, runtime=None, space=join(look.kernel.mappings, look.kernel.residency, None, None))
    shown = memory_map(blind)
    assert len(shown.pages) == len(shown.arenas.base) == len(shown.spans.first) == 0
    assert int(shown.areas.resident.sum()) == look.kernel.residency.rss_bytes


def test_what_the_runtime_owns_is_named_by_what_it_is_for() -> None:
    shown = memory_map(looks.look())
    named = {shown.areas.names[name] for name in shown.areas.name.tolist()}
    assert {"/srv/program", "[stack]"} <= named


@given(st.lists(st.tuples(st.integers(0, 1100), st.integers(1, 40), st.booleans()), max_size=20))
@settings(max_examples=60)
def test_residency_sums_are_exact_whatever_is_in_ram(ranges: list[tuple[int, int, bool]]) -> None:
    told: list[tuple[int, int, int]] = []
    end = 0
    for first, count, present in sorted(ranges):
        begin = max(first, end)
        if begin < first + count:
            told.append((begin, first + count - begin, int(Page.PRESENT if present else Page.SWAPPED)))
            end = first + count
    look = with_residency(looks.look(), told)
    shown = memory_map(look)
    for use, resident in zip(PageUse, resident_by_use(shown), strict=True):
        page = NOT_GROWN if use is PageUse.NOT_GROWN else use
        assert resident == int(look.space.resident[look.space.page == page].sum())
    swapped = ((shown.pages >> 5) & 1).astype(int) + ((shown.pages >> 6) & 1)
    assert int(swapped.sum()) * OS_PAGE == int(look.space.swap[look.space.arena >= 0].sum())
