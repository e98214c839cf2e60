"""Looks in little space: what was last is all there, and the beginning is still in sight."""

from __future__ import annotations

from itertools import pairwise

from msgspec.structs import replace

from gomem.exporters.black_box.timeline import MOST, Looks
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import Cgroup, Report
from tests.support.samples.reports import grown_and_scavenged, kernel_only

SECOND = 1_000_000_000
WALL = 1_700_000_000 * SECOND


def with_rss(report: Report, rss: int) -> Report:
    assert report.resident is not None
    return replace(report, resident=replace(report.resident, total=rss))


def test_the_last_looks_are_all_there_and_older_ones_thin_out() -> None:
    looks, report = Looks(), grown_and_scavenged()
    for number in range(10_000):
        looks.add(number * 15 * SECOND, with_rss(report, number), None, 0.5)
        assert len(looks) <= MOST
    end = 9_999 * 15 * SECOND + 3 * SECOND
    kept = looks.until(end, WALL)
    seen = [moment.rss or 0 for moment in kept.moments]
    assert kept.looks == 10_000
    assert seen[0] == 0
    assert seen[-MOST // 2 :] == list(range(10_000 - MOST // 2, 10_000))
    assert seen == sorted(seen)
    gaps = [later - before for before, later in pairwise(seen)]
    assert gaps == sorted(gaps, reverse=True)
    assert kept.moments[-1].before_end == 3.0
    assert kept.moments[-1].at == "2023-11-14T22:13:17.000Z"


def test_figures_are_those_of_the_report_and_what_it_has_not_is_none() -> None:
    looks, report = Looks(), grown_and_scavenged()
    process = replace(report.process, cgroup=Cgroup("/a", 70, 100, None, 0))
    looks.add(0, replace(report, process=process), CgroupMemory(1, 90, None), 0.77777)
    looks.add(SECOND, kernel_only(), None, None)
    first, second = looks.until(SECOND, WALL).moments
    assert report.memstats is not None
    assert report.resident is not None
    stats = report.memstats
    assert (first.rss, first.heap_in_use, first.gc_cycles) == (
        report.resident.total, stats["HeapInuse"], stats["NumGC"],
    )  # fmt: skip
    assert first.retained == stats["HeapIdle"] - stats["HeapReleased"]  # type: ignore[operator]
    assert (first.cgroup_current, first.cgroup_max, first.near) == (70, 90, 0.7778)
    assert second.rss is not None
    assert (second.heap_in_use, second.heap_live, second.near, second.goroutines) == (None, None, None, None)


def test_lies_about_figures_are_survived() -> None:
    looks, report = Looks(), grown_and_scavenged()
    assert report.memstats is not None
    lie = {**report.memstats, "HeapIdle": 0, "HeapReleased": 1 << 70, "NumGC": 1 << 80}
    looks.add(0, replace(report, memstats=lie), None, 1e30)
    (moment,) = looks.until(0, WALL).moments
    assert moment.retained == 0
