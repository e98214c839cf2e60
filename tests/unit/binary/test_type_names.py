"""Names of types as the compiler writes them; and what a lying target may write."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.binary.type_names import MOST_NAME, TYPE_BYTES, decode_name, name_offset


def type_of(offset: int, flags: int) -> bytes:
    return struct.pack("<QQIBBBBQQii", 24, 8, 0xDEADBEEF, flags, 8, 8, 25, 0, 0, offset, 0)


def name_of(text: bytes, *, in_two: bool = False) -> bytes:
    if in_two:
        return b"\x01" + len(text).to_bytes(2, "big") + text
    length, packed = len(text), b""
    while length > 127:
        packed += bytes([length & 127 | 128])
        length >>= 7
    return b"\x01" + packed + bytes([length]) + text


def test_a_type_says_where_its_name_is_and_whether_a_star_is_in_front() -> None:
    assert len(type_of(0, 0)) == TYPE_BYTES
    assert name_offset(type_of(1234, 0b0011)) == (1234, True)
    assert name_offset(type_of(-5, 0b0101)) == (-5, False)


@pytest.mark.parametrize("in_two", [False, True])
@pytest.mark.parametrize("text", ["main.node", "*main.node", "map[string]struct { " + "x int; " * 20 + "}", "ü"])
def test_a_name_is_what_was_written(text: str, in_two: bool) -> None:
    raw = name_of(text.encode(), in_two=in_two) + b"rest"
    assert decode_name(raw, extra_star=False, counted_in_two=in_two) == text
    assert decode_name(raw, extra_star=True, counted_in_two=in_two) == text[1:] or text == "ü"


def test_a_long_name_is_cut() -> None:
    text = b"struct { " + b"field int; " * 100_000
    name = decode_name(name_of(text)[: 5 + MOST_NAME], extra_star=False)
    assert name is not None
    assert name == text[:MOST_NAME].decode() + "..."


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x01\x00", b"\x01\x05abc", b"\x01" + b"\xff" * 20, b"\x01\x01"])
def test_what_is_no_name_is_none(raw: bytes) -> None:
    assert decode_name(raw, extra_star=False) is None


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_nothing_that_a_target_writes_fails(raw: bytes, star: bool, in_two: bool) -> None:
    name = decode_name(raw, extra_star=star, counted_in_two=in_two)
    assert name is None or len(name) <= MOST_NAME + 3
