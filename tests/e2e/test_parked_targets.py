"""Reports on targets that stand still, against what the targets and the kernel say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.builds import Mode, build
from tests.support.command import gomem, obeys_the_rules, report_of
from tests.support.parked import Flag, MemStats, Parked, parked
from tests.support.processes import rss, vm_size
from tests.support.toolchains import RELEASES

SHAPE: dict[str, Flag] = {
    "live": 96, "garbage": 0.5, "goroutines": 100, "depth": 20, "ended": 200, "big": 12, "bigdrop": 5, "dirty": 700,
}  # fmt: skip
SHAPES: dict[str, dict[str, Flag]] = {
    "freed": SHAPE,
    "scavenged": SHAPE | {"release": True},
    "partly scavenged": SHAPE | {"release": True, "regrow": 48},
    "small": {"live": 0, "dirty": 10},
}


@dataclass(frozen=True, slots=True)
class Case:
    """One target with the reports on it, and the truth about it while they were made."""

    target: Parked
    truth: MemStats
    by_size: list[list[int]]
    rss: int
    vm_size: int
    reports: dict[str, dict[str, Any]]


def _case(target: Parked) -> Case:
    pid = target.pid
    untouched = vm_size(pid)
    trace = report_of("trace", "--pid", pid, "--duration", 1)
    # A uprobe brings the page of code that it sits on into memory.
    resident = rss(pid)
    snapshot = report_of("snapshot", "--pid", pid)
    assert rss(pid) == resident, "looking at the target changed what is resident"
    assert vm_size(pid) == untouched, "tracing changed the target's address space"
    return Case(target, target.memstats(), target.by_size, resident, untouched, {"trace": trace, "snapshot": snapshot})


@pytest.fixture(scope="module", params=[False, True], ids=["unstripped", "stripped"])
def case(request: pytest.FixtureRequest, release: str) -> Iterator[Case]:
    binary = build("parked", release, stripped=request.param)
    with parked(binary, SHAPES["partly scavenged"], env={"GOMAXPROCS": "3"}) as target:
        yield _case(target)


def _differences(case: Case, report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    told = {name: value for name, value in report["memstats"].items() if name != "BySize"}
    assert len(told) >= 25
    return {name: (value, case.truth[name]) for name, value in told.items() if value != case.truth[name]}


@pytest.mark.bpf
@pytest.mark.parametrize("command", ["trace", "snapshot"])
class TestEveryRelease:
    def test_the_report_obeys_the_rules(self, case: Case, command: str) -> None:
        obeys_the_rules(case.reports[command], rss=case.rss, vm_size=case.vm_size)

    def test_every_figure_of_memstats_is_the_targets_own(self, case: Case, command: str) -> None:
        assert _differences(case, case.reports[command]) == {}

    def test_objects_of_each_size_class_are_counted_to_the_last_one(self, case: Case, command: str) -> None:
        told = {size: [mallocs, frees] for size, mallocs, frees in case.reports[command]["memstats"]["BySize"]}
        truth = {size: [mallocs, frees] for size, mallocs, frees in case.by_size if size}
        assert {size: told.get(size) for size in truth} == truth

    def test_the_snapshot_is_exact(self, case: Case, command: str) -> None:
        consistency = case.reports[command]["consistency"]
        assert consistency["exact"] is True
        assert consistency["skew_bytes"] == 0

    def test_the_process_is_described(self, case: Case, command: str, release: str) -> None:
        process = case.reports[command]["process"]
        assert process["pid"] == case.target.pid
        assert process["go_version"] == case.target.release
        assert process["go_version"].startswith(f"go{release}")
        assert process["main_module"] == "example.org/parked"
        assert process["pie"] is False
        assert process["cgo"] is False
        assert process["stripped"] is ("stripped" in process["exe"])
        assert process["layout"] == ("table" if process["stripped"] else process["layout"])


@pytest.mark.bpf
def test_tracing_uses_bpf_and_loses_nothing(case: Case) -> None:
    report = case.reports["trace"]
    assert report["backend"] == "bpf"
    assert report["event_loss"]["lost"] == 0
    assert report["event_loss"]["drift_bytes"] == 0
    assert {probe["role"] for probe in report["overhead"]["probes"]} >= {"reserve", "grow", "gc_start", "gc_done"}


@pytest.mark.parametrize("shape", SHAPES)
def test_heaps_of_any_shape_are_read_exactly(shape: str) -> None:
    with parked(build("parked", "1.25.5", stripped=True), SHAPES[shape], env={"GOMAXPROCS": "2"}) as target:
        case = _case(target)
        for report in case.reports.values():
            obeys_the_rules(report, rss=case.rss, vm_size=case.vm_size)
            assert _differences(case, report) == {}


@pytest.mark.parametrize("mode", ["pie", "cgo", "cgo-pie"])
@pytest.mark.parametrize("release", [RELEASES[0], RELEASES[-1]])
@pytest.mark.parametrize("stripped", [False, True], ids=["unstripped", "stripped"])
def test_linked_in_other_ways(release: str, mode: Mode, stripped: bool) -> None:
    binary = build("parked", release, mode=mode, stripped=stripped)
    with parked(binary, SHAPES["freed"], cheap=32 if mode.startswith("cgo") else 0) as target:
        case = _case(target)
        for report in case.reports.values():
            obeys_the_rules(report, rss=case.rss, vm_size=case.vm_size)
            assert _differences(case, report) == {}
            assert report["process"]["pie"] is mode.endswith("pie")
            assert report["process"]["cgo"] is mode.startswith("cgo")
            if mode.startswith("cgo"):
                resident = {row["kind"]: row["resident"] for row in report["kinds"]}
                assert resident["c_heap"] >= 32 << 20


def test_the_text_is_a_page_with_the_same_figures() -> None:
    with parked(build("parked", "1.27.3"), SHAPES["freed"]) as target:
        done = gomem("snapshot", "--pid", target.pid)
    assert done.status == 0
    assert "\x1b[" not in done.stdout, "a pipe gets plain text"
    assert len(done.stdout.splitlines()) < 100
    for word in (str(target.pid), "go1.27.3", "reserved", "prepared", "ready", "scavenged"):
        assert word.lower() in done.stdout.lower()
