from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.proc.cgroup_paths import container_id, first_found, neighbour_id, pod_uid

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
    # the kubelet's cgroups as another cgroup namespace shows them: the part above our own root is hidden
    (f"/../../kubepods-besteffort-pod{SLICED}.slice/cri-containerd-{ID}.scope", ID, UID),
    (f"/../../../burstable/pod{UID}/{ID}", ID, UID),
    (f"/../cri-containerd-{ID}.scope", ID, None),
    (f"/../../kubelet-kubepods-burstable-pod{SLICED}.slice/crio-{ID}.scope", ID, UID),
    # a node that is itself a container (kind, k3d)
    (f"/docker/{OTHER}/kubelet/kubepods/burstable/pod{UID}/{ID}", ID, UID),
    (f"/system.slice/docker-{OTHER}.scope/kubelet.slice/kubelet-kubepods.slice/"
     f"kubelet-kubepods-pod{SLICED}.slice/cri-containerd-{ID}.scope", ID, UID),
    # docker and systemd inside a pod's container
    (f"/kubepods/burstable/pod{UID}/{OTHER}/docker/{ID}", ID, UID),
    (f"/kubepods/burstable/pod{UID}/{ID}/system.slice/app.service", ID, UID),
    # docker and dockershim under the kubelet, both drivers
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice/docker-{ID}.scope", ID, UID),
    (f"/kubepods/guaranteed/pod{UID}/crio-{ID}", ID, UID),
    # containerd by itself, nerdctl
    (f"/system.slice/nerdctl-{ID}.scope", ID, None),
    (f"/default/{ID}", ID, None),
    # podman's pods are none of Kubernetes'
    (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope/container", ID, None),
    (f"/machine.slice/machine-libpod_pod_{OTHER}.slice", None, None),
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


@pytest.mark.parametrize(
    ("path", "beside"),
    [
        (f"/../{ID}", ID),
        (f"/../cri-containerd-{ID}.scope", ID),
        (f"/../crio-{ID}.scope/container", ID),
        (f"/../{ID}/system.slice/app.service", ID),
        ("/", None),
        (f"/{ID}", None),
        (f"/../../{ID}", None),
        (f"/../../kubepods-pod{SLICED}.slice/cri-containerd-{ID}.scope", None),
        (f"/../system.slice/docker-{ID}.scope", None),
        (f"/../crio-conmon-{ID}.scope", None),
    ],
)
def test_containers_beside_our_own_are_told_from_those_further_away(path: str, beside: str | None) -> None:
    assert neighbour_id(path) == beside


@given(st.text(alphabet="abcdef0123456789-_/.:podscope", max_size=300))
def test_any_path_is_answered(path: str) -> None:
    found = container_id(path)
    assert found is None or found in path
    pod_uid(path)
