from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.errors import SnapshotError
from gomem.tracer.runtime.structs import Record, Slice, read_record
from tests.support.runtime_image import RuntimeImage

WORDS = st.integers(0, (1 << 64) - 1)


@given(st.binary(min_size=160, max_size=160))
def test_numbers_have_their_fields_own_width(raw: bytes) -> None:
    record = Record(RuntimeImage().layout, "mspan", 0x1000, raw)
    assert record.number("npages") == struct.unpack_from("<Q", raw, 32)[0]
    assert record.number("nelems") == struct.unpack_from("<H", raw, 50)[0]
    assert record.number("state") == raw[99]
    assert record.number("sweepgen", signed=True) == struct.unpack_from("<i", raw, 88)[0]
    assert (record.has("state"), record.has("nothing")) == (True, False)


@given(WORDS, WORDS, WORDS)
def test_a_slice_is_one_or_is_refused(address: int, length: int, capacity: int) -> None:
    runtime = RuntimeImage()
    at = runtime.globals["mheap_"] + runtime.layout.offset("mheap", "allspans")
    runtime.image.words(at, address, length, capacity)
    record = runtime.record("mheap_")
    if length <= capacity <= 1 << 48:
        assert record.slice("allspans") == Slice(address, length, capacity)
    else:
        with pytest.raises(SnapshotError):
            record.slice("allspans")


def test_bytes_beyond_what_was_read_are_refused() -> None:
    record = Record(RuntimeImage().layout, "mspan", 0x1000, bytes(100))
    assert record.bytes_at(92, 8) == bytes(8)
    with pytest.raises(SnapshotError, match="beyond"):
        record.bytes_at(93, 8)
    with pytest.raises(SnapshotError, match="beyond"):
        record.number("elemsize")


@pytest.mark.parametrize("address", [0, 1 << 63, (1 << 64) - 1, 1 << 70, -8, 0x5000])
def test_a_struct_where_no_memory_is_is_refused(address: int) -> None:
    runtime = RuntimeImage()
    with pytest.raises(SnapshotError):
        read_record(runtime.image, runtime.layout, "mspan", address)
