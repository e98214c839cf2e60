"""Where the collector's CPU time goes, and how many cycles were forced, by the program's own runtime/metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.atlimit import AtLimit, at_limit
from tests.support.command import report_of

CLASSES = {
    "mark_assist": "/cpu/classes/gc/mark/assist:cpu-seconds",
    "mark_dedicated": "/cpu/classes/gc/mark/dedicated:cpu-seconds",
    "mark_idle": "/cpu/classes/gc/mark/idle:cpu-seconds",
    "pause": "/cpu/classes/gc/pause:cpu-seconds",
    "scavenge": "/cpu/classes/scavenge/total:cpu-seconds",
    "total": "/cpu/classes/total:cpu-seconds",
}


def figures_and_report(target: AtLimit) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the program says, and a report, between which no collection ended."""
    for _ in range(5):
        said = target.say("gc")
        report = report_of("snapshot", "--pid", target.pid)
        if report["memstats"]["NumGC"] == said["MemStats"]["NumGC"]:
            return said, report
    pytest.fail("a collection came in between each time")


@pytest.mark.parametrize("release", ["1.21.13", "1.25.5", "1.27.3"])
def test_cpu_time_by_class_is_what_runtime_metrics_has(release: str) -> None:
    with at_limit(release, "-live", 30, "-piece", 4096, env={"GOGC": "20", "GOMAXPROCS": "2"}) as target:
        target.say("work 700ms")
        said, report = figures_and_report(target)
    cpu = report["heap"]["collector"]["cpu"]
    assert cpu["total"] > 0.5
    assert cpu["mark_dedicated"] > 0
    for name, metric in CLASSES.items():
        assert cpu[name] == pytest.approx(said[metric], abs=1e-6), name


def test_a_release_without_the_classes_has_none_and_forced_cycles_are_counted_all_the_same() -> None:
    with at_limit("1.19", "-live", 4) as target:
        for _ in range(3):
            target.say("gc")
        said, report = figures_and_report(target)
    collector = report["heap"]["collector"]
    assert collector["cpu"] is None
    assert collector["forced"] == said["MemStats"]["NumForcedGC"] >= 4
    assert collector["cpu_limiter"]["assist_pool"] is not None
