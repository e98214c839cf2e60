from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.addresses.ranges import Ranges, normalise
from gomem.tracer.kernel.maps import parse_maps
from gomem.tracer.kernel.residency import Page, Residency, classify
from tests.support.pages import having

MAPS = parse_maps(
    b"00010000-00020000 rw-p 00000000 00:00 0 \n"
    b"00020000-00030000 rw-s 00000000 00:01 9                                  /dev/gpu\n"
    b"00030000-00032000 r--p 00000000 00:00 0                                  [vvar]\n"
    b"00400000-00800000 rw-s 00000000 00:10 5                                  /anon_hugepage (deleted)\n"
)
NONE = normalise([], [])
PRESENT, FILE, ZERO, SWAPPED = Page.PRESENT, Page.FILE, Page.ZERO, Page.SWAPPED


def judge(*found: tuple[int, int, Page], hugetlb: Ranges = NONE) -> Residency:
    ranges = Ranges(
        np.array([low for low, _, _ in found], dtype=np.uint64),
        np.array([high for _, high, _ in found], dtype=np.uint64),
    )
    flags = np.array([flag for _, _, flag in found], dtype=np.uint8)
    return classify(ranges, flags, MAPS, hugetlb, "pagemap_scan", exact=True)


def test_ordinary_pages_count_and_the_zero_page_does_not() -> None:
    found = judge((0x10000, 0x12000, PRESENT), (0x12000, 0x13000, PRESENT | ZERO), (0x13000, 0x14000, SWAPPED))
    assert (found.rss_bytes, int(found.swap.sum()), having(found, ZERO).bytes) == (0x2000, 0x1000, 0x1000)
    assert found.resident().end.tolist() == [0x12000]


def test_a_range_over_two_mappings_is_cut_and_each_part_judged_by_its_own() -> None:
    found = judge((0x1F000, 0x31000, PRESENT))
    assert found.ranges.start.tolist() == [0x1F000, 0x20000, 0x30000]
    # private memory counts; frames of a device and the kernel's own data do not
    assert found.rss.tolist() == [0x1000, 0, 0]
    assert having(found, Page.SPECIAL).bytes == 0x11000


def test_data_of_the_kernel_counts_where_it_is_in_pages_like_those_of_a_file() -> None:
    found = judge((0x30000, 0x31000, PRESENT | FILE), (0x31000, 0x32000, PRESENT))
    assert found.rss.tolist() == [0x1000, 0]  # as [vvar] is on Linux 7.2
    assert having(found, Page.SPECIAL).start.tolist() == [0x31000]


def test_pages_of_a_file_in_a_shared_mapping_count() -> None:
    assert judge((0x20000, 0x24000, PRESENT | FILE)).rss_bytes == 0x4000


def test_reserved_huge_pages_are_kept_out_of_rss() -> None:
    huge = PRESENT | FILE | Page.HUGE
    found = judge((0x400000, 0x600000, huge), hugetlb=normalise([0x400000], [0x800000]))
    assert (found.rss_bytes, having(found, Page.HUGETLB).bytes) == (0, 0x200000)
    assert judge((0x400000, 0x600000, huge)).rss_bytes == 0x200000


def test_pages_outside_every_mapping_are_counted_apart() -> None:
    found = judge((0x31000, 0x40000, PRESENT | FILE), (0x900000, 0x901000, SWAPPED))
    assert found.unmapped_bytes == 0xE000
    assert int(found.swap.sum()) == 0


def test_rss_in_parts_adds_up_to_the_whole() -> None:
    found = judge((0x10000, 0x12000, PRESENT), (0x14000, 0x15000, PRESENT))
    assert found.rss_in([0x10000, 0x11000, 0x16000], [0x20000, 0x14800, 0x20000]).tolist() == [0x3000, 0x1800, 0]


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(0, 64)), min_size=1, max_size=6), st.data())
def test_estimates_from_smaps_still_sum_to_the_byte(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    sizes = np.array([size * 4096 for size, _ in rows], dtype=np.uint64)
    end = np.cumsum(sizes, dtype=np.uint64)
    rss = np.array([min(size, used) * 4096 for size, used in rows], dtype=np.uint64)
    ranges = Ranges(end - sizes, end)
    found = Residency(ranges, np.ones(len(rows), dtype=np.uint8), rss, rss * 0, "smaps", exact=False)
    assert found.rss_in(ranges.start, ranges.end).tolist() == rss.tolist()
    cuts = sorted({0, int(end[-1]), *data.draw(st.lists(st.integers(0, int(end[-1])), max_size=8))})
    assert int(found.rss_in(cuts[:-1], cuts[1:]).sum()) == found.rss_bytes
