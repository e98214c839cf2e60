from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.discovery.process_info import (
    TICKS_PER_SECOND,
    ProcessInfo,
    Unavailable,
    age,
    cgroup_paths,
    is_ending,
    look,
)
from gomem.tracer.proc.cgroup_paths import first_found
from gomem.tracer.proc.small_files import parse_stat
from tests.unit.discovery.test_selection import info

ID = "0123456789abcdef" * 4
UID = "6f1c3c2e-9b1a-4d6e-8a53-2f0d3c9e7b11"
SLICED = UID.replace("-", "_")
BURSTABLE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice"

# /proc/PID/cgroup as it stands on machines of each kind.
V1_DOCKER = f"""\
12:rdma:/
11:memory:/docker/{ID}
10:cpuset:/docker/{ID}
9:pids:/docker/{ID}
8:net_cls,net_prio:/docker/{ID}
7:cpu,cpuacct:/docker/{ID}
1:name=systemd:/docker/{ID}
0::/system.slice/containerd.service
"""
V1_KUBELET_CGROUPFS = f"""\
11:perf_event:/kubepods/besteffort/pod{UID}/{ID}
4:memory:/kubepods/besteffort/pod{UID}/{ID}
1:name=systemd:/kubepods/besteffort/pod{UID}/{ID}
"""
HYBRID_CONTAINERD = f"""\
12:pids:{BURSTABLE}/cri-containerd-{ID}.scope
5:memory:{BURSTABLE}/cri-containerd-{ID}.scope
1:name=systemd:{BURSTABLE}/cri-containerd-{ID}.scope
0::{BURSTABLE}/cri-containerd-{ID}.scope
"""
HYBRID_MISMATCH = f"""\
3:cpu,cpuacct:/system.slice/containerd.service/kubepods-burstable-pod{SLICED}.slice:cri-containerd:{ID}
0::/
"""
V2_CRIO = f"0::{BURSTABLE}/crio-{ID}.scope/container\n"
V2_NAMESPACED = f"0::/../../kubepods-burstable-pod{SLICED}.slice/cri-containerd-{ID}.scope\n"
V2_ENDED = f"0::{BURSTABLE}/cri-containerd-{ID}.scope (deleted)\n"


@pytest.mark.parametrize(
    ("text", "pod"),
    [(V1_DOCKER, None), (V1_KUBELET_CGROUPFS, UID), (HYBRID_CONTAINERD, UID), (HYBRID_MISMATCH, UID), (V2_CRIO, UID),
     (V2_NAMESPACED, UID), (V2_ENDED, UID)],
)  # fmt: skip
def test_container_and_pod_are_found_in_the_files_of_all_kinds_of_machines(text: str, pod: str | None) -> None:
    assert first_found(cgroup_paths(text)) == (ID, pod)


def test_each_path_is_kept_once_in_the_order_of_the_file() -> None:
    assert cgroup_paths(V1_DOCKER) == ("/", f"/docker/{ID}", "/system.slice/containerd.service")


@pytest.mark.parametrize("text", ["", "\n", "0::", "0:/", "no line", "0::relative\n", "::\n"])
def test_what_is_no_line_of_it_names_no_cgroup(text: str) -> None:
    assert cgroup_paths(text) == ()


def test_colons_belong_to_the_path() -> None:
    assert cgroup_paths("1:name=x:/a:b:c\n") == ("/a:b:c",)


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert all(path.startswith("/") for path in cgroup_paths(text))


def test_cgroups_without_end_are_cut() -> None:
    assert len(cgroup_paths("".join(f"{n}:x:/{n}\n" for n in range(10_000)))) == 64


def test_the_name_is_that_of_the_executable_else_what_the_kernel_calls_it() -> None:
    assert info(exe="/usr/bin/etcd").name == "etcd"
    assert info(exe="").name == "comm"


def test_a_process_that_started_now_has_no_age() -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert age(int((now - 100) * TICKS_PER_SECOND)) >= 100
    assert age(int((now + 100) * TICKS_PER_SECOND)) < 0.1


@pytest.mark.parametrize(
    ("state", "flags", "ending"), [("S", 0, False), ("Z", 0, True), ("X", 0, True), ("R", 4, True)]
)
def test_processes_that_end_are_told_by_state_and_flags(state: str, flags: int, ending: bool) -> None:
    words = ["1", "(x)", state, "0", "0", "0", "0", "0", str(flags), *["0"] * 44]
    assert is_ending(parse_stat(" ".join(words).encode())) is ending


def test_a_look_at_oneself_tells_all() -> None:
    seen = look(os.getpid())
    assert isinstance(seen, ProcessInfo)
    assert seen.pid == os.getpid()
    assert os.path.samefile(seen.exe, "/proc/self/exe")
    assert seen.uid == os.getuid()
    assert seen.identity.exe.inode == os.stat("/proc/self/exe").st_ino


def test_numbers_without_a_process_are_gone() -> None:
    assert look(0) is Unavailable.GONE
    assert look(1 << 30) is Unavailable.GONE
