from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.binary.pc_values import NO_VALUE, decode
from tests.support.samples.executables import varint

# (bytes of code, value) of runs of instructions; neighbours differ, as the compiler writes it, by what an int32 holds.
runs_strategy = st.lists(
    st.tuples(st.integers(1, 1 << 20), st.integers(-1, (1 << 31) - 2)), min_size=1, max_size=40
).map(lambda runs: [run for at, run in enumerate(runs) if at == 0 or run[1] != runs[at - 1][1]])


def encode(runs: list[tuple[int, int]]) -> bytes:
    """Encode a table as cmd/internal/obj/pcln.go does: zigzag differences of values, then steps of code."""
    out, before = bytearray(), -1
    for size, value in runs:
        delta = value - before
        out += varint(((delta << 1) ^ (delta >> 63)) & 0xFFFFFFFF) + varint(size)
        before = value
    return bytes(out) + b"\0"


@given(runs=runs_strategy, quantum=st.sampled_from([1, 2, 4]), behind=st.binary(max_size=8))
def test_every_instruction_has_the_value_that_was_encoded(
    runs: list[tuple[int, int]], quantum: int, behind: bytes
) -> None:
    size = quantum * sum(length for length, _ in runs)
    table = decode(encode(runs) + behind, quantum, size)
    assert table is not None
    at = 0
    for length, value in runs:
        assert table.at(at) == table.at(at + quantum * length - 1) == value
        at += quantum * length
    assert table.at(size) == NO_VALUE


@given(runs=runs_strategy, cut=st.integers(0, 200))
def test_a_table_that_is_cut_is_not_believed(runs: list[tuple[int, int]], cut: int) -> None:
    raw = encode(runs)
    assert decode(raw[: min(cut, len(raw) - 1)], 1, 1 << 40) is None


@given(raw=st.binary(max_size=200), size=st.integers(0, 1 << 32))
def test_any_bytes_give_ascending_ends_within_reach(raw: bytes, size: int) -> None:
    table = decode(raw, 1, size)
    if table is not None:
        assert list(table.ends) == sorted(set(table.ends))
        assert len(table.ends) <= len(raw) // 2
        assert all(-(1 << 31) <= value < 1 << 31 for value in table.values)
