"""Kills are counted by place: over restarts, renamings and the end of cgroups, and none is counted twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.cgroups import KEPT, Cgroups, machine_kills, place_of
from tests.support.cgroup_files import CgroupFiles
from tests.support.processes import wait_until

POD = "/kubepods/pod11111111-2222-3333-4444-555555555555"
FIRST, SECOND = f"{POD}/{'a' * 64}", f"{POD}/{'b' * 64}"
NAMED = Workload(container_id="a" * 64, pod="api-1", namespace="shop", container="app")
UNNAMED = replace(NAMED, pod=None, namespace=None, container=None)
Kills = dict[tuple[str, str], int]


@pytest.fixture
def files(tmp_path: Path) -> CgroupFiles:
    files = CgroupFiles(tmp_path)
    files.make(POD)
    files.make(FIRST)
    return files


@pytest.fixture
def watched() -> Iterator[Cgroups]:
    made = Cgroups(3600.0, lambda: 0)
    yield made
    made.close()


def kills(cgroups: Cgroups, later: float = 0.0) -> Kills:
    """Return the count of each place after the kernel has been asked."""
    cgroups.ask(time.monotonic() + later, figures=True)
    return {(view.path, view.workload.container or ""): view.oom_kills for view in cgroups.views()}


def test_the_count_of_a_container_goes_on_when_it_starts_anew(files: CgroupFiles, watched: Cgroups) -> None:
    watched.joined(7, files.open(FIRST), NAMED)
    assert kills(watched) == {(POD, ""): 0, (POD, "app"): 0}
    files.kill(FIRST)
    assert kills(watched) == {(POD, ""): 0, (POD, "app"): 1}
    watched.left(7)
    files.remove(FIRST)
    assert kills(watched) == {(POD, ""): 0, (POD, "app"): 1}
    assert all(view.memory is None for view in watched.views())
    files.make(SECOND, 5 << 20)
    watched.joined(8, files.open(SECOND), replace(NAMED, container_id="b" * 64))
    files.kill(SECOND)
    assert kills(watched) == {(POD, ""): 0, (POD, "app"): 2}
    (memory,) = [view.memory for view in watched.views() if view.memory is not None]
    assert memory.current == 5 << 20


def test_a_kill_in_a_cgroup_that_is_gone_already_is_its_pods(files: CgroupFiles, watched: Cgroups) -> None:
    watched.joined(7, files.open(FIRST), NAMED)
    assert kills(watched) == {(POD, ""): 0, (POD, "app"): 0}
    files.kill(FIRST)
    files.remove(FIRST)
    assert kills(watched) == kills(watched) == {(POD, ""): 1, (POD, "app"): 0}
    # What comes next is not counted twice, nor covered by what was counted for the pod.
    files.make(SECOND)
    watched.joined(8, files.open(SECOND), NAMED)
    files.kill(SECOND)
    assert kills(watched) == kills(watched) == {(POD, ""): 1, (POD, "app"): 1}


def test_kills_in_the_other_container_of_a_pod_are_not_this_ones(files: CgroupFiles, watched: Cgroups) -> None:
    files.make(SECOND)
    watched.joined(7, files.open(FIRST), NAMED)
    watched.joined(8, files.open(SECOND), replace(NAMED, container="sidecar"))
    files.kill(SECOND)
    assert kills(watched) == {(POD, ""): 0, (POD, "app"): 0, (POD, "sidecar"): 1}


def test_kills_before_gomem_came_are_no_increase(files: CgroupFiles, watched: Cgroups) -> None:
    files.kill(FIRST)
    watched.joined(7, files.open(FIRST), NAMED)
    assert kills(watched) == kills(watched) == {(POD, ""): 0, (POD, "app"): 1}


def test_a_pod_that_gets_its_name_later_takes_its_count_along(files: CgroupFiles, watched: Cgroups) -> None:
    watched.joined(7, files.open(FIRST), UNNAMED)
    files.kill(FIRST)
    assert kills(watched) == {(POD, ""): 0, (FIRST, ""): 1}
    watched.joined(7, None, NAMED)
    assert kills(watched) == {(POD, ""): 0, (POD, "app"): 1}
    assert {view.workload.pod for view in watched.views()} == {"api-1"}


def test_the_count_of_a_cgroup_without_a_name_is_there_for_a_while_after_its_end(
    files: CgroupFiles, watched: Cgroups
) -> None:
    files.make("/docker/c")
    watched.joined(7, files.open("/docker/c"), Workload())
    files.kill("/docker/c")
    assert kills(watched) == {("/docker/c", ""): 1}
    files.remove("/docker/c")
    assert kills(watched) == {("/docker/c", ""): 1}
    assert kills(watched, later=KEPT + 60) == {}


def test_processes_of_one_cgroup_share_its_figures_and_one_that_moves_takes_them_along(
    files: CgroupFiles, watched: Cgroups
) -> None:
    files.make("/one")
    files.make("/two")
    for pid in (7, 8, 9):
        watched.joined(pid, files.open("/one"), Workload())
    assert list(kills(watched)) == [("/one", "")]
    watched.joined(9, files.open("/two"), Workload())
    watched.left(7)
    watched.left(8)
    assert list(kills(watched)) == [("/one", ""), ("/two", "")]
    assert list(kills(watched, later=KEPT + 60)) == [("/two", "")]


def test_the_thread_asks_as_soon_as_the_machine_counts_a_kill(files: CgroupFiles) -> None:
    machine = [0]
    cgroups = Cgroups(3600.0, lambda: machine[0])
    try:
        cgroups.joined(7, files.open(FIRST), NAMED)
        files.kill(FIRST)
        machine[0] += 1
        wait_until(lambda: sum(view.oom_kills for view in cgroups.views()) == 1, "the kill is counted")
    finally:
        cgroups.close()


@pytest.mark.parametrize("machine", [lambda: None, machine_kills])
def test_the_count_of_the_machine_is_the_kernels_or_none(machine: Callable[[], int | None]) -> None:
    text = Path("/proc/vmstat").read_text()
    assert machine() is None or f"\noom_kill {machine()}\n" in text


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (FIRST, POD),
        (f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{'c' * 64}.scope", "/kubepods.slice/kubepods-pod1.slice"),
        (f"/../{'d' * 64}", "/.."),
        ("/system.slice/web.service", "/system.slice/web.service"),
    ],
)
def test_the_path_of_a_named_container_has_no_id(path: str, place: str) -> None:
    assert place_of(path, NAMED) == place
    assert place_of(path, UNNAMED) == path
