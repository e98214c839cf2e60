from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.container import container_id, first_found, pod_uid

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UID = "6f1c3c2e-9b1a-4d6e-8a53-2f0d3c9e7b11"
SLICED = UID.replace("-", "_")
TASK = "0123456789abcdef" * 2

PATHS = [
    # docker: cgroupfs driver, systemd driver, in another container, through another cgroup namespace
    (f"/docker/{ID}", ID, None),
    (f"/system.slice/docker-{ID}.scope", ID, None),
    (f"/docker/{OTHER}/docker/{ID}", ID, None),
    (f"/docker/{ID}/system.slice/nginx.service", ID, None),
    (f"/../{ID}", ID, None),
    # containerd under the kubelet
    (f"/kubepods/burstable/pod{UID}/{ID}", ID, UID),
    (f"/kubepods/pod{UID}/{ID}", ID, UID),
    (f"/kubepods.slice/kubepods-a.slice/kubepods-burstable-pod{SLICED}.slice/cri-containerd-{ID}.scope", ID, UID),
    (f"/kubepods.slice/kubepods-pod{SLICED}.slice/cri-containerd-{ID}.scope", ID, UID),
    (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
     f"kubelet-kubepods-besteffort-pod{SLICED}.slice/cri-containerd-{ID}.scope", ID, UID),
    (f"/system.slice/containerd.service/kubepods-burstable-pod{SLICED}.slice:cri-containerd:{ID}", ID, UID),
    (f"/kubepods/burstable/pod{TASK}/{ID}", ID, TASK),
    (f"/docker/{OTHER}/kubepods/besteffort/pod{UID}/{ID}", ID, UID),
    # CRI-O, with its monitor beside it
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice/crio-{ID}.scope", ID, UID),
    (f"/kubepods.slice/kubepods-pod{SLICED}.slice/crio-{ID}.scope/container", ID, UID),
    (f"/kubepods.slice/kubepods-pod{SLICED}.slice/crio-conmon-{ID}.scope", None, UID),
    # podman, of root and of a user
    (f"/machine.slice/libpod-{ID}.scope/container", ID, None),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container", ID, None),
    (f"/libpod_parent/libpod-{ID}", ID, None),
    (f"/machine.slice/libpod-conmon-{ID}.scope", None, None),
    # Amazon ECS, on machines and on Fargate
    (f"/ecs/{UID}/{ID}", ID, None),
    (f"/ecs/{TASK}/{TASK}-1234567890", f"{TASK}-1234567890", None),
    # none
    ("/", None, None),
    ("/user.slice/user-1000.slice/session-2.scope", None, None),
    ("/system.slice/etcd.service", None, None),
    (f"/process_api/{TASK}", None, None),
    (f"/system.slice/{ID[:-1]}.scope", None, None),
    (f"/x/{TASK}-12", None, None),
    ("/kubepods/podcast", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "container", "pod"), PATHS)
def test_container_and_pod_are_read_from_the_path(path: str, container: str | None, pod: str | None) -> None:
    assert (container_id(path), pod_uid(path)) == (container, pod)


def test_hybrid_hierarchies_give_the_first_path_that_names_one() -> None:
    assert first_found(["/", f"/kubepods/pod{UID}/{ID}", f"/docker/{OTHER}"]) == (ID, UID)
    assert first_found([]) == (None, None)


@given(st.text(alphabet="abcdef0123456789-_/.:podscope", max_size=300))
def test_any_path_is_answered(path: str) -> None:
    found = container_id(path)
    assert found is None or found in path
    pod_uid(path)
