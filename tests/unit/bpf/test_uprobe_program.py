from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf.probes.uprobe_program import Template, maps_of


def instruction(opcode: int, *, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return one as Documentation/bpf/standardization/instruction-set.rst has it."""
    return struct.pack("<BBhI", opcode, to | source << 4, offset, value & 0xFFFFFFFF)


def load(to: int, value: int, source: int = 0) -> bytes:
    return instruction(0x18, to=to, source=source, value=value & 0xFFFFFFFF) + instruction(0, value=value >> 32)


def map_of(to: int, fd: int) -> bytes:
    return load(to, fd, source=1)


CALL_174 = instruction(0x85, value=174)
NOTHING = instruction(0xBF, to=7, source=7)  # r7 = r7
R0_IS_0 = instruction(0xB7)
BEGINS = instruction(0xBF, to=6, source=1)  # r6 = r1
ASKS = CALL_174 + instruction(0xBF, to=7) + NOTHING + NOTHING
CALL_OTHER = instruction(0x85, value=1) + instruction(0xBF, to=7)  # r7 = r0
EXIT = instruction(0x95)


def asked(cookie: int) -> bytes:
    """Return what stands in a copy where the program asks."""
    return R0_IS_0 + instruction(0xBF, to=7) + load(7, cookie)


@given(st.integers(0, (1 << 64) - 1))
def test_a_copy_has_the_cookie_where_the_program_asks_for_it(cookie: int) -> None:
    code = BEGINS + CALL_OTHER + ASKS + CALL_OTHER + ASKS + EXIT
    wanted = BEGINS + CALL_OTHER + asked(cookie) + CALL_OTHER + asked(cookie) + EXIT
    assert Template(code, {}).with_cookie(cookie) == wanted


def test_a_copy_has_our_descriptors_of_the_maps() -> None:
    # A number that is the beginning of such an instruction is none, neither in a word nor behind one.
    harmless = load(3, 0x0000000300001118) + load(4, 3)
    code = map_of(1, 3) + harmless + ASKS + map_of(2, 9) + map_of(1, 3) + EXIT
    assert maps_of(code) == {3, 9}
    copy = Template(code, {3: 9, 9: 70}).with_cookie(5)
    assert copy == map_of(1, 9) + harmless + asked(5) + map_of(2, 70) + map_of(1, 9) + EXIT


def test_of_a_cookie_nothing_is_taken_for_a_map() -> None:
    cookie = int.from_bytes(map_of(1, 7)[:8], "little")
    assert Template(ASKS + EXIT, {}).with_cookie(cookie) == asked(cookie) + EXIT


@pytest.mark.parametrize(
    "code", [EXIT, BEGINS + CALL_174 + EXIT, NOTHING + NOTHING + EXIT, CALL_174, CALL_OTHER + NOTHING + EXIT]
)
def test_a_program_that_asks_for_no_cookie_has_no_copies(code: bytes) -> None:
    with pytest.raises(ValueError, match="asks for no cookie"):
        Template(code, {}).with_cookie(1)
