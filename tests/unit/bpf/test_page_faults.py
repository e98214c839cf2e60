from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from gomem.bpf.page_faults import GRANULES, MOST_REGIONS, region_shift

MB, GB = 1 << 20, 1 << 30


def test_the_regions_of_a_small_process_have_64_os_pages() -> None:
    assert 1 << region_shift(0) == 1 << region_shift(500 * MB) == 1 << region_shift(2 * GB) == GRANULES * 4096


@given(st.integers(0, 1 << 46))
@example(274877906945)
def test_twice_what_is_resident_fits_into_half_of_the_map(resident: int) -> None:
    shift = region_shift(resident)
    assert 2 * resident <= MOST_REGIONS // 2 << shift
    assert shift == 18 or 2 * resident > MOST_REGIONS // 2 << (shift - 1)
