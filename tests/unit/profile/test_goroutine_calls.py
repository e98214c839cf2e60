"""Which addresses the runtime's goroutine profile has for a stack (tracebackPCs; up to Go 1.20, gentraceback)."""

from __future__ import annotations

import pytest

from gomem.tracer.binary.call_frames import CallFrame
from gomem.tracer.binary.symbols import Frame
from gomem.tracer.profile.goroutine_calls import GoroutineCalls
from gomem.tracer.report.profile import Line

BIAS = 0x10000
# Functions by their entries, 0x100 bytes each.
NAMES = {
    0x1000: "main.f", 0x1100: "main.(*T).M", 0x1200: "runtime.sigpanic", 0x1300: "runtime.asyncPreempt",
    0x1400: "runtime.gopanic", 0x1500: "main.g",
}  # fmt: skip
F, WRAPPER, FAULT, PREEMPT, PANIC, INLINES = NAMES


class Code:
    """What a program has at its addresses: main.(*T).M is a wrapper, all of main.g's calls are inlined main.h."""

    bias = BIAS

    def __init__(self, *, older: bool = False, logical: bool = True) -> None:
        self.logical_stacks = logical
        self.symbols = self.functions = self
        self.older = older

    def lookup(self, name: str) -> list[str]:
        return [name] if self.older and name == "runtime.gentraceback" else []

    def at(self, address: int) -> CallFrame | None:
        entry = address & ~0xFF
        return CallFrame(NAMES[entry], 8, address == entry, False, False) if entry in NAMES else None

    def frames(self, address: int) -> tuple[Frame, ...]:
        pc = address - BIAS
        entry = pc & ~0xFF
        real = Frame(pc, Line(NAMES[entry]), entry, False, entry == WRAPPER)
        if entry != INLINES:
            return (real,)
        return Frame(pc, Line("main.h"), entry, True, False), Frame(entry + 4, Line("main.g"), entry, False, False)


def told(stack: list[int], code: Code | None = None, most: int = 100) -> list[int]:
    code = code or Code()
    calls = GoroutineCalls(code, code, most)  # type: ignore[arg-type]
    return [pc - BIAS for pc in calls.told([BIAS + pc for pc in stack])]


def test_a_return_address_is_told_as_it_is_and_an_entry_as_if_it_were_one() -> None:
    assert told([F + 0x20, F]) == [F + 0x20, F + 1]


@pytest.mark.parametrize("older", [False, True])
def test_what_faulted_is_told_by_its_very_instruction(older: bool) -> None:
    assert told([FAULT + 8, F + 0x20, F + 0x30], Code(older=older)) == [FAULT + 8, F + 0x21, F + 0x30]


def test_so_is_what_a_signal_stopped_since_go_1_21() -> None:
    assert told([PREEMPT + 8, F + 0x20]) == [PREEMPT + 8, F + 0x21]
    assert told([PREEMPT + 8, F + 0x20], Code(older=True)) == [PREEMPT + 8, F + 0x20]


def test_a_wrapper_is_left_out_unless_it_panics() -> None:
    assert told([F + 8, WRAPPER + 8, F + 0x20]) == [F + 8, F + 0x20]
    assert told([PANIC + 8, WRAPPER + 8, F + 0x20]) == [PANIC + 8, WRAPPER + 8, F + 0x20]


def test_inlined_calls_have_addresses_of_their_own_since_go_1_12() -> None:
    assert told([INLINES + 0x40]) == [INLINES + 0x40, INLINES + 5]
    assert told([INLINES + 0x40], Code(logical=False)) == [INLINES + 0x40]


def test_a_stack_is_cut_behind_the_wrappers_and_within_inlined_calls() -> None:
    assert told([F + 8, WRAPPER + 8, INLINES + 0x40, F + 8], most=2) == [F + 8, INLINES + 0x40]


def test_what_is_no_code_ends_a_stack() -> None:
    assert told([F + 8, 0x9000, F + 8]) == [F + 8]
