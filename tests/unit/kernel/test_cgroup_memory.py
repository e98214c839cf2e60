from __future__ import annotations

from pathlib import Path

import pytest

from gomem.tracer.kernel.cgroup import Membership
from gomem.tracer.kernel.cgroup_memory import CgroupMemory, open_charged
from gomem.tracer.proc.mounts import Mount
from tests.support.cgroup_files import CgroupFiles

POD = "/kubepods.slice/kubepods-pod11111111_2222_3333_4444_555555555555.slice"
CONTAINER = f"{POD}/cri-containerd-{'a' * 64}.scope"
STAT = "anon 600\nfile 320\nkernel 80\nshmem 20\ninactive_file 200\nactive_file 100\nslab_reclaimable 50\nunknown 9\n"


def test_the_figures_of_v2_are_those_of_the_container_and_the_limit_that_of_whom_it_binds(tmp_path: Path) -> None:
    files = CgroupFiles(tmp_path)
    files.make(POD, limit="900")
    files.make(CONTAINER, 1000, "1000", memory_stat=STAT,
               memory_events="low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n")  # fmt: skip
    files.make(f"{CONTAINER}/init.scope", 10)  # of a container's own systemd
    opened = files.open(f"{CONTAINER}/init.scope")
    memory = opened.memory()
    assert opened.path == CONTAINER
    assert memory == CgroupMemory(
        1000, 900, None,
        {"anon": 600, "active_file": 100, "inactive_file": 200, "shmem": 20, "slab_reclaimable": 50},
        {"high": 2, "max": 3, "oom": 4},
    )  # fmt: skip
    # cAdvisor (container/libcontainer/handler.go) subtracts inactive_file alone.
    assert (memory.working_set, memory.unreclaimable, opened.oom_kills()) == (800, 650, 5)
    pod = opened.pod()
    assert pod is not None
    assert (pod.path, pod.oom_kills()) == (POD, 0)
    files.remove(CONTAINER)
    assert opened.removed
    assert opened.oom_kills() is None
    assert not pod.removed
    opened.close()
    pod.close()


def test_the_figures_of_v1_have_the_names_of_v2_and_no_pod_counts_for_its_containers(tmp_path: Path) -> None:
    path = f"/kubepods/pod11111111-2222-3333-4444-555555555555/{'b' * 64}"
    directory = tmp_path / path[1:]
    directory.mkdir(parents=True)
    for name, text in {
        "memory.usage_in_bytes": "1000", "memory.limit_in_bytes": str(2**63 - 4096), "memory.failcnt": "7",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory.stat": "cache 1\nrss 1\nhierarchical_memory_limit 2000\ntotal_rss 500\ntotal_shmem 10\n"
                       "total_inactive_file 300\ntotal_active_file 100\n",
    }.items():  # fmt: skip
        (directory / name).write_text(text)
    opened = open_charged(Membership(1, path), Mount(tmp_path.stat().st_dev, "/", "", (), "cgroup", ()), str(tmp_path))
    assert opened is not None
    memory = opened.memory()
    assert (memory.current, memory.max, memory.high, memory.events) == (1000, 2000, None, {"max": 7})
    assert memory.kinds == {"anon": 500, "active_file": 100, "inactive_file": 300, "shmem": 10}
    assert (memory.working_set, memory.unreclaimable, opened.oom_kills(), opened.pod()) == (700, 600, 2, None)
    opened.close()


def test_two_cgroups_below_one_that_is_charged_for_both_are_that_one(tmp_path: Path) -> None:
    files = CgroupFiles(tmp_path)
    files.make("/user.slice")
    for leaf in ("one", "two"):
        (tmp_path / "user.slice" / leaf).mkdir()
    one, two = files.open("/user.slice/one"), files.open("/user.slice/two")
    assert (one.path, one.key) == (two.path, two.key) == ("/user.slice", one.key)
    one.close()
    two.close()


def test_what_cannot_be_had_is_none(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    mount = Mount(tmp_path.stat().st_dev, "/", "", (), "cgroup2", ())
    assert open_charged(Membership(2, "/c"), mount, str(tmp_path)) is None
    with pytest.raises(FileNotFoundError):
        open_charged(Membership(2, "/none"), mount, str(tmp_path))
    (tmp_path / "c" / "memory.current").write_text("5")
    opened = open_charged(Membership(2, "/c"), mount, str(tmp_path))
    assert opened is not None
    assert opened.memory() == CgroupMemory(5, None, None)
    assert (opened.memory().working_set, opened.memory().unreclaimable, opened.oom_kills()) == (None, None, None)
    opened.close()
