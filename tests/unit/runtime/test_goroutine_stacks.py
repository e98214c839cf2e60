from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.binary.call_frames import CallFrame
from gomem.tracer.runtime import goroutine_stacks
from gomem.tracer.runtime.goroutine_stacks import GoroutineStacks, Unwinder
from gomem.tracer.runtime.goroutines import Goroutines
from tests.support.image import Image

LOW, HIGH = 0xC000100000, 0xC000108000
MOST = (1 << 64) - 1
FIELDS = ("sched.pc", "sched.sp", "sched.lr", "syscallpc", "syscallsp", "stack.lo", "stack.hi")
INNER, MIDDLE, OUTER, GOEXIT, GOGO, LARGE, LEAF = 0x1010, 0x2010, 0x3010, 0x4010, 0x5010, 0x6010, 0x7000


def frame(size: int, *, top: bool = False, writes_sp: bool = False) -> CallFrame:
    return CallFrame("main.f", size, at_entry=False, top=top, writes_sp=writes_sp)


CODE = {
    INNER: frame(16), MIDDLE: frame(24), OUTER: frame(8), GOEXIT: frame(0, top=True), GOGO: frame(8, writes_sp=True),
    LARGE: frame(20000), LEAF: frame(0),
}  # fmt: skip


class Stacks:
    """Goroutines whose stacks a test writes."""

    def __init__(self) -> None:
        self.image = Image()
        self.image.reserve(LOW, HIGH - LOW)
        self.rows: list[dict[str, int]] = []

    def add(self, pc: int, sp: int, **fields: int) -> None:
        told = {name.replace("__", "."): value for name, value in fields.items()}
        self.rows.append({"sched.pc": pc, "sched.sp": sp, "stack.lo": LOW, "stack.hi": HIGH} | told)

    def unwound(self, most: int = 100, *, link_register: bool = False) -> list[tuple[list[int], bool]]:
        columns = {name: np.array([row.get(name, 0) for row in self.rows], np.uint64) for name in FIELDS}
        goroutines = Goroutines(np.arange(len(self.rows), dtype=np.uint64), columns)
        unwinder = Unwinder(CODE.get, most, link_register=link_register)
        found: GoroutineStacks = unwinder.unwind(goroutines, self.image)
        return [
            (unwinder.tree.stack(node), whole)
            for node, whole in zip(found.node.tolist(), found.whole.tolist(), strict=True)
        ]


def test_a_stack_is_followed_by_the_size_of_each_frame() -> None:
    stacks = Stacks()
    sp = HIGH - 0x100
    stacks.image.words(sp + 16, MIDDLE, 0, 0, 0, GOEXIT)
    stacks.add(INNER, sp)
    stacks.add(MIDDLE, sp + 24)
    assert stacks.unwound() == [([INNER, MIDDLE, GOEXIT], True), ([MIDDLE, GOEXIT], True)]


def test_in_a_system_call_the_registers_of_its_entry_count() -> None:
    stacks = Stacks()
    sp = HIGH - 0x100
    stacks.image.words(sp + 8, GOEXIT)
    stacks.add(INNER, LOW, syscallpc=GOGO, syscallsp=sp)
    assert stacks.unwound() == [([GOGO, GOEXIT], True)]


def test_what_writes_the_stack_pointer_ends_a_stack_as_it_does_for_the_runtime() -> None:
    stacks = Stacks()
    sp = HIGH - 0x100
    stacks.image.words(sp + 16, GOGO, 0, OUTER)
    stacks.add(INNER, sp)
    assert stacks.unwound() == [([INNER, GOGO], True)]


def test_a_call_of_nil_is_at_what_made_it() -> None:
    stacks = Stacks()
    sp = HIGH - 0x100
    stacks.image.words(sp, OUTER, 0, GOEXIT)
    stacks.add(0, sp)
    assert stacks.unwound() == [([OUTER, GOEXIT], True)]


def test_a_frame_larger_than_what_is_read_at_once_is_followed() -> None:
    stacks = Stacks()
    sp = HIGH - 0x7000
    stacks.image.words(sp + 20000, OUTER, 0, GOEXIT)
    stacks.add(LARGE, sp)
    stacks.add(LARGE, sp)
    assert stacks.unwound() == [([LARGE, OUTER, GOEXIT], True)] * 2


