"""Layouts that are not the target's own: the figures are exact, or there are none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.parked import Parked, parked
from tests.support.summary import note
from tests.support.toolchains import ALL_RELEASES
from tracer.binary.executable import Executable
from tracer.binary.globals import find_globals
from tracer.inspection import Inspector, Look
from tracer.join import accounting
from tracer.layout.layout import Layout, RawLayout
from tracer.layout.tables import known_minors, nearest_table
from tracer.program import GoProgram, load_program
from tracer.runtime.earlier import optional_globals, required_globals
from tracer.target import Target

SHAPE: dict[str, Any] = {
    "live": 24, "garbage": 0.5, "goroutines": 30, "big": 6, "bigdrop": 3, "dirty": 500, "release": True, "regrow": 8,
}  # fmt: skip
TABLES = sorted(known_minors("amd64"))


@dataclass(frozen=True, slots=True)
class Subject:
    release: str
    target: Parked
    program: GoProgram
    right: Look


def look_with(target: Parked, program: GoProgram) -> Look:
    assert program.executable is not None
    # The inspector closes the executable that it is given: it gets one of its own.
    mine = replace(program, executable=Executable.open(program.executable.path))
    with Target.open(target.pid) as process, Inspector(process, mine) as inspector:
        return inspector.look()


def shifted(minor: str, struct: str, step: int) -> RawLayout:
    """Return a release's table in which the fields of `struct` lie 8 bytes further from `step` on."""
    name = f"go{minor}-amd64.json"
    raw: RawLayout = json.loads(files("tracer.layout").joinpath("tables", name).read_text(encoding="utf-8"))
    row = raw["structs"][struct]
    row["size"] += 8
    for field in row["fields"].values():
        field["offset"] += 8 if field["offset"] >= step else 0
    return raw


@pytest.fixture(scope="module", params=ALL_RELEASES)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    release: str = request.param
    with parked(build("parked", release, stripped=True), SHAPE, env={"GOMAXPROCS": "3"}) as target:
        program = load_program(f"/proc/{target.pid}/exe")
        try:
            right = look_with(target, program)
            assert right.runtime is not None
            yield Subject(release, target, program, right)
            # What all looks are compared with is the truth itself; the target goes on by being asked for it.
            figures, truth = right.runtime.memstats, target.memstats()
            assert {name: figures[name] for name in truth if name in figures} == {
                name: value for name, value in truth.items() if name in figures
            }
        finally:
            program.close()


def differences(subject: Subject, look: Look) -> list[str]:
    """Return on what a look differs from the target's own figures, and from a look with the right layout."""
    ours, right = look.runtime, subject.right.runtime
    assert ours is not None
    assert right is not None
    wrong = [name for name, value in right.memstats.items() if ours.memstats[name] != value]
    parts = ("collector", "class_to_size", "caches")
    wrong += [part for part in parts if str(getattr(ours, part)) != str(getattr(right, part))]
    wrong += ["regions"] * (ours.regions != right.regions)
    for column in ("address", "start", "pages", "state", "span_class", "capacity", "objects", "object_size"):
        if getattr(ours.spans, column).tolist() != getattr(right.spans, column).tolist():
            wrong.append(f"spans.{column}")
    wrong += ["pages"] * (ours.pages.state.tolist() != right.pages.state.tolist())
    counted = accounting(look.space, ours)
    assert counted is not None
    return [*wrong, *([f"unexplained {counted.unexplained}"] if counted.unexplained else [])]


def verdict(subject: Subject, program: GoProgram) -> str:
    look = look_with(subject.target, program)
    if look.runtime is None:
        assert any(limit.what == "the Go runtime's state" for limit in look.limits) or not program.readable
        return "-" if program.readable else "."
    wrong = differences(subject, look)
    return f"WRONG: {', '.join(wrong)}" if wrong else "exact"


@pytest.mark.parametrize("minor", TABLES, ids=lambda minor: f"table-{minor[0]}.{minor[1]}")
@pytest.mark.parametrize("addresses", ["found with it", "given"])
def test_a_table_of_any_release_gives_exact_figures_or_none(
    subject: Subject, minor: tuple[int, int], addresses: str
) -> None:
    table = nearest_table(f"go{minor[0]}.{minor[1]}", "amd64")
    program = replace(subject.program, layout=table)
    assert program.executable is not None
    assert program.functions is not None
    if addresses == "found with it":
        names = (*required_globals(table), *optional_globals(table))
        found = find_globals(program.executable, program.functions, table, names)
        program = replace(program, globals=found)
    said = verdict(subject, program)
    title = f"programs read with another release's table, globals {addresses} (-: refused, .: globals not found)"
    note(title, f"go{subject.release}", f"{minor[0]}.{minor[1]}", said.split(":")[0])
    assert said in ("exact", "-", ".")
    assert said == "exact" or not subject.release.startswith(f"{minor[0]}.{minor[1]}.")


@pytest.mark.parametrize("struct", ["mspan", "mheap", "mcache", "mstats", "gcControllerState", "p", "heapStatsDelta"])
def test_a_struct_that_grew_in_its_middle_is_noticed(subject: Subject, struct: str) -> None:
    """What a fork or a backport does: from some field on everything lies 8 bytes further."""
    assert subject.program.layout is not None
    fields = subject.program.layout.fields(struct)
    steps = sorted({field.offset for field in fields.values()})
    said = {}
    for step in steps[:: max(1, len(steps) // 12)]:
        raw = shifted(subject.release[:4], struct, step)
        layout = Layout(raw, "table", f"go{subject.release}-fork", confirmed=False)
        said[step] = verdict(subject, replace(subject.program, layout=layout))
    kinds = Counter(word.split(":")[0] for word in said.values())
    cell = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    note("structs grown by 8 bytes at some field (-: refused)", f"go{subject.release}", struct, cell)
    assert {step: word for step, word in said.items() if word not in ("exact", "-")} == {}
