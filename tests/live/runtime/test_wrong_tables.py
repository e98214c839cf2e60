"""Layouts that are not the target's own: the figures are exact, or there are none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import pytest

from gomem.tracer.binary.executable import Executable
from gomem.tracer.layout.layout import Layout, RawLayout
from gomem.tracer.layout.roles import resolve_roles
from gomem.tracer.layout.tables import known_minors, nearest_table, table_for
from gomem.tracer.process.target import Target
from gomem.tracer.program.globals import find_globals
from gomem.tracer.program.go_program import GoProgram, load_program
from gomem.tracer.runtime.earlier import optional_globals, required_globals
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import build
from tests.support.parked import Parked, parked
from tests.support.summary import note
from tests.support.toolchains import ALL_RELEASES

SHAPE: dict[str, Any] = {
    "live": 24, "garbage": 0.5, "goroutines": 30, "big": 6, "bigdrop": 3, "dirty": 500, "release": True, "regrow": 8,
}  # fmt: skip
STRUCTS = ("mspan", "mheap", "mcache", "mstats", "gcControllerState", "p", "heapStatsDelta", "schedt", "g", "mcentral",
           "heapArena", "workType", "pageCache", "fixalloc", "pallocData")  # fmt: skip
TABLES = sorted(known_minors("amd64"))


# What BPF programs read of structs, by a layout that has proven itself: nothing checks it again.
READ_BY_PROBES = sorted({
    tuple(argument.field.split(".", 1))
    for release in ALL_RELEASES
    for probe in resolve_roles(f"go{release}", "amd64", lambda name: True)
    for argument in probe.arguments
    if argument.field
})  # fmt: skip


# All that comes from the runtime.
SECTIONS = ("consistency", "virtual", "heap", "memstats", "spans", "span_states", "caches", "accounting", "structure")


@dataclass(frozen=True, slots=True)
class Subject:
    release: str
    target: Parked
    program: GoProgram
    right: dict[str, Any]


def report_with(target: Parked, program: GoProgram) -> dict[str, Any]:
    assert program.executable is not None
    # The inspector closes the executable that it is given: it gets one of its own.
    mine = replace(program, executable=Executable.open(program.executable.path))
    with Target.open(target.pid) as process, Inspector(process, mine) as inspector:
        report: dict[str, Any] = snapshot_target(inspector).to_dict()
    if report["structure"] is not None:
        # What is in RAM moves by itself, and gives the rows their order.
        rows = ({**row, "resident": None} for row in report["structure"]["metadata"])
        report["structure"]["metadata"] = sorted(rows, key=lambda row: str(row["what"]))
    # So does the time, with it what was in the last minute, and how much of the address space is in RAM.
    if report["virtual"] is not None:
        report["virtual"]["resident"] = None
    if report["heap"] is not None and report["heap"]["collector"] is not None:
        for name in ("seconds", "cycles", "cycles_per_second", "mark_share", "since_last_cycle"):
            report["heap"]["collector"][name] = None
    return report


def shifted(minor: str, struct: str, step: int) -> RawLayout:
    """Return a release's table in which the fields of `struct` lie 8 bytes further from `step` on."""
    name = f"go{minor}-amd64.json"
    raw: RawLayout = json.loads(files("gomem.tracer.layout").joinpath("tables", name).read_text(encoding="utf-8"))
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
            right = report_with(target, program)
            yield Subject(release, target, program, right)
            # What all reports are compared with is the truth itself; the target goes on by being asked for it.
            told = {name: value for name, value in right["memstats"].items() if name != "BySize"}
            truth = target.memstats()
            assert told == {name: truth[name] for name in told}
            assert right["consistency"]["exact"]
            assert right["accounting"]["unexplained"] == 0
        finally:
            program.close()


def verdict(subject: Subject, program: GoProgram) -> str:
    report = report_with(subject.target, program)
    if report["memstats"] is None:
        assert not program.readable or "the Go runtime's state" in {limit["what"] for limit in report["limits"]}
        return "-" if program.readable else "."
    if report["accounting"]["unexplained"]:
        return "stated"
    wrong = [
        f"{section}.{name}"
        for section in SECTIONS
        for name in _different(report[section], subject.right[section])
        if (section, name) != ("consistency", "attempts")
    ]
    return f"WRONG: {', '.join(wrong)}" if wrong else "exact"


def _different(ours: Any, right: Any) -> list[str]:
    """Return the names of what differs; what a report does not say (and its limits name) is not wrong."""
    if isinstance(ours, dict) and isinstance(right, dict):
        return [str(name) for name in {**ours, **right} if not _agrees(ours.get(name), right.get(name))]
    return [] if _agrees(ours, right) else ["*"]


def _agrees(ours: Any, right: Any) -> bool:
    if isinstance(ours, dict) and isinstance(right, dict):
        return all(_agrees(ours.get(name), right.get(name)) for name in {**ours, **right})
    if isinstance(ours, list) and isinstance(right, list):
        return len(ours) == len(right) and all(map(_agrees, ours, right))
    return ours is None or ours == right


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


@pytest.mark.parametrize("struct", STRUCTS)
def test_a_struct_that_grew_in_its_middle_is_noticed(subject: Subject, struct: str) -> None:
    """What a fork or a backport does: from some field on everything lies 8 bytes further."""
    assert subject.program.layout is not None
    fields = subject.program.layout.fields(struct)
    steps = sorted({field.offset for field in fields.values()})
    said, trusted = {}, {}
    for step in steps[:: max(1, len(steps) // 12)]:
        raw = shifted(subject.release[:4], struct, step)
        layout = Layout(raw, "table", f"go{subject.release}-fork", confirmed=False)
        said[step] = verdict(subject, replace(subject.program, layout=layout))
        trusted[step] = [] if not layout.confirmed else [
            field for owner, field in READ_BY_PROBES
            if owner == struct and layout.has(owner, field)
            and layout.offset(owner, field) != subject.program.layout.offset(owner, field)
        ]  # fmt: skip
    kinds = Counter(word.split(":")[0] for word in said.values())
    cell = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    note("structs grown by 8 bytes at some field (-: refused)", f"go{subject.release}", struct, cell)
    assert {step: word for step, word in said.items() if word not in ("exact", "stated", "-")} == {}
    assert {step: fields for step, fields in trusted.items() if fields} == {}


def test_a_table_of_another_patch_release_gives_exact_figures_or_none(subject: Subject) -> None:
    major, minor, *_ = subject.release.split(".")
    raw: RawLayout = json.loads(
        files("gomem.tracer.layout").joinpath("tables", f"go{major}.{minor}-amd64.json").read_text(encoding="utf-8")
    )
    for block in raw.get("earlier", []):
        table = table_for(f"go{block['measured'][0]}", "amd64")
        assert table is not None
        table.confirmed = False
        assert verdict(subject, replace(subject.program, layout=table)) in ("exact", "-"), block["measured"]
