"""Kills by the counts of cgroups: those about when the process ended, in its cgroup or its pod."""

from __future__ import annotations

from dataclasses import replace

from gomem.exporters.black_box.kills import SOON, Kills
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import CgroupView, FleetView
from gomem.tracer.report import OomKill
from tests.support.samples.reports import grown_and_scavenged
from tests.support.samples.views import HEALTH, target

POD = "/kubepods/pod11111111-2222-3333-4444-555555555555"
CONTAINER = f"{POD}/{'a' * 64}"
NAMED = Workload(container_id="a" * 64, pod="api-1", namespace="shop", container="app")
ALONE = target(7, grown_and_scavenged(), cgroup="/batch")


def seeing(kills: Kills, at: float, *counts: tuple[str, Workload, int]) -> None:
    cgroups = tuple(CgroupView(path, workload, None, count) for path, workload, count in counts)
    kills.see(FleetView((), HEALTH, 0.0, cgroups, published=at))


def test_a_kill_about_the_end_counts_and_earlier_ones_do_not() -> None:
    kills, plain = Kills(), Workload()
    seeing(kills, 0, ("/batch", plain, 5), ("/other", plain, 0))
    assert kills.near(ALONE, 0) is None
    seeing(kills, 10, ("/batch", plain, 6), ("/other", plain, 0))
    seeing(kills, 11, ("/batch", plain, 6), ("/other", plain, 3))
    assert kills.near(ALONE, 9) == OomKill(None, "/batch", None, proven=False, kills=1)
    assert kills.near(ALONE, 10 + SOON) is not None
    assert kills.near(ALONE, 10 + SOON + 1) is None
    seeing(kills, 10 + SOON + 2, ("/batch", plain, 7))
    assert kills.near(ALONE, 10 + SOON + 2) == OomKill(None, "/batch", None, proven=False, kills=1)


def test_a_container_whose_cgroup_went_too_soon_is_found_by_its_pod() -> None:
    kills, whole = Kills(), replace(NAMED, container=None, container_id=None)
    mine = target(7, grown_and_scavenged(), cgroup=CONTAINER, workload=NAMED)
    elsewhere = target(8, grown_and_scavenged(), cgroup=CONTAINER.replace("pod1", "pod2"), workload=NAMED)
    seeing(kills, 0, (POD, NAMED, 0), (POD, whole, 0))
    seeing(kills, 1, (POD, NAMED, 0), (POD, whole, 1))
    assert kills.near(mine, 1) == OomKill(None, POD, None, proven=False, kills=1)
    assert kills.near(replace(mine, workload=Workload()), 1) == OomKill(None, POD, None, proven=False, kills=1)
    assert kills.near(elsewhere, 1) is None
    seeing(kills, 2, (POD, NAMED, 2), (POD, whole, 1))
    assert kills.near(mine, 2) == OomKill(None, POD, None, proven=False, kills=2)


def test_a_process_in_no_known_cgroup_was_killed_in_none() -> None:
    kills = Kills()
    seeing(kills, 0, ("", Workload(), 0))
    seeing(kills, 1, ("", Workload(), 1))
    assert kills.near(replace(ALONE, cgroup=""), 1) is None
