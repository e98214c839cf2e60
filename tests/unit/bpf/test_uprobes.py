from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf.probes.uprobes import cookie
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import ROLE_KINDS, EventKind

REGISTERS = ("0", "rax", "rbx", "rcx", "rdi", "rsi", "r8", "r9", "r10", "r11", "rdx")


def spec(kind: EventKind = EventKind.RESERVE, /, **fields: object) -> UprobeSpec:
    return UprobeSpec("role", kind, "runtime.f", "/bin/true", 0x1000, **fields)  # type: ignore[arg-type]


@given(
    kind=st.sampled_from(ROLE_KINDS),
    index=st.integers(0, 255),
    args=st.lists(
        st.tuples(st.sampled_from([*REGISTERS, *(f"stack:{8 * n}" for n in range(192))]), st.integers(0, 15)),
        max_size=3,
    ),
    slot=st.integers(0, 255),
    skip=st.booleans(),
)
def test_a_cookie_holds_all_that_the_program_unpacks(
    kind: EventKind, index: int, args: list[tuple[str, int]], slot: int, skip: bool
) -> None:
    sources = tuple(f"{place}*{1 << shift}" for place, shift in args)
    packed = cookie(spec(kind, args=sources, return_address_offset=8 * slot, skip_if_branch_taken=skip), index)
    assert packed < 1 << 64
    # as bpf/programs/programs.c: on_uprobe takes it apart
    assert (packed & 255, packed >> 8 & 255, packed >> 16 & 255) == (index, kind, slot)
    assert packed >> 24 & 15 == skip | (kind is EventKind.USED) << 1
    for position, (place, shift) in enumerate(args):
        argument = packed >> (28 + 12 * position)
        code = argument & 255
        found = f"stack:{(code - 64) * 8}" if code >= 64 else REGISTERS[code]
        assert (found, argument >> 8 & 15) == (place, shift)


@pytest.mark.parametrize(
    "fields",
    [
        {"args": ("rsp",)},
        {"args": ("eax",)},
        {"args": ("stack:4",)},
        {"args": ("stack:-8",)},
        {"args": ("stack:1536",)},
        {"args": ("rax*3",)},
        {"args": ("rax*65536",)},
        {"args": ("0", "0", "0", "0")},
        {"return_address_offset": 4},
        {"return_address_offset": 2048},
        {"return_address_offset": -8},
    ],
)
def test_what_does_not_fit_into_a_cookie_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        cookie(spec(**fields), 0)


def test_more_uprobes_than_counters_are_refused() -> None:
    cookie(spec(), 255)
    with pytest.raises(ValueError, match="at most 256"):
        cookie(spec(), 256)
