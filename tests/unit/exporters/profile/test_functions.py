"""A profile by function, on terminals too: sums that are plain to see, and names that nobody may trust."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from gomem.exporters.profile.functions import by_function
from gomem.exporters.profile.sample_type import index_of, sums_of
from gomem.exporters.text.console import Sheet
from gomem.exporters.text.functions import render_functions
from gomem.tracer.errors import UsageError
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.profile import Line, Location, Profile, error_label
from tests.support.samples.profiles import heap, hostile, profiles

SPACE = 3
GROWN = heap(("main;work;make", 3, 300), ("main;work", 1, 50), ("main;work;work", 1, 40), ("init", 1, 10))


def rows(profile: Profile, *, cumulative: bool = False) -> list[tuple[str, int, int]]:
    found = by_function(profile, SPACE, cumulative=cumulative).rows
    return [(row.name, row.flat, row.cumulative) for row in found]


def test_a_function_is_summed_once_for_a_stack_that_it_is_in_twice() -> None:
    assert rows(GROWN) == [("make", 300, 300), ("work", 90, 390), ("init", 10, 10), ("main", 0, 390)]
    assert rows(GROWN, cumulative=True) == [("main", 0, 390), ("work", 90, 390), ("make", 300, 300), ("init", 10, 10)]
    assert sums_of(GROWN, SPACE).whole == 400


def test_a_location_without_a_function_is_told_by_its_file() -> None:
    bare = replace(GROWN, locations=(Location(1, (), 0), Location(2, (Line("", "x.go", 1),), 0), Location(3, ()), *[
        Location(4, (Line("known"),))] * 2))  # fmt: skip
    assert {name for name, _, _ in rows(bare)} <= {"[program]", "<unknown>", "known"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [([True], "inline"), ([False], ""), ([True, False], "partial-inline")],
)
def test_it_is_told_which_calls_are_inlined(flags: list[bool], said: str) -> None:
    profile = heap(("one;callee", 1, 1), ("two;callee", 1, 1))
    locations = list(profile.locations)
    samples = list(profile.samples)
    for at, inlined in enumerate(flags):
        if inlined:
            locations.append(Location(99, (Line("callee"), Line(["one", "two"][at]))))
            samples[at] = replace(samples[at], stack=(len(locations) - 1,))
    profile = replace(profile, locations=tuple(locations), samples=tuple(samples[: len(flags)]))
    callee = next(row for row in by_function(profile, SPACE).rows if row.name == "callee")
    assert callee.inlined == said


@pytest.mark.parametrize(("outer_inlined", "said"), [(True, "inline"), (False, "")])
def test_of_calls_that_a_stack_has_twice_the_outermost_tells(outer_inlined: bool, said: str) -> None:
    one, callee, both = Line("one"), Line("callee"), Location(1, (Line("callee"), Line("one")))
    apart = [Location(2, (callee,)), Location(3, (one,))]
    profile = heap(("one;callee", 1, 1))
    stack = (1, 2, 0) if outer_inlined else (0, 1, 2)
    samples = (replace(profile.samples[0], stack=stack),)
    profile = replace(profile, locations=(both, *apart), samples=samples)
    row = next(row for row in by_function(profile, SPACE).rows if row.name == "callee")
    assert row.inlined == said


def test_sums_are_exact_and_over_all_samples_however_many_and_large() -> None:
    large = (1 << 62) + 1
    profile = replace(GROWN, samples=(replace(GROWN.samples[0], values=(0, 0, 0, large)),) * 5000)
    assert rows(profile) == [("make", 5000 * large, 5000 * large), ("main", 0, 5000 * large), ("work", 0, 5000 * large)]


def test_a_sample_type_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert index_of(GROWN, None) == SPACE
    assert index_of(replace(GROWN, default_type="alloc_space"), None) == 1
    assert index_of(replace(GROWN, default_type="gone"), None) == SPACE
    assert index_of(GROWN, "alloc_objects") == 0
    with pytest.raises(UsageError, match="no sample type 'cpu'") as refused:
        index_of(GROWN, "cpu")
    assert refused.value.fix == "it has alloc_objects, alloc_space, inuse_objects, inuse_space"


def test_a_pipe_gets_every_name_in_one_piece() -> None:
    page = render_functions(GROWN, SPACE, 20, Sheet())
    assert page.splitlines() == [
        "inuse_space  400 B",
        " flat    flat%      sum%     cum     cum%   function",
        "300 B   75.00%    75.00%   300 B   75.00%   make",
        " 90 B   22.50%    97.50%   390 B   97.50%   work",
        " 10 B    2.50%   100.00%    10 B    2.50%   init",
        "  0 B    0.00%   100.00%   390 B   97.50%   main",
    ]
    long = heap(("main;" + "a.b/" * 200 + "f", 1, 1))
    assert "a.b/" * 200 + "f" in render_functions(long, SPACE, 20, Sheet())


def test_what_is_left_out_and_what_could_not_be_seen_is_told() -> None:
    limit = Limit("no-frames", "C frames", "no symbols", "install them")
    page = render_functions(replace(GROWN, limits=(limit,), comments=("of the last cycle",)), SPACE, 2, Sheet())
    assert page.splitlines()[1:4] == ["of the last cycle", "C frames: no symbols  install them",
                                      "the first 2 of 4 functions"]  # fmt: skip
    assert "main" not in page


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_gets_a_table_that_fits_and_no_name_that_it_obeys(columns: int) -> None:
    page = render_functions(hostile(), SPACE, 20, Sheet(columns, terminal=True))
    assert all(len(line) <= columns for line in plain(page).splitlines())
    assert "\x1b[31m" not in page
    assert "\u202e" not in page
    assert "\\x1b[31m" in plain(page).replace("\n", "").replace(" ", "")
    assert "100 B" in page


def plain(page: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", page)


def test_a_profile_without_values_says_so() -> None:
    assert "No function has a value." in render_functions(replace(GROWN, samples=()), SPACE, 20, Sheet())


@given(profiles())
@settings(max_examples=30, deadline=None)
def test_any_profile_has_a_page(profile: Profile) -> None:
    for index in range(len(profile.sample_types)):
        functions = by_function(profile, index)
        assert sum(row.flat for row in functions.rows) == sum(
            sample.values[index] for sample in profile.samples if sample.stack
        )
        page = render_functions(profile, index, 20, Sheet())
        assert page.replace("\n", "").isprintable()


def test_estimates_have_their_standard_errors_beside_them() -> None:
    label = error_label(GROWN.sample_types[SPACE].type)
    errors = (30, 4, 3, 0)
    samples = [replace(one, labels=((label, error),)) for one, error in zip(GROWN.samples, errors, strict=True)]
    profile = replace(GROWN, samples=tuple(samples))
    found = {row.name: (row.flat_error, row.cumulative_error) for row in by_function(profile, SPACE).rows}
    assert found == {
        "make": (30, 30), "work": (5, pytest.approx((30**2 + 5**2) ** 0.5)), "init": (0, 0),
        "main": (0, pytest.approx((30**2 + 5**2) ** 0.5)),
    }  # fmt: skip
    page = render_functions(profile, SPACE, 20, Sheet())
    assert [line.split() for line in page.splitlines() if line.endswith(("make", "init"))] == [
        ["300", "B", "30", "B", "75.00%", "75.00%", "300", "B", "30", "B", "75.00%", "make"],
        ["10", "B", "exact", "2.50%", "100.00%", "10", "B", "exact", "2.50%", "init"],
    ]


def test_a_profile_that_counts_says_nothing_of_errors() -> None:
    assert not by_function(GROWN, SPACE).estimated
    assert "+-" not in render_functions(GROWN, SPACE, 20, Sheet())
