from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.kernel.bpf_maps import OpenMaps
from gomem.tracer.kernel.cgroup_bill import limited, parse_io, parse_pressure, read_bill, read_bills
from gomem.tracer.kernel.cgroup_directory import Directory
from gomem.tracer.kernel.cgroup_tree import walk
from gomem.tracer.proc.mounts import Mount
from gomem.tracer.report import CgroupBill, FileIo, MemoryPressure, Stalled
from tests.support.cgroup_files import CgroupFiles

PRESSURE = """some avg10=1.50 avg60=20.00 avg300=0.25 total=62103
full avg10=0.00 avg60=11.10 avg300=0.00 total=1500000
"""
STAT = "anon 100\nfile 340\nkernel_stack 1\npagetables 2\nslab_reclaimable 3\nfile_mapped 40\nactive_file 200\n"
V1 = {
    "memory.usage_in_bytes": "1000", "memory.limit_in_bytes": "2000", "memory.max_usage_in_bytes": "1500",
    "memory.kmem.usage_in_bytes": "50", "memory.failcnt": "7", "cgroup.procs": "",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory.stat": "rss 1\ntotal_rss 400\ntotal_cache 540\ntotal_mapped_file 60\ntotal_active_file 300\n"
    "total_inactive_file 200\ntotal_shmem 40\ntotal_swap 5\nhierarchical_memory_limit 1800\n",
}  # fmt: skip


def mount(top: Path, kind: str = "cgroup2") -> Mount:
    return Mount(top.stat().st_dev, "/", str(top), (), kind, ())


def bills(top: Path, path: str) -> list[CgroupBill]:
    return read_bills(mount(top), str(top), path, 2)


def test_a_bill_of_v2_is_what_its_files_say(tmp_path: Path) -> None:
    files = CgroupFiles(tmp_path)
    files.make(
        "/pod", 500, "600", memory_stat=STAT + "inactive_file 100\nsock 9\nunknown 4\n", memory_peak="550\n",
        memory_pressure=PRESSURE, memory_events="low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\noom_group_kill 0\n",
        memory_swap_max="0\n",
    )  # fmt: skip
    for name, text in (("swap.current", "11\n"), ("swap.max", "0\n")):
        (tmp_path / "pod" / f"memory.{name}").write_text(text)
    (bill,) = bills(tmp_path, "/pod")
    assert (bill.memory_current, bill.memory_peak, bill.limit, bill.limited_by) == (500, 550, 600, "/pod")
    assert (bill.working_set, bill.reclaimable, bill.unmapped) == (400, 303, 360)
    assert bill.swap_max == 0
    assert bill.parts["kernel"] == 1 + 2 + 3, "before Linux 5.18 it is the sum"
    assert bill.parts["swap"] == 11
    assert "unknown" not in bill.parts
    assert bill.events == {"high": 3, "max": 2, "oom": 1, "oom_kill": 1}
    assert bill.pressure == MemoryPressure(Stalled(1.5, 20.0, 0.25, 0.062103), Stalled(0.0, 11.1, 0.0, 1.5))


def test_a_bill_of_v1_has_the_names_of_v2_and_counts_those_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, text in V1.items():
        (tmp_path / "a" / name).write_text(text)
    (bill,) = read_bills(mount(tmp_path, "cgroup"), str(tmp_path), "/a", 1)
    assert (bill.memory_current, bill.memory_max, bill.memory_peak) == (1000, 2000, 1500)
    assert (bill.limit, bill.limited_by) == (1800, None), "of a cgroup that cannot be seen"
    assert (bill.working_set, bill.reclaimable, bill.unmapped) == (800, 500, 540)
    assert bill.parts == {
        "anon": 400, "file": 540, "file_mapped": 60, "active_file": 300, "inactive_file": 200, "shmem": 40,
        "swap": 5, "kernel": 50,
    }  # fmt: skip
    assert bill.events == {"max": 7, "oom_kill": 2}
    assert bill.pressure is None


