"""Limits that become others while a process is followed: of its cgroup, and of what is known of its pod."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from gomem.tracer.discovery.selection import Selection
from gomem.tracer.discovery.workloads import Workloads
from gomem.tracer.fleet.view import FleetView
from gomem.tracer.report import Cgroup, Limit
from tests.live.discovery.test_cluster import watching as asking
from tests.support.builds import build
from tests.support.discovery.cgroups import move
from tests.support.discovery.kubernetes_api import serving
from tests.support.fleets import of, watching
from tests.support.memory_cgroups import LIMIT, UNLIMITED, memory_cgroup
from tests.support.parked import parked
from tests.support.processes import wait_until
from tests.support.requirements import absent


@pytest.fixture
def limited() -> Iterator[tuple[Path, int]]:
    """Make a memory cgroup of our own; gives its directory and the version of its hierarchy."""
    with memory_cgroup("gomem-limits") as made:
        yield made


def in_cgroup(pid: int, condition: Callable[[Cgroup], bool]) -> Callable[[FleetView], bool]:
    return lambda view: bool(
        (one := of(view, pid)) and one.report and (cgroup := one.report.process.cgroup) and condition(cgroup)
    )


def test_a_cgroups_limit_is_what_it_is_now(limited: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gomem.tracer.fleet.schedule.LOOK_SHARE", 0.5)
    directory, version = limited
    limit = directory / LIMIT[version]
    with parked(build("parked", "1.25.5")) as target, watching(Selection(pids=frozenset((target.pid,)))) as watched:
        watched.until(in_cgroup(target.pid, lambda cgroup: directory.name not in cgroup.path), "it was looked at")
        limit.write_text(str(300 << 20))
        move(target.pid, directory)
        watched.until(
            in_cgroup(target.pid, lambda one: directory.name in one.path and one.memory_max == 300 << 20), "it moved"
        )
        limit.write_text(str(200 << 20))
        watched.until(in_cgroup(target.pid, lambda one: one.memory_max == 200 << 20), "the limit is lower")
        limit.write_text(UNLIMITED[version])
        watched.until(in_cgroup(target.pid, lambda one: one.memory_max is None), "the limit is gone")
        assert not watched.complaints


def test_why_the_name_of_a_pod_is_not_known_is_told_as_long_as_it_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("kubernetes") is None:
        absent("the Python package kubernetes is not installed")
    monkeypatch.setattr("gomem.tracer.fleet.schedule.LOOK_SHARE", 0.5)

    def told(pid: int, condition: Callable[[list[Limit]], bool]) -> Callable[[FleetView], bool]:
        def holds(view: FleetView) -> bool:
            one = of(view, pid)
            report = one.report if one else None
            limits = report.limits if report else ()
            return report is not None and condition([one for one in limits if one.what == "pod names and labels"])

        return holds

    with serving() as (api, url), parked(build("parked", "1.25.5")) as target:
        api.fail(403)
        with asking(url) as cluster:
            workloads = Workloads(node="node-1", cluster=cluster)
            with watching(Selection(pids=frozenset((target.pid,))), workloads=workloads) as watched:
                watched.until(told(target.pid, lambda limits: any("403" in one.why for one in limits)), "the refusal")
                api.fail(None)
                watched.until(told(target.pid, lambda limits: not limits), "it is known now")
                api.fail(503)
                wait_until(lambda: cluster.limit is not None, "it is refused again", 60.0)
                watched.until(told(target.pid, lambda limits: any("503" in one.why for one in limits)), "the failure")
                assert not watched.complaints
