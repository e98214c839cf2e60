from __future__ import annotations

import os
from pathlib import Path

import pytest

from gomem.tracer.kernel.cgroup import Membership, below, hierarchy_mounts, memory_membership, read_figures
from gomem.tracer.proc.mounts import Mount, parse_mountinfo
from gomem.tracer.report import Cgroup

HYBRID = "9:name=systemd:/\n4:memory:/pod/a\n1:cpu,cpuacct:/b\n0::/unified\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/user.slice/x:y.scope\n", Membership(2, "/user.slice/x:y.scope")),
        (HYBRID, Membership(1, "/pod/a")),
        ("3:cpu,memory,pids:/c\n", Membership(1, "/c")),
        ("0::/gone (deleted)\n", Membership(2, "/gone")),
        ("2:memoryless:/x\n", None),
        ("", None),
        ("garbage\n0:\n::::\n", None),
    ],
)
def test_memory_is_governed_by_v1_where_it_has_the_controller(text: str, expected: Membership | None) -> None:
    assert memory_membership(text) == expected


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("/", "/", ""),
        ("/", "/a/b", "/a/b"),
        ("/a", "/a/b", "/b"),
        ("/a", "/a", ""),
        ("/a", "/ab", None),
        ("/", "/..", None),
        ("/", "/../sibling", None),
        ("/..", "/../sibling", "/sibling"),
        ("/..", "/../../x", None),
        ("/../..", "/../x", None),
    ],
)
def test_a_path_is_placed_below_what_is_mounted(root: str, path: str, expected: str | None) -> None:
    assert below(root, path) == expected


def test_mounts_of_the_governing_hierarchy_are_found() -> None:
    mounts = parse_mountinfo(
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n"
        "29 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "41 31 0:38 /../.. /mnt/two\\040words rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "a line that is none\n41 31 0:x / / rw - ext4 a b\n"
    )
    assert [mount.point for mount in hierarchy_mounts(mounts, 1)] == ["/sys/fs/cgroup/memory"]
    (unified,) = hierarchy_mounts(mounts, 2)
    assert (unified.point, unified.root, unified.device) == ("/mnt/two words", "/../..", os.makedev(0, 38))


def write(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)


def mounted(directory: Path, root: str = "/") -> Mount:
    return Mount(directory.stat().st_dev, root, str(directory), (), "cgroup2", ())


def test_v2_limit_of_an_ancestor_is_the_effective_one(tmp_path: Path) -> None:
    write(tmp_path, {"cgroup.procs": ""})  # the root cgroup has no memory files
    write(tmp_path / "pod", {"memory.current": "900\n", "memory.max": "1000\n", "memory.high": "max\n"})
    events = "low 0\nhigh 4\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n"
    write(
        tmp_path / "pod/c",
        {"memory.current": "700\n", "memory.max": "max\n", "memory.high": "800\n", "memory.events": events},
    )
    found = read_figures(Membership(2, "/pod/c"), mounted(tmp_path), str(tmp_path))
    assert found.cgroup == Cgroup("/pod/c", 700, None, 800, 2)
    assert (found.effective_max, found.limited_by, found.charged) == (1000, "/pod", "/pod/c")


def test_v2_leaf_without_the_controller_is_charged_to_its_parent(tmp_path: Path) -> None:
    write(tmp_path / "a", {"memory.current": "5\n", "memory.max": "6\n"})
    write(tmp_path / "a/leaf", {"cgroup.procs": ""})
    found = read_figures(Membership(2, "/a/leaf"), mounted(tmp_path), str(tmp_path))
    assert (found.cgroup.path, found.charged) == ("/a/leaf", "/a")
    assert (found.cgroup.memory_current, found.cgroup.memory_max, found.cgroup.oom_kill) == (5, 6, None)


def test_v1_names_are_put_under_v2s_and_its_huge_limit_means_none(tmp_path: Path) -> None:
    unlimited = str((2**63 - 1) // 4096 * 4096)
    write(
        tmp_path / "c",
        {
            "memory.usage_in_bytes": "42\n",
            "memory.limit_in_bytes": unlimited,
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
            "memory.stat": f"cache 1\nhierarchical_memory_limit {unlimited}\n",
        },
    )
    found = read_figures(Membership(1, "/c"), mounted(tmp_path), str(tmp_path))
    assert found.cgroup == Cgroup("/c", 42, None, None, 7)
    assert found.effective_max is None
    # A limit above the mount, in a hierarchy of which only a part is visible.
    write(tmp_path / "c", {"memory.stat": "hierarchical_memory_limit 4096\n"})
    assert read_figures(Membership(1, "/c"), mounted(tmp_path), str(tmp_path)).effective_max == 4096


def test_a_directory_of_another_file_system_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path / "c", {"memory.current": "1\n"})
    foreign = Mount(tmp_path.stat().st_dev + 1, "/", str(tmp_path), (), "cgroup2", ())
    with pytest.raises(FileNotFoundError):
        read_figures(Membership(2, "/c"), foreign, str(tmp_path))


def test_links_and_oversized_numbers_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("77")
    write(tmp_path / "c", {"memory.max": "9" * 5000})
    (tmp_path / "c/memory.current").symlink_to(secret)
    found = read_figures(Membership(2, "/c"), mounted(tmp_path), str(tmp_path))
    assert found.cgroup == Cgroup("/c", None, None, None, None)
