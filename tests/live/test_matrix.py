"""Every release, stripped or not, linked in every way: each figure equals what the target says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.runtime.self_checks import contradictions
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import Mode, build
from tests.support.parked import Flag, parked
from tests.support.processes import rss, vm_size
from tests.support.rules import broken_rules
from tests.support.summary import note
from tests.support.toolchains import ALL_RELEASES

SHAPE: dict[str, Flag] = {
    "live": 12, "garbage": 0.5, "goroutines": 30, "depth": 10, "ended": 50, "big": 4, "bigdrop": 2, "release": True,
    "regrow": 8, "dirty": 300,
}  # fmt: skip
LINKED: dict[str, Mode] = {"static": "exe", "PIE": "pie", "cgo": "cgo"}
# All of runtime.MemStats but the rings, the fraction, EnableGC, DebugGC and Lookups (always 0).
FIELDS = 25
TITLE = "fields of runtime.MemStats equal to the target's own, with all of BySize; /d: layout from DWARF, /t: table"


def self_checks(inspector: Inspector) -> list[str]:
    """Run the checks that doubtful layouts must pass: no right one may fail them."""
    layout, bias = inspector.program.layout, inspector.bias
    assert layout is not None
    assert bias is not None
    addresses = {name: address + bias for name, address in inspector.program.globals.items()}
    return contradictions(inspector.reader().snapshot, inspector.memory(), layout, addresses)


@pytest.mark.parametrize("stripped", [False, True], ids=["unstripped", "stripped"])
@pytest.mark.parametrize("linked", LINKED)
@pytest.mark.parametrize("release", ALL_RELEASES)
def test_every_figure_of_every_program_is_the_targets_own(release: str, linked: str, stripped: bool) -> None:
    binary = build("parked", release, stripped=stripped, mode=LINKED[linked])
    column = f"{linked}{' -s -w' if stripped else ''}"
    with (
        parked(binary, SHAPE, env={"GOMAXPROCS": "3"}) as target,
        Target.open(target.pid) as process,
        Inspector.open(process) as inspector,
    ):
        report: dict[str, Any] = snapshot_target(inspector).to_dict()
        against = self_checks(inspector)
        # Each record flushes what the mcaches held, and is followed by new objects: the first one is the truth.
        resident, size, truth = rss(target.pid), vm_size(target.pid), target.memstats()
        told = dict(report["memstats"])
        by_size = {row[0]: row[1:] for row in told.pop("BySize")}
        equal = [name for name, value in told.items() if truth[name] == value]
        classes = {row[0]: row[1:] for row in target.by_size if row[0]}
        # One cell a program, filled before anything can fail.
        source = {"dwarf": "d", "table": "t"}.get(report["process"]["layout"], "?")
        same = sum(by_size.get(number) == counts for number, counts in classes.items())
        note(TITLE, f"go{release}", column, f"{len(equal)}/{len(told)} {same}/{len(classes)} /{source}")

        assert {name: (value, truth[name]) for name, value in told.items() if name not in equal} == {}
        assert len(told) == FIELDS
        assert by_size == {**by_size, **classes}
        assert report["consistency"]["exact"] is True
        assert report["accounting"]["unexplained"] == 0
        assert report["process"]["layout"] == ("table" if stripped else "dwarf")
        assert [limit for limit in report["limits"] if "runtime" in limit["what"]] == []
        assert against == []
        assert broken_rules(report, smaps_rollup_rss=resident, vm_size=size) == []
