from __future__ import annotations

import os
import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.kernel.maps import Mappings, Names, disjoint, parse_maps

SAMPLE = rb"""00400000-00402000 r-xp 00001000 fe:00 264163                             /opt/a b/x (deleted)
c000000000-c000400000 rw-p 00000000 00:00 0                              [anon: Go: heap]
c000400000-c004000000 ---p 00000000 00:00 0 
7f0000000000-7f0000001000 rw-s 12345678000 103:0a 18446744073709551615   /memfd:two\012lines\x (deleted)
7ffd311b7000-7ffd311d8000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_every_column_of_the_kernel_format_is_read() -> None:
    maps = parse_maps(SAMPLE)
    assert maps.start.tolist()[:2] == [0x400000, 0xC000000000]
    assert int(maps.end[-1]) == 0xFFFFFFFFFF601000
    assert maps.readable.tolist() == [True, True, False, True, True, False]
    assert maps.writable.tolist() == [False, True, False, True, True, False]
    assert maps.executable.tolist() == [True, False, False, False, False, True]
    assert maps.shared.tolist() == [False, False, False, True, False, False]
    assert maps.offset.tolist()[:1] == [0x1000]
    assert int(maps.offset[3]) == 0x12345678000
    assert maps.device.tolist()[0] == os.makedev(0xFE, 0)
    assert maps.device.tolist()[3] == os.makedev(0x103, 0x0A)
    assert int(maps.inode[3]) == 2**64 - 1
    assert maps.virtual_bytes == sum((maps.end - maps.start).tolist())


def test_names_keep_spaces_brackets_and_newlines() -> None:
    assert parse_maps(SAMPLE).name == [
        "/opt/a b/x (deleted)",
        "[anon: Go: heap]",
        "",
        "/memfd:two\nlines\\x (deleted)",
        "[stack]",
        "[vsyscall]",
    ]


def test_a_name_that_is_not_utf8_is_still_printable() -> None:
    (name,) = parse_maps(b"1000-2000 r--p 00000000 fe:00 1          /tmp/\xff\xfe\n").name
    assert name == "/tmp/\\xff\\xfe"
    name.encode("utf-8")


def test_a_last_line_cut_short_is_passed_over() -> None:
    assert len(parse_maps(SAMPLE[:-60])) == 5
    assert len(parse_maps(b"")) == 0


def test_find_gives_the_mapping_of_each_address() -> None:
    maps = parse_maps(SAMPLE)
    points = [0x400000, 0x401FFF, 0x402000, 0xC000400000, 0, 2**64 - 1]
    assert maps.find(maps.start[:0]).tolist() == []
    assert maps.find(np.array(points, dtype=np.uint64)).tolist() == [0, 0, -1, 2, -1, -1]
    assert parse_maps(b"").find(np.array(points, dtype=np.uint64)).tolist() == [-1] * 6


def test_disjoint_drops_the_gate_page_and_what_a_merge_shows_twice() -> None:
    torn = parse_maps(
        b"1000-3000 rw-p 00000000 00:00 0 \n"
        b"1000-5000 rw-p 00000000 00:00 0 \n"  # the same mapping, grown between two reads
        b"2000-4000 rw-p 00000000 00:00 0 \n"
        b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    )
    clean = disjoint(torn)
    assert list(zip(clean.start.tolist(), clean.end.tolist(), strict=True)) == [(0x1000, 0x3000), (0x3000, 0x5000)]


@given(st.binary(max_size=400))
def test_no_bytes_make_the_parser_fail(raw: bytes) -> None:
    maps = parse_maps(raw)
    assert len(maps.name) == len(maps)


LINES = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.sampled_from([b"r-xp", b"rw-s", b"---p"]),
        st.integers(0, 2**64 - 1),
        st.tuples(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF)),
        st.integers(0, 2**64 - 1),
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), max_size=20),
    ),
    max_size=8,
)


@given(LINES)
def test_what_the_kernel_prints_is_what_is_read(
    lines: list[tuple[int, int, bytes, int, tuple[int, int], int, str]],
) -> None:
    raw = b"".join(
        b"%08x-%08x %s %08x %02x:%02x %d %s\n"
        % (start, end, flags, offset, *device, inode, b"                    " + name.encode() if name else b"")
        for start, end, flags, offset, device, inode, name in lines
    )
    maps: Mappings = parse_maps(raw)
    assert maps.start.tolist() == [line[0] for line in lines]
    assert maps.end.tolist() == [line[1] for line in lines]
    assert maps.writable.tolist() == [line[2][1:2] == b"w" for line in lines]
    assert maps.offset.tolist() == [line[3] for line in lines]
    assert maps.device.tolist() == [os.makedev(*line[4]) for line in lines]
    assert maps.inode.tolist() == [line[5] for line in lines]
    assert maps.name == [line[6].lstrip(" ").replace("\\012", "\n") for line in lines]


def test_a_hundred_thousand_mappings_do_not_take_quadratic_time() -> None:
    raw = b"".join(
        b"%012x-%012x rw-p 00000000 fe:00 %-26d%s\n"
        % (0x7F0000000000 + row * 8192, 0x7F0000000000 + row * 8192 + 4096, row, b"" if row % 3 else b"/x/%d" % row)
        for row in range(100_000)
    )
    began = time.process_time()
    assert len(parse_maps(raw)) == 100_000
    assert time.process_time() - began < 3


def test_names_are_kept_once_and_beyond_their_room_in_part_only() -> None:
    names = Names(held=10)
    assert names.of(b"/bin/a") is names.of(b"/bin/a")
    long = b"/" + b"x" * 500
    assert names.of(long) == "..." + "x" * 64
    assert names.of(b"/b/c") == "/b/c"
    assert names.of(b"/") == ".../"
