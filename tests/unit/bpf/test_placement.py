"""Where a probe goes, on prologues that real Go linkers wrote (prologues.json) and on any bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.bpf.probes.placement import ProbeSite, is_emulated, probe_site

FUNCTIONS = json.loads(Path(__file__).with_name("prologues.json").read_text())["functions"]


def place(go: str, mode: str, symbol: str, intact: tuple[str, ...] | None = None) -> tuple[ProbeSite, bytes]:
    (found,) = [f for f in FUNCTIONS if (f["go"], f["mode"], f["symbol"]) == (go, mode, symbol)]
    code = bytes.fromhex(found["code"])
    site = probe_site(code, found["address"]) if intact is None else probe_site(code, found["address"], intact)
    assert site.address == found["address"] + site.offset_from_entry
    return site, code[site.offset_from_entry :]


@pytest.mark.parametrize(
    ("go", "mode", "symbol", "offset"),
    [
        ("1.21.13", "exe", "runtime.sysReserve", 6),  # cmp; jbe rel8
        ("1.21.13", "exe", "runtime.(*mheap).grow", 10),  # cmp; jbe rel32
        ("1.21.13", "exe", "runtime.getproccount", 26),  # mov; sub; jb; cmp; jbe
        ("1.27.3", "exe", "runtime.sysReserveOS", 6),
        ("1.27.3", "exe", "runtime.munmap", 6),
        ("1.27.3", "exe", "runtime.(*mheap).sysAlloc", 15),  # lea; cmp; jbe
        ("1.27.3", "exe", "runtime.(*mheap).allocManual", 6),  # a systemstack function: stackguard1
        ("1.27.3", "pie", "main.large.abi0", 25),  # g from thread-local storage in two instructions
        ("1.27.3", "exe", "main.huge.abi0", 27),
    ],
)
def test_after_the_stack_check_the_push_of_the_frame_pointer_is_probed(
    go: str, mode: str, symbol: str, offset: int
) -> None:
    site, code = place(go, mode, symbol)
    assert code[0] == 0x55
    assert site == ProbeSite(site.address, offset, True, True, 0, skip_if_branch_taken=False)


@pytest.mark.parametrize(
    ("mode", "symbol", "offset"),
    [
        ("exe", "runtime.sysReserve", 4),
        ("exe", "runtime.sysMapOS", 4),
        ("exe", "runtime.(*mheap).sysAlloc", 9),
        ("exe", "runtime.gcMarkTermination", 12),
        ("exe", "runtime.(*mheap).allocManual", 4),
        ("exe", "runtime.getproccount", 20),
        ("exe", "main.large.abi0", 21),
        ("pie", "main.huge.abi0", 27),
    ],
)
def test_before_go_1_21_the_branch_of_the_stack_check_is_probed_unless_it_is_taken(
    mode: str, symbol: str, offset: int
) -> None:
    site, code = place("1.19.8", mode, symbol)
    assert code[0] == 0x76 or code[:2] == b"\x0f\x86"
    assert site == ProbeSite(site.address, offset, True, True, 0, skip_if_branch_taken=True)


def test_a_nosplit_function_with_a_frame_pointer_is_probed_on_its_first_instruction() -> None:
    site, code = place("1.21.13", "exe", "runtime.sysAllocOS")
    assert code[0] == 0x55
    assert site == ProbeSite(site.address, 0, True, False, 0)


def test_a_nosplit_function_that_moves_its_argument_first_falls_back_to_its_entry() -> None:
    site, _ = place("1.19.8", "exe", "runtime.sysAllocOS", ("rax",))
    # `mov %rax,%rbx; mov $3,%ecx ... call runtime.mmap`: rbx and the rest go, rax does until `xor %eax,%eax`
    assert site == ProbeSite(site.address, 0, False, False, 0)


def test_a_search_follows_the_stack_pointer_to_a_branch_where_stack_arguments_are_intact() -> None:
    site, code = place("1.19.8", "exe", "main.nosplit.abi0", ())
    assert code[0] == 0x73
    assert (site.emulated, site.return_address_offset) == (True, 0x18)


def test_a_search_stops_where_an_argument_register_is_overwritten() -> None:
    site, _ = place("1.19.8", "exe", "main.nosplit.abi0", ("rax",))
    assert (site.offset_from_entry, site.emulated) == (0, False)


def test_a_branch_that_a_loop_comes_back_to_is_not_probed() -> None:
    # nop (3 bytes); top: jne out; inc %rcx; jmp top; out: ret
    loop = bytes.fromhex("0f1f00750548ffc1ebf9c3")
    assert probe_site(loop, 0x1000, ()).offset_from_entry == 0
    assert probe_site(loop[:5] + bytes.fromhex("48ffc190c3"), 0x1000, ()).offset_from_entry == 3


def test_a_comparison_with_something_else_than_the_stack_guard_is_no_stack_check() -> None:
    # cmp %rsp, 0x20(%r14); jbe; ret
    assert not probe_site(bytes.fromhex("493b662076 01c3".replace(" ", "")), 0x1000, ()).past_stack_check


def test_a_32_bit_write_spoils_the_whole_argument_register() -> None:
    # mov $1,%eax; nop
    code = bytes.fromhex("b80100000090")
    assert probe_site(code, 0, ("rax",)).offset_from_entry == 0
    assert probe_site(code, 0, ("rbx",)).offset_from_entry == 5


def test_an_8_bit_write_spoils_the_whole_argument_register() -> None:
    # mov $1,%r8b; nop
    assert probe_site(bytes.fromhex("41b00190"), 0, ("r8",)).offset_from_entry == 0


def test_a_store_into_the_callers_spill_area_is_harmless_but_one_over_the_return_address_is_not() -> None:
    # mov %rax,0x8(%rsp); nop  |  mov %rax,(%rsp); nop
    assert probe_site(bytes.fromhex("488944240890"), 0, ("rax",)).offset_from_entry == 5
    assert probe_site(bytes.fromhex("4889042490"), 0, ("rax",)).offset_from_entry == 0


@pytest.mark.parametrize(
    "code", ["55", "4155", "90", "6690", "e800000000", "e900000000", "eb00", "7600", "0f8600000000"]
)
def test_the_kernel_emulates(code: str) -> None:
    assert is_emulated(bytes.fromhex(code))


@pytest.mark.parametrize(
    "code", ["", "5d", "c3", "4055", "66e80000", "ff10", "4883ec18", "493b6610", "0f1f00", "f30f1efa"]
)
def test_the_kernel_single_steps(code: str) -> None:
    assert not is_emulated(bytes.fromhex(code))


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_any_bytes_give_a_site_inside_the_function_or_its_entry(code: bytes, address: int) -> None:
    site = probe_site(code, address)
    assert site.offset_from_entry == 0 or 0 < site.offset_from_entry < len(code)
    assert 0 <= site.return_address_offset <= 1024


def test_a_search_ends_where_the_stack_pointer_rises_above_the_return_address() -> None:
    # add $8,%rsp; nop
    assert probe_site(bytes.fromhex("4883c40890"), 0, ()).offset_from_entry == 0


@given(st.sampled_from(FUNCTIONS), st.integers(0, 63), st.binary(min_size=1, max_size=1))
def test_a_damaged_prologue_never_fails(function: dict[str, object], position: int, byte: bytes) -> None:
    code = bytearray(bytes.fromhex(str(function["code"])))
    code[position : position + 1] = byte
    assert probe_site(bytes(code), 0x401000).offset_from_entry < len(code)
