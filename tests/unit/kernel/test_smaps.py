from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.errors import TooLarge
from gomem.tracer.kernel import smaps
from gomem.tracer.kernel.smaps import parse_rollup, parse_smaps, read_smaps
from gomem.tracer.machine.room import Room
from gomem.tracer.process.target import Target

ROLLUP = b"""00400000-7ffd311b9000 ---p 00000000 00:00 0                              [rollup]
Rss:               27236 kB
Pss:               23310 kB
Pss_Anon:          14428 kB
Anonymous:         14428 kB
LazyFree:             12 kB
Swap:                  0 kB
SwapPss:       what kB
"""
SMAPS = b"""00400000-00402000 rw-p 00001000 fe:00 26                                 /tmp/Rss:  99 kB
Size:                  8 kB
Rss:                   4 kB
Swap:                  8 kB
Pss_Dirty:             1 kB
VmFlags: rd wr mr mw me ac
7f0000000000-7f0000200000 rw-s 00000000 00:10 77                         /anon_hugepage (deleted)
Rss:                   0 kB
Private_Hugetlb:    2048 kB
VmFlags: rd wr sh mr mw me ms de ht
7ffd00000000-7ffd00001000 r--p 00000000 00:00 0                          [vvar]
Rss:                   0 kB
VmFlags: rd mr pf io de dd
"""


def test_rollup_is_in_bytes_and_a_missing_or_odd_line_is_none() -> None:
    rollup = parse_rollup(ROLLUP)
    assert (rollup.rss, rollup.pss, rollup.pss_anon) == (27236 << 10, 23310 << 10, 14428 << 10)
    assert (rollup.anonymous, rollup.lazy_free, rollup.swap) == (14428 << 10, 12 << 10, 0)
    assert (rollup.swap_pss, rollup.pss_shmem, rollup.locked) == (None, None, None)


def test_smaps_rows_know_reserved_huge_pages_and_page_frames() -> None:
    smaps = parse_smaps(SMAPS)
    assert smaps.start.tolist() == [0x400000, 0x7F0000000000, 0x7FFD00000000]
    assert smaps.column("Rss").tolist() == [4096, 0, 0]
    assert smaps.column("Swap").tolist() == [8192, 0, 0]
    assert smaps.column("Pss_Anon").tolist() == [0, 0, 0]
    assert smaps.hugetlb.tolist() == [False, True, False]
    assert smaps.special.tolist() == [False, False, True]


def test_rows_add_up_to_a_rollup() -> None:
    rollup = parse_smaps(SMAPS).rollup()
    assert (rollup.rss, rollup.swap, rollup.private_hugetlb, rollup.pss) == (4096, 8192, 2048 << 10, None)


@given(st.binary(max_size=300), st.integers(0, len(SMAPS)))
def test_no_bytes_make_the_parsers_fail(raw: bytes, cut: int) -> None:
    parse_rollup(raw)
    parse_smaps(raw)
    parse_smaps(SMAPS[:cut] + raw)


class _Mapped:
    """Gives smaps of so many mappings, piece by piece; counts the pieces."""

    pid = 4711

    def __init__(self, mappings: int) -> None:
        self.read = 0
        one = "{:x}-{:x} rw-p 00000000 00:00 0\nSize: 4 kB\nRss: 4 kB\nVmFlags: rd wr\n"
        rows = [one.format(at << 13, (at << 13) + 4096) for at in range(1, mappings + 1)]
        self._pieces = ["".join(rows[at : at + 100]).encode() for at in range(0, mappings, 100)]

    def read_pieces(self, name: str, size: int) -> Iterator[bytes]:
        for piece in self._pieces:
            self.read += 1
            yield piece


def test_mappings_beyond_our_room_are_given_up_and_not_read_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smaps, "room_for_one", lambda: Room(1000 * smaps._ROW_HELD))
    few, many = _Mapped(900), _Mapped(100_000)
    assert len(read_smaps(cast(Target, few)).start) == 900
    with pytest.raises(TooLarge, match="mappings"):
        read_smaps(cast(Target, many))
    assert many.read < 20
