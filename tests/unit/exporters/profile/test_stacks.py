"""Folded stacks, and the difference of two profiles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from gomem.exporters.profile import folded as folding
from gomem.exporters.profile.difference import difference, other_program
from gomem.exporters.profile.folded import folded
from gomem.exporters.profile.functions import by_function
from gomem.exporters.profile.sample_type import sums_of
from gomem.exporters.text.console import Sheet
from gomem.exporters.text.functions import render_functions
from gomem.tracer.errors import GomemError
from gomem.tracer.report.profile import Profile, ValueType
from tests.support.samples.profiles import HEAP_TYPES, heap, hostile, profiles

SPACE = 3
BEFORE = heap(("main;work;make", 3, 300), ("main;gone", 1, 100))
AFTER = heap(("main;work;make", 5, 500), ("main;new", 2, 20))


def test_a_stack_is_a_line_with_its_value() -> None:
    twice = replace(BEFORE, samples=(*BEFORE.samples, *BEFORE.samples))
    assert folded(twice, SPACE) == "main;gone 200\nmain;work;make 600\n"


def test_a_difference_has_both_values_in_a_line() -> None:
    assert folded(difference(BEFORE, AFTER), SPACE) == "main;gone 100 0\nmain;new 0 20\nmain;work;make 300 500\n"


def test_no_name_ends_a_line_or_a_call() -> None:
    lines = folded(hostile(), SPACE).splitlines()
    assert len(lines) == 3
    assert [line.rpartition(" ")[2] for line in sorted(lines, key=len)] == ["100", "50", "25"]
    assert sorted(line.count(";") for line in lines) == [1, 1, 2]
    assert all(line.isprintable() for line in lines)


def test_stacks_that_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "_MOST", 15)
    with pytest.raises(GomemError, match="the stacks have more than"):
        folded(BEFORE, SPACE)


def test_a_difference_is_what_grew_and_what_shrank() -> None:
    grown = difference(BEFORE, AFTER)
    rows = {row.name: (row.flat, row.cumulative) for row in by_function(grown, SPACE).rows}
    assert rows == {"make": (200, 200), "work": (0, 200), "gone": (-100, -100), "new": (20, 20), "main": (0, 120)}
    assert sums_of(grown, SPACE).whole == 400
    page = render_functions(grown, SPACE, 2, Sheet()).splitlines()
    assert page[0] == "inuse_space  400 B before, 520 B after: +120 B"
    assert page[3].split() == ["+200", "B", "50.00%", "50.00%", "+200", "B", "50.00%", "make"]
    assert page[4].split() == ["-100", "B", "-25.00%", "25.00%", "-100", "B", "-25.00%", "gone"]


def test_stacks_that_never_had_a_value_are_left_out() -> None:
    quiet = replace(AFTER, samples=tuple(replace(sample, values=(0, 0, 0, 0)) for sample in AFTER.samples))
    assert len(difference(BEFORE, quiet).samples) == len(BEFORE.samples)


def test_what_both_have_is_there_once() -> None:
    assert difference(BEFORE, BEFORE).locations == BEFORE.locations
    assert difference(BEFORE, BEFORE).mappings == BEFORE.mappings


def test_of_other_sample_types_only_those_in_common_are_compared() -> None:
    narrow = replace(
        BEFORE,
        sample_types=(HEAP_TYPES[3], ValueType("inuse_objects", "pieces")),
        samples=tuple(replace(sample, values=sample.values[:1:-1]) for sample in BEFORE.samples),
    )
    assert difference(narrow, AFTER).sample_types == (HEAP_TYPES[3],)
    assert folded(difference(narrow, AFTER), 0) == folded(difference(BEFORE, AFTER), SPACE)
    with pytest.raises(GomemError, match=r"no sample type in common: cpu \(nanoseconds\), and alloc_objects"):
        difference(replace(BEFORE, sample_types=(ValueType("cpu", "nanoseconds"),)), AFTER)


def test_other_programs_are_told_by_build_id_or_else_by_path() -> None:
    (mapping,) = AFTER.mappings

    def other(path: str = mapping.path, build_id: str = mapping.build_id) -> str | None:
        return other_program(BEFORE, replace(AFTER, mappings=(replace(mapping, path=path, build_id=build_id),)))

    assert other() is None
    assert other(path="/elsewhere/program") is None
    assert other(build_id="def") == "build id abc123 of /srv/program, and def of /srv/program"
    assert other(build_id="") is None
    assert other(build_id="", path="/other") == "/srv/program, and /other"
    assert other_program(replace(BEFORE, mappings=()), AFTER) is None


@given(profiles(), profiles())
@settings(max_examples=30, deadline=None)
def test_any_two_profiles_of_one_kind_have_a_difference(base: Profile, later: Profile) -> None:
    later = replace(later, sample_types=base.sample_types[:1], samples=tuple(
        replace(sample, values=sample.values[:1]) for sample in later.samples))  # fmt: skip
    grown = difference(base, later)
    said = folded(grown, 0)
    assert said.count("\n") == len(said.splitlines())
    kept = [sample for sample in base.samples if sample.values[0]] + [s for s in later.samples if any(s.values)]
    assert len(grown.samples) == len(kept)
