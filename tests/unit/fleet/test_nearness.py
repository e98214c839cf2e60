"""How near a process is to a limit: the nearest one counts, and page cache does not."""

from __future__ import annotations

from msgspec.structs import replace

from gomem.tracer.fleet.nearness import machine_available, nearness, will_be_near
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import Cgroup, LimitUse, Report
from tests.support.samples.reports import grown_and_scavenged, kernel_only

CACHE = {"active_file": 300, "inactive_file": 500}


def having(anonymous: int, total: int, report: Report | None = None, cgroup: Cgroup | None = None) -> Report:
    report = report or kernel_only()
    assert report.resident is not None
    return replace(
        report,
        resident=replace(report.resident, anonymous=anonymous, total=total),
        process=replace(report.process, cgroup=cgroup),
    )


def test_page_cache_does_not_bring_it_nearer_to_the_limit_of_its_cgroup() -> None:
    assert nearness(having(100, 200), CgroupMemory(990, 1000, None, CACHE), None) == 0.19


def test_what_it_has_of_its_own_is_newer_than_the_figures_of_its_cgroup() -> None:
    assert nearness(having(800, 800), CgroupMemory(990, 1000, None, CACHE), None) == 0.8


def test_a_cgroup_whose_figures_nobody_reads_has_the_limit_that_the_look_saw() -> None:
    own = Cgroup("/a", 990, 1000, None, 0)
    assert nearness(having(250, 300, cgroup=own), None, None) == 0.25


def test_the_nearest_limit_counts() -> None:
    report = grown_and_scavenged()
    assert report.heap is not None
    use = LimitUse(1000, 990, 700, 200, 0, 0, 90, 0, 0)
    with_limit = having(100, 300, replace(report, heap=replace(report.heap, limit_use=use)))
    assert nearness(with_limit, CgroupMemory(500, 1000, None, CACHE), 9700) == 0.7
    assert nearness(with_limit, CgroupMemory(500, 100, None, CACHE), 9700) == 1.0
    assert nearness(with_limit, None, 100) == 0.75
    unlimited = replace(with_limit, heap=replace(report.heap, limit_use=replace(use, limit=None)))
    assert nearness(unlimited, None, 9700) == 0.03


def test_without_any_limit_nothing_is_known() -> None:
    assert nearness(having(1, 1), None, None) is None


def test_the_machine_tells_what_is_available() -> None:
    available = machine_available()
    assert available is not None
    assert available > 1 << 20


def test_who_grows_so_fast_that_the_next_look_would_find_it_near_its_limit_counts_as_near() -> None:
    assert will_be_near(0.8, None, 0.0, 15.0)
    assert not will_be_near(0.79, None, 0.0, 15.0)
    assert will_be_near(0.5, 0.2, 15.0, 15.0)
    assert not will_be_near(0.5, 0.3, 15.0, 15.0)
    assert will_be_near(0.5, 0.4, 3.75, 15.0)
    assert not will_be_near(0.7, 0.9, 15.0, 15.0)
    assert not will_be_near(0.7, 0.1, 0.0, 15.0)
