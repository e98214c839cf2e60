"""Entry decoding; the system calls are tried on real processes in tests/live."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.addresses.ranges import normalise
from gomem.tracer.kernel import pagemap
from gomem.tracer.kernel.pagemap import read_entries
from gomem.tracer.kernel.residency import Page
from gomem.tracer.machine.room import Room

PAGE = os.sysconf("SC_PAGESIZE")
# Page frame 0 is reserved on every machine: never the zero page.
ENTRIES = {
    0: 0,
    1 << 63 | 1 << 56: int(Page.PRESENT),
    1 << 63 | 1 << 56 | 1 << 61: int(Page.PRESENT | Page.FILE),
    1 << 62 | 5: int(Page.SWAPPED),
    1 << 62 | 1 << 58: 0,  # a guard page looks like a swapped one
    1 << 61: 0,
}


@given(st.lists(st.sampled_from(sorted(ENTRIES)), max_size=30), st.integers(0, 5))
def test_entries_become_runs_of_equal_pages(entries: list[int], first: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(np.array([0] * first + entries, dtype="<u8").tobytes())
        file.flush()
        ranges, flags, exact = read_entries(file.fileno(), normalise([first * PAGE], [(first + len(entries)) * PAGE]))
    assert exact
    pages = {
        page: flag
        for low, high, flag in zip(ranges.start.tolist(), ranges.end.tolist(), flags.tolist(), strict=True)
        for page in range(low // PAGE, high // PAGE)
    }
    assert pages == {first + row: ENTRIES[entry] for row, entry in enumerate(entries) if ENTRIES[entry]}


def test_reading_ends_where_the_file_ends() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(np.array([1 << 63 | 1 << 56] * 3, dtype="<u8").tobytes())
        file.flush()
        ranges, _, _ = read_entries(file.fileno(), normalise([0], [2**47]))
    assert ranges.bytes == 3 * PAGE


def test_no_more_ranges_are_held_than_there_is_room_for_however_many_pages_differ_from_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = 50_000
    monkeypatch.setattr(pagemap, "room_for_one", lambda: Room(many * pagemap._RANGE_HELD))
    present, swapped = 1 << 63 | 1 << 56, 1 << 62 | 5
    with tempfile.TemporaryFile() as file:
        file.write(np.array([present, swapped] * (many // 2) + [present], dtype="<u8").tobytes())
        file.flush()
        held, _, _ = read_entries(file.fileno(), normalise([0], [many * PAGE]))
        assert len(held.start) == many
        with pytest.raises(pagemap._TooManyRanges):
            read_entries(file.fileno(), normalise([0], [(many + 1) * PAGE]))
