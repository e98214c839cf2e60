"""GOMEMLIMIT reached by stacks, by what is alive, and by garbage: what each costs is measured, and said."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.atlimit import AtLimit, at_limit
from tests.support.command import gomem, outcome, report_of, started

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(300)]

# gc 327 @10.548s 39%: 0.015+31+0.065 ms clock, ...
MARKED = re.compile(r"(?m)^gc (\d+) @([\d.]+)s \d+%: [\d.]+\+([\d.]+)\+[\d.]+ ms clock")


def near(report: dict[str, Any]) -> dict[str, Any]:
    (found,) = [one for one in report["findings"] if one["id"] == "near-gomemlimit"]
    return dict(found)


def reports(target: AtLimit) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a report of a trace and one of a snapshot, both taken while the program works."""
    with started("trace", "--pid", target.pid, "--duration", "3", "--format", "json") as run:
        target.begin("work 5s")
        time.sleep(1.5)  # what a snapshot knows of the collector's cost is of the last cycles: let there be some
        taken = report_of("snapshot", "--pid", target.pid)
        return outcome(run).report(), taken


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_a_limit_eaten_by_stacks_is_critical_and_the_stacks_are_named(release: str, tmp_path: Path) -> None:
    words = ("-stacks", 7000, "-live", 4)
    with at_limit(release, *words, limit="100MiB", godebug="gctrace=1", stderr=tmp_path / "stderr") as target:
        watched, taken = reports(target)
        after = target.figures()
        at_rest = report_of("snapshot", "--pid", target.pid)
        shown = gomem("profile", target.pid, "--kind", "goroutine")
    assert shown.status == 0, shown.stderr
    assert "main.deep" in shown.stdout
    for report in (watched, taken):
        found = near(report)
        assert found["severity"] == "critical", found
        assert f"`gomem profile {target.pid} --kind goroutine`" in found["action"]
        assert "goroutine stacks" in found["title"]
        assert "7,00" in found["action"]
        assert found["evidence"]["stacks"] > 100 << 20
        assert found["evidence"]["stacks"] == report["memstats"]["StackSys"]
    work = watched["heap"]["collector"]
    assert work["basis"] == "watched"
    lines = [(int(number), float(mark) / 1e3) for number, _, mark in MARKED.findall((tmp_path / "stderr").read_text())]
    last = watched["memstats"]["NumGC"]
    told = [mark for number, mark in lines if last - work["cycles"] < number <= last]
    assert work["mark_share"] * work["seconds"] == pytest.approx(sum(told), rel=0.15)
    assert work["mark_share"] > 0.25  # on an idle machine more than nine tenths
    stats, limiter = after["MemStats"], at_rest["heap"]["collector"]["cpu_limiter"]
    if stats["NumGC"] == at_rest["memstats"]["NumGC"]:  # else the end of the work left one cycle under way
        assert at_rest["heap"]["collector"]["cpu_share"] == stats["GCCPUFraction"]
        if "/gc/limiter/last-enabled:gc-cycle" in after:
            assert limiter["last_cycle"] == after["/gc/limiter/last-enabled:gc-cycle"] > 0


def test_a_limit_below_what_is_alive_is_critical_when_it_costs_and_the_live_heap_is_named() -> None:
    with at_limit("1.25.5", "-live", 80, limit="64MiB") as target:
        found = [near(report) for report in reports(target)]
        shown = gomem("profile", target.pid)
    assert [one["severity"] for one in found] == ["critical", "critical"]
    assert all("the live heap" in one["title"] and f"`gomem profile {target.pid}`" in one["action"] for one in found)
    assert "keeps no heap profile: nothing in it reads one" in shown.stderr  # which the action says, too


def test_garbage_that_stands_at_the_limit_is_harmless() -> None:
    """As like the others as can be: all of the limit is used, and the collector runs for it alone."""
    words = ("-live", 8, "-rest", "1ms")
    with at_limit("1.25.5", *words, limit="64MiB", env={"GOGC": "off"}) as target:
        target.say("work 2s")  # until it is there
        watched, taken = reports(target)
        metrics = target.figures()
        at_rest = report_of("snapshot", "--pid", target.pid)
    for report in (watched, taken):
        found = near(report)
        assert found["severity"] == "info", found
        assert "Nothing to do" in found["action"]
    assert watched["heap"]["collector"]["mark_share"] < 0.25
    check_parts(at_rest, metrics)


def check_parts(report: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Hold the parts of what uses the limit against runtime/metrics; writing them down took some objects more."""
    use = report["heap"]["limit_use"]

    def classes(*names: str) -> int:
        return sum(int(metrics[f"/memory/classes/{name}:bytes"]) for name in names)

    assert use["stacks"] == pytest.approx(classes("heap/stacks", "os-stacks"), abs=1 << 20)
    assert use["profile_buckets"] == classes("profiling/buckets")
    assert use["metadata"] == classes(
        "metadata/mcache/free", "metadata/mcache/inuse", "metadata/mspan/free", "metadata/mspan/inuse",
        "metadata/other", "other",
    )  # fmt: skip
    in_use = use["live"] + use["garbage"] + use["holes"]
    assert in_use == pytest.approx(classes("heap/objects", "heap/unused"), abs=1 << 20)
    assert use["live"] + use["garbage"] == pytest.approx(classes("heap/objects"), abs=1 << 20)
    assert use["retained"] == pytest.approx(classes("heap/free"), abs=1 << 20)
    assert use["total"] == pytest.approx(classes("total") - classes("heap/released"), abs=1 << 20)
    assert use["limit"] == 64 << 20
