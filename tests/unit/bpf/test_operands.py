"""Arguments of probes as text, and as the BPF program reads them."""

from __future__ import annotations

import struct

import pytest

from gomem.bpf.probes.operands import MOST_OPERANDS, pack_operands

OPERAND = struct.Struct("<iBBBB")  # offset, source, reads, bytes, shift
RAX, RBX, R8 = 1, 2, 6


def unpacked(*sources: str, on: bool = True) -> tuple[int, list[tuple[int, ...]]]:
    packed = pack_operands(sources, on=on)
    return struct.unpack_from("<Q", packed)[0], list(OPERAND.iter_unpack(packed[8:]))


def test_registers_memory_sizes_and_factors() -> None:
    on, operands = unpacked("rax", "[rbx+24]", "u8 r8", "u16 [rax+0]", "[rbx+32]*8192")
    assert on == 1
    assert operands == [
        (0, RAX, 0, 8, 0),
        (24, RBX, 1, 8, 0),
        (0, R8, 0, 1, 0),
        (0, RAX, 1, 2, 0),
        (32, RBX, 1, 8, 13),
        (0, 0, 0, 0, 0),
    ]


def test_nothing_is_told_while_it_is_off() -> None:
    assert unpacked("rax", on=False)[0] == 0


def test_nothing_has_no_bytes_and_so_is_passed_over() -> None:
    assert unpacked("0")[1] == [(0, 0, 0, 0, 0)] * MOST_OPERANDS


@pytest.mark.parametrize(
    "source",
    [
        "", "rsp", "eax", "[rbx]", "[rbx+24", "rbx+24]", "[rbx+-8]", "[r99+8]", "u7 rax", "rax*3", "rax*0",
        f"rax*{1 << 64}", f"[rax+{1 << 31}]",
    ],
)  # fmt: skip
def test_what_the_program_cannot_read_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"source|no such"):
        pack_operands([source], on=True)


def test_more_than_an_event_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="7 arguments"):
        pack_operands(["rax"] * 7, on=True)
