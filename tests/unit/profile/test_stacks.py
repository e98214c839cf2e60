"""Stacks of return addresses as locations, by the rules of runtime/pprof."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from gomem.tracer.binary.symbols import Frame
from gomem.tracer.profile.stacks import Locations, Stacks, Symbols, complete, hide_runtime, logical, printed
from gomem.tracer.report.profile import Line, ProfileMapping

BIAS = 0x10000

# Link-time addresses: main.main (100) calls main.work (200), into which inner is inlined in outer, which is inlined.
CODE = {
    109: [("main.main", 100, False)],
    139: [("main.main", 100, False)],
    219: [("main.inner", 200, True), ("main.outer", 200, True), ("main.work", 200, False)],
    229: [("main.outer", 200, True), ("main.work", 200, False)],
    239: [("main.work", 200, False)],
    249: [
        ("main.work", 200, True),
        ("main.work", 200, False),
    ],  # as the runtime never has it: a call of itself, inlined
    309: [("runtime.mallocgc", 300, False)],
    409: [("internal/runtime/maps.NewTable", 400, False)],
    509: [("runtime.goexit", 500, False)],
    619: [("main.made", 600, True), ("main.(*T).Made", 600, False)],
    719: [("main.swapped[go.shape.int]", 700, True), ("main.swapped[go.shape.string]", 700, False)],
    729: [("main.swapped[go.shape.string]", 700, False)],
}
# The address of the call that each frame behind the first is in: where the runtime's stacks have it.
INLINED_AT = {219: (219, 229, 239), 229: (229, 239), 619: (619, 625)}


class Table:
    """What a Symbolizer tells, of a program that was never built."""

    logical_stacks = True

    def frames(self, address: int) -> tuple[Frame, ...]:
        # A return address lies behind the call: FuncForPC looks at it, and finds the same function.
        known = CODE.get(address) or CODE.get(address - 1, [])
        pcs = INLINED_AT.get(address, (address,) * len(known))
        return tuple(
            Frame(pc, Line(name, "file.go", pc, entry), entry, inlined, name == "main.(*T).Made")
            for pc, (name, entry, inlined) in zip(pcs, known, strict=False)
        )


def stacks(*calls: Iterable[int]) -> Stacks:
    """Return stacks of the calls at link-time addresses."""
    lists = [[call + 1 + BIAS for call in stack] for stack in calls]
    first = np.cumsum([0, *map(len, lists)])
    return Stacks(first.astype(np.int64), np.array([pc for one in lists for pc in one], np.uint64))


@pytest.fixture
def symbols() -> Symbols:
    return Symbols(Table(), BIAS)  # type: ignore[arg-type]


def of(symbols: Symbols, *calls: Iterable[int]) -> list[list[tuple[int, list[str]]]]:
    """Return address (at link time) and functions of each location of each stack."""
    locations = Locations(symbols, ())
    found = locations.of(complete(hide_runtime(stacks(*calls), symbols), symbols))
    return [
        [(locations.all()[one].address - BIAS, [line.function for line in locations.all()[one].lines]) for one in stack]
        for stack in found
    ]


INLINED = (219, ["main.inner", "main.outer", "main.work"])


def test_functions_inlined_into_each_other_are_one_location(symbols: Symbols) -> None:
    assert of(symbols, [219, 229, 239, 109, 509]) == [[INLINED, (109, ["main.main"])]]


def test_the_runtime_before_the_program_is_hidden_and_behind_it_shown(symbols: Symbols) -> None:
    assert of(symbols, [309, 409, 109, 309, 509]) == [[(109, ["main.main"]), (309, ["runtime.mallocgc"])]]


def test_a_stack_of_the_runtime_alone_is_shown_whole(symbols: Symbols) -> None:
    both = [(309, ["runtime.mallocgc"]), (409, ["internal/runtime/maps.NewTable"])]
    assert of(symbols, [309, 409, 509], [509], []) == [both, [], []]


def test_a_stack_that_was_cut_gets_the_functions_that_its_last_call_is_inlined_in(symbols: Symbols) -> None:
    assert of(symbols, [109, 219], [139, 219, 229], [219]) == [
        [(109, ["main.main"]), INLINED],
        [(139, ["main.main"]), INLINED],
        [INLINED],
    ]


def test_a_wrapper_that_a_cut_stack_would_end_in_is_left_out(symbols: Symbols) -> None:
    assert of(symbols, [109, 619]) == [[(109, ["main.main"]), (619, ["main.made"])]]


def test_a_call_of_the_same_function_is_another_location(symbols: Symbols) -> None:
    # 229 is inlined in work, and so is 239's function: but what follows 239 has called it.
    calls = [(239, ["main.work"]), (109, ["main.main"])]
    assert of(symbols, [239, 239, 109, 509]) == [[calls[0], *calls]]
    assert of(symbols, [249, 239, 109, 509]) == [[(249, ["main.work"]), *calls]]


def test_the_next_stack_never_continues_the_one_before(symbols: Symbols) -> None:
    assert of(symbols, [219, 229, 239], [239, 109]) == [[INLINED], [(239, ["main.work"]), (109, ["main.main"])]]


def test_what_is_no_go_code_has_an_address_alone(symbols: Symbols) -> None:
    assert of(symbols, [9000, 109]) == [[(9000, []), (109, ["main.main"])]]


def test_locations_know_their_mapping_and_mappings_whether_all_in_them_has_names(symbols: Symbols) -> None:
    mappings = (
        ProfileMapping(BIAS, BIAS + 220, 0, "/program", "ab"),
        ProfileMapping(BIAS + 230, BIAS + 10000, 0, "/library", ""),
        ProfileMapping(BIAS + 10000, BIAS + 20000, 0, "[vdso]", ""),
    )
    locations = Locations(symbols, mappings)
    locations.of(stacks([109, 229, 9000], [139, 40000]))
    assert [location.mapping for location in locations.all()] == [0, 1, 1, 0, None]
    assert [mapping.has_functions for mapping in locations.mappings()] == [True, False, False]


def test_what_was_met_before_keeps_its_index(symbols: Symbols) -> None:
    locations = Locations(symbols, ())
    assert list(locations.of(stacks([109, 139]))) == [(0, 1)]
    assert list(locations.of(stacks([139, 239, 109]))) == [(1, 2, 0)]
    assert len(locations.all()) == 3


def test_code_that_is_not_gos_is_named_by_who_knows_it_and_asked_for_once(symbols: Symbols) -> None:
    asked: list[list[int]] = []

    def foreign(addresses: Sequence[int]) -> dict[int, tuple[Line, ...]]:
        asked.append(list(addresses))
        return {7999 + BIAS: (Line("malloc"),)}

    locations = Locations(symbols, (), foreign)
    for _ in range(2):
        (found,) = locations.of(stacks([7999, 8999, 239, 109]))
    named = [[line.function for line in locations.all()[one].lines] for one in found]
    assert named == [["malloc"], [], ["main.work"], ["main.main"]]
    assert asked == [[7999 + BIAS, 8999 + BIAS]]


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_stacks_in_pieces_are_all_stacks_in_turn(most: int) -> None:
    calls = [[109], [], [219, 229, 239, 109], [139], [], [409, 109]]
    pieces = list(stacks(*calls).pieces(most))
    assert all(len(some.pcs) <= most or len(some.first) == 2 for some in pieces)
    found = [some.pcs[low:high].tolist() for some in pieces for low, high in pairwise(some.first.tolist())]
    assert found == [[call + 1 + BIAS for call in stack] for stack in calls]


def test_locations_are_the_same_whatever_is_made_at_once(symbols: Symbols, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: tuple[list[int], ...] = ([219, 229, 239, 109, 509], [619, 625, 139], [], [109], [219, 229, 239, 139])
    whole = of(symbols, *calls)
    monkeypatch.setattr("gomem.tracer.profile.stacks.AT_ONCE", 1)
    assert of(symbols, *calls) == whole


@pytest.mark.parametrize("by_printed_names", [True, False])
def test_instances_of_a_generic_function_are_one_function_to_releases_that_go_by_printed_names(
    by_printed_names: bool,
) -> None:
    symbols = Symbols(Table(), BIAS, joins_by_printed_names=by_printed_names)  # type: ignore[arg-type]
    inner, outer = "main.swapped[go.shape.int]", "main.swapped[go.shape.string]"
    apart = [[(719, [inner]), (729, [outer]), (109, ["main.main"])]]
    joined = [[(719, [inner, outer]), (109, ["main.main"])]]
    assert of(symbols, [719, 729, 109]) == (apart if by_printed_names else joined)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("main.f", "main.f"),
        ("main.f[go.shape.int]", "main.f[...]"),
        ("main.(*T[go.shape.[]uint8]).m.func1", "main.(*T[...]).m.func1"),
        ("main.f[a].g[b]", "main.f[...]"),
        ("]main[", "]main["),
        ("[", "["),
    ],
)
def test_names_are_printed_as_the_runtime_prints_them(name: str, shown: str) -> None:
    assert printed(name) == shown


def test_calls_as_they_were_made_become_the_stacks_that_the_runtime_has(symbols: Symbols) -> None:
    made, whole = (
        stacks([219, 109, 509], [], [619, 229], [309]),
        stacks([219, 229, 239, 109, 509], [], [619, 229, 239], [309]),
    )
    found = logical(made, symbols)
    assert found.first.tolist() == whole.first.tolist()
    assert found.pcs.tolist() == whole.pcs.tolist()


def test_an_address_outside_of_go_stays_in_its_stack(symbols: Symbols) -> None:
    assert logical(stacks([5000, 239]), symbols).pcs.tolist() == stacks([5000, 239]).pcs.tolist()
