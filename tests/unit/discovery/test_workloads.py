from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.discovery.cluster import Cluster, PodApi
from gomem.tracer.discovery.pods import Pod
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.discovery.workloads import OwnPod, Workloads, in_own_pod, own_pod, parse_labels, read_text
from gomem.tracer.errors import BackendUnavailable, UsageError
from tests.unit.discovery.test_selection import info

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UID = "6f1c3c2e-9b1a-4d6e-8a53-2f0d3c9e7b11"
OTHER_UID = "11111111-9b1a-4d6e-8a53-2f0d3c9e7b11"
OURS = OwnPod("checkout-1", "shop", UID, {"app": "checkout", "tier": "front"})
NAMELESS = OwnPod("checkout-1", "shop", None)


def test_without_more_the_cgroup_paths_tell() -> None:
    of = Workloads(node="node-1").of
    assert of(info(cgroups=("/", f"/kubepods/burstable/pod{UID}/{ID}"))) == Workload(ID, UID, node="node-1")
    assert of(info(cgroups=("/system.slice/etcd.service",))) == Workload(node="node-1")
    assert of(info(cgroups=())) == Workload(node="node-1")


@pytest.mark.parametrize(
    ("pod", "path", "shared", "ours"),
    [
        (OURS, f"/kubepods/pod{UID}/{ID}", False, True),
        (OURS, f"/kubepods/pod{OTHER_UID}/{ID}", False, False),
        (OURS, f"/kubepods/pod{OTHER_UID}/{ID}", True, False),
        (OURS, f"/../cri-containerd-{ID}.scope", False, True),
        (OURS, "/../../../system.slice/kubelet.service", False, False),
        (OURS, "/", True, True),
        (OURS, "/", False, False),
        (NAMELESS, f"/../{ID}", False, True),
        (NAMELESS, f"/../../pod{OTHER_UID}/{ID}", False, False),
        (NAMELESS, f"/../../pod{OTHER_UID}/{ID}", True, False),
        (NAMELESS, f"/docker/{ID}", True, True),
    ],
)
def test_processes_of_our_own_pod_are_told_from_others(pod: OwnPod, path: str, shared: bool, ours: bool) -> None:
    assert in_own_pod(pod, ["/", path] if path != "/" else ["/"], shared) is ours


def test_a_sidecar_names_the_processes_of_its_pod_and_no_others() -> None:
    workloads = Workloads(node="node-1", pod=OURS, sees_only_the_pod=False, label_keys=["app", "none"])
    ours = workloads.of(info(cgroups=(f"/kubepods/pod{UID}/{ID}",)))
    assert ours == Workload(ID, UID, "checkout-1", "shop", None, "node-1", {"app": "checkout"})
    others = workloads.of(info(cgroups=(f"/kubepods/pod{OTHER_UID}/{ID}",)))
    assert others == Workload(ID, OTHER_UID, node="node-1")


def test_the_pods_uid_is_known_also_where_the_paths_hide_it() -> None:
    workloads = Workloads(pod=OURS, sees_only_the_pod=True)
    assert workloads.of(info(cgroups=(f"/../{ID}",))) == Workload(ID, UID, "checkout-1", "shop")


def test_the_api_tells_more_than_the_environment() -> None:
    cluster = Cluster("node-1", ["app"])
    workloads = Workloads(node="node-1", pod=OURS, cluster=cluster)
    before = workloads.generation
    cluster.pods.put(Pod(UID, "checkout-1", "shop", {"app": "api"}, {ID: "main"}))
    assert workloads.generation != before
    seen = workloads.of(info(cgroups=(f"/kubepods/pod{UID}/{ID}",)))
    assert seen == Workload(ID, UID, "checkout-1", "shop", "main", "node-1", {"app": "api"})
    hidden = workloads.of(info(cgroups=(f"/../../{ID}",)))
    assert (hidden.pod_uid, hidden.container) == (UID, "main")


def test_an_api_that_cannot_be_asked_is_a_limit_at_once() -> None:
    def connect() -> PodApi:
        raise BackendUnavailable("no Kubernetes API is known here", "set KUBECONFIG")

    cluster = Cluster("node-1", connect=connect)
    workloads = Workloads(cluster=cluster)
    assert cluster.limit is None
    workloads.start()
    (limit,) = workloads.limits
    assert limit.why == "no Kubernetes API is known here: set KUBECONFIG"
    assert "pods" in limit.fix
    workloads.stop()
    assert Workloads().limits == ()


def test_the_environment_makes_a_sidecar() -> None:
    environ = {"GOMEM_POD_NAME": "checkout-1", "GOMEM_POD_NAMESPACE": "shop"}
    labels = 'app="checkout"\ntier="fr\\"ont"\n'
    assert own_pod(environ, [f"/kubepods/pod{UID}/{ID}"], labels) == OwnPod(
        "checkout-1", "shop", UID, {"app": "checkout", "tier": 'fr"ont'}
    )
    assert own_pod(environ | {"GOMEM_POD_UID": OTHER_UID}, ["/"]) == OwnPod("checkout-1", "shop", OTHER_UID)
    assert own_pod({"GOMEM_POD_NAME": ""}, ["/"]) is None
    assert own_pod({"GOMEM_POD_NAMESPACE": "shop"}, ["/"]) is None


def test_the_labels_of_the_volume_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gomem.tracer.discovery.workloads._REREAD", 0.0)
    labels = tmp_path / "labels"
    labels.write_text('app="checkout"')
    environ = {"GOMEM_POD_NAME": "checkout-1", "GOMEM_PODINFO": str(tmp_path), "GOMEM_NODE_NAME": "node-1"}
    workloads = Workloads.here(environ, label_keys=["app"])
    ours = info(cgroups=(f"/../{ID}",))
    assert workloads.of(ours).labels == {"app": "checkout"}
    assert workloads.of(ours).node == "node-1"
    before = workloads.generation
    assert workloads.generation == before
    labels.write_text('app="other"')
    assert workloads.generation != before
    assert workloads.of(ours).labels == {"app": "other"}


def test_without_an_environment_nothing_is_made_up() -> None:
    workloads = Workloads.here({})
    assert workloads.of(info(cgroups=(f"/../{ID}",))) == Workload(ID)
    assert workloads.limits == ()


def test_to_ask_the_api_the_node_must_be_known() -> None:
    with pytest.raises(UsageError, match="GOMEM_NODE_NAME") as raised:
        Workloads.here({}, api=True)
    assert "spec.nodeName" in raised.value.fix


def test_lines_that_are_no_labels_are_skipped() -> None:
    text = 'a="1"\n\nno label\nb=2\nc="3\n=""\nd="" \n e="x=\\"y\\""\nf="\\"\n'
    assert parse_labels(text) == {"a": "1", "d": "", "e": 'x="y"'}


@given(st.text(max_size=200))
def test_any_text_is_taken_for_labels(text: str) -> None:
    parse_labels(text)


def test_labels_without_end_are_cut(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text('a="1"\n' * 200_000)
    assert len(read_text(tmp_path / "labels")) <= 1 << 18
    assert read_text(tmp_path / "none") == ""
    assert read_text(tmp_path) == ""