def test_the_working_set_is_never_below_nothing(tmp_path: Path) -> None:
    files = CgroupFiles(tmp_path)
    files.make("/a", 5, memory_stat="inactive_file 9\n")
    assert bills(tmp_path, "/a")[0].working_set == 0


def test_ancestors_are_told_if_they_have_a_limit_and_the_lowest_holds(tmp_path: Path) -> None:
    files = CgroupFiles(tmp_path)
    for path, limit in (("/k", "max"), ("/k/pod", "100"), ("/k/pod/free", "max"), ("/k/pod/free/app", "300")):
        files.make(path, 50, limit)
    (tmp_path / "k/pod/free/app/leaf").mkdir()  # without the memory controller
    found = bills(tmp_path, "/k/pod/free/app/leaf")
    assert [(one.path, one.memory_max, one.limit, one.limited_by) for one in found] == [
        ("/k/pod/free/app", 300, 100, "/k/pod"), ("/k/pod", 100, 100, "/k/pod"),
    ]  # fmt: skip
    assert bills(tmp_path, "/k")[0].limit is None
    with pytest.raises(FileNotFoundError):
        bills(tmp_path, "/gone")
    assert limited([]) == []


def test_all_cgroups_in_one_and_their_processes_are_walked(tmp_path: Path) -> None:
    files = CgroupFiles(tmp_path)
    files.make("/pod", 9, cgroup_procs="0\n")
    files.make("/pod/b", 5, cgroup_procs="7\n8\nx\n99999999999999999999999\n")
    files.make("/pod/a", 6, "50", cgroup_procs="9\n")
    (tmp_path / "pod/b/deep").mkdir()
    (tmp_path / "pod/b/deep/cgroup.procs").write_text("10\n7\n")
    (tmp_path / "pod/link").symlink_to("/")
    with Directory.of_mount(str(tmp_path), "/pod", tmp_path.stat().st_dev) as top:
        tree = walk(top, "/pod", 2)
    assert tree.pids == {7: "/b", 8: "/b", 9: "/a", 10: "/b/deep"}
    assert [(one.path, one.memory_max) for one in tree.bills] == [("/pod/a", 50), ("/pod/b", None)]
    assert (tree.cgroups, tree.unseen, tree.cut) == (4, 1, False)


def test_a_tree_that_is_deeper_than_anybody_needs_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    deep = tmp_path / "a"
    for _ in range(100):
        deep /= "x"
    deep.mkdir(parents=True)
    with Directory.of_mount(str(tmp_path), "/a", tmp_path.stat().st_dev) as top:
        tree = walk(top, "/a", 2)
    assert tree.cut
    assert tree.cgroups < 50


def test_io_is_what_was_written_less_what_was_thrown_away() -> None:
    raw = b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 50\nwrite_bytes: 70\ncancelled_write_bytes: 30\n"
    assert parse_io(raw) == FileIo(50, 40)
    assert parse_io(raw.replace(b"70", b"20")) == FileIo(50, 0)
    assert parse_io(raw[:40]) is None


def test_maps_are_looked_for_in_a_process_that_has_none_and_one_that_is_gone(tmp_path: Path) -> None:
    maps = OpenMaps()
    here = os.open("/proc/self", os.O_PATH)
    nothing = os.open(tmp_path, os.O_PATH)
    maps.look(here)
    maps.look(nothing)
    os.close(here)
    os.close(nothing)
    assert (maps.sizes, maps.readable, maps.cut) == ({}, True, False)


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    parse_pressure(text)
    parse_pressure(f"some avg10={text} avg60=1 avg300=1 total=1\nfull avg10=nan avg60=1 avg300=1 total=-1")
    parse_io(text.encode())


@given(st.dictionaries(st.sampled_from(sorted(V1)), st.text(max_size=200)))
def test_no_files_break_a_bill(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]) -> None:
    top = tmp_path_factory.mktemp("cgroup")
    for name, text in texts.items():
        (top / name).write_text(text)
    with Directory.of_mount(str(top), "", top.stat().st_dev) as files:
        bill = read_bill(files, "/", 1)
    assert bill is None or 0 <= (bill.reclaimable or 0) <= bill.memory_current