def test_a_deep_stack_is_cut_where_the_runtime_has_cut_it_with_room_for_wrappers() -> None:
    stacks = Stacks()
    stacks.image.words(LOW, *[0, OUTER] * 1000)
    stacks.add(OUTER, LOW)
    assert stacks.unwound(10) == [([OUTER] * 20, True)]


def test_a_stack_that_ends_nowhere_is_not_whole() -> None:
    stacks = Stacks()
    stacks.image.words(HIGH - 16, 0, OUTER)
    stacks.image.words(HIGH - 64, 0, 0x9999)
    for sp in (HIGH - 16, HIGH - 8, HIGH - 64):
        stacks.add(OUTER, sp)
    assert stacks.unwound() == [([OUTER, OUTER], False), ([OUTER], False), ([OUTER], False)]


@pytest.mark.parametrize(
    "fields",
    [
        {"sched__sp": LOW - 8}, {"sched__sp": HIGH}, {"sched__sp": LOW + 4}, {"stack__lo": 0, "stack__hi": MOST},
        {"stack__hi": LOW + (1 << 40)}, {"stack__hi": LOW}, {"stack__lo": HIGH}, {"sched__pc": 0x123},
    ],
)  # fmt: skip
def test_a_stack_pointer_that_is_not_in_its_stack_leads_nowhere(fields: dict[str, int]) -> None:
    stacks = Stacks()
    stacks.add(OUTER, LOW)
    stacks.rows[0] |= {name.replace("__", "."): value for name, value in fields.items()}
    assert stacks.unwound() == [([], False)]


def test_a_stack_that_cannot_be_read_does_not_keep_the_others_from_being_read() -> None:
    stacks = Stacks()
    stacks.image.words(LOW + 8, GOEXIT)
    stacks.add(OUTER, LOW)
    stacks.add(OUTER, HIGH, stack__lo=HIGH, stack__hi=HIGH + 0x8000)
    stacks.add(OUTER, 1 << 45, stack__lo=1 << 45, stack__hi=(1 << 45) + 0x8000)
    assert stacks.unwound() == [([OUTER, GOEXIT], True), ([], False), ([], False)]


def test_where_a_register_holds_the_return_address_that_counts_first() -> None:
    stacks = Stacks()
    sp = HIGH - 0x100
    stacks.image.words(sp, MIDDLE, 0, 0, OUTER)
    stacks.add(LEAF, sp, sched__lr=INNER)
    stacks.add(INNER, sp, sched__lr=OUTER)
    innermost = stacks.unwound(link_register=True)
    assert innermost[0][0][:3] == [LEAF, INNER, MIDDLE]
    assert innermost[1][0][:2] == [INNER, MIDDLE]


def test_equal_stacks_are_one() -> None:
    stacks = Stacks()
    for number in range(1000):
        stacks.image.words(LOW + 16 * number + 8, GOEXIT)
        stacks.add(OUTER, LOW + 16 * number)
    assert stacks.unwound() == [([OUTER, GOEXIT], True)] * 1000


@pytest.mark.parametrize("bound", ["MOST_CALLS", "MOST_STEPS"])
def test_no_more_is_followed_than_any_program_has(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goroutine_stacks, bound, 16)
    stacks = Stacks()
    stacks.image.words(LOW, *[0, OUTER, 0, INNER, 0] * 500)
    for at in range(20):
        stacks.add(OUTER, LOW + 8 * at)
    assert sum(len(stack) for stack, _ in stacks.unwound()) < 200
    assert not all(whole for _, whole in stacks.unwound())


addresses = st.one_of(st.integers(0, MOST), st.integers(LOW // 8, HIGH // 8).map(lambda word: word * 8))
pcs = st.one_of(st.sampled_from(sorted(CODE)), st.integers(0, MOST))


@given(
    rows=st.lists(st.fixed_dictionaries({"sched.pc": pcs, "sched.sp": addresses, "syscallpc": pcs,
                                         "syscallsp": st.one_of(st.just(0), addresses), "stack.lo": addresses,
                                         "stack.hi": addresses}), max_size=20),
    words=st.lists(pcs, max_size=200),
    link_register=st.booleans(),
)  # fmt: skip
def test_any_goroutines_are_unwound_within_bounds(
    rows: list[dict[str, int]], words: list[int], link_register: bool
) -> None:
    stacks = Stacks()
    stacks.image.words(LOW, *words)
    stacks.rows = rows
    for stack, _ in stacks.unwound(50, link_register=link_register):
        assert len(stack) <= 100
        assert all(pc in CODE for pc in stack)
