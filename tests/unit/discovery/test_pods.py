from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.tracer.discovery import pods as pods_module
from gomem.tracer.discovery.pods import Pod, Pods, parse_pod

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


def described(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "checkout-1", "namespace": "shop", "uid": "uid-1", "labels": {"app": "checkout", "n": 7}},
        "status": status,
    }


def test_containers_of_all_kinds_are_known_by_their_plain_ids() -> None:
    pod = parse_pod(
        described(
            containerStatuses=[
                {"name": "main", "containerID": f"containerd://{ID}"},
                {"name": "new", "containerID": ""},
            ],
            initContainerStatuses=[{"name": "init", "containerID": f"cri-o://{OTHER}"}, {"name": "waits"}],
            ephemeralContainerStatuses=[{"name": "debug", "containerID": "docker://abc"}],
        )
    )
    assert pod == Pod("uid-1", "checkout-1", "shop", {}, {ID: "main", OTHER: "init", "abc": "debug"})


def test_only_the_labels_that_were_asked_for_are_kept() -> None:
    pod = parse_pod(described(), ["app", "n", "tier"])
    assert pod is not None
    assert pod.labels == {"app": "checkout"}


def owned(kind: str, name: str, **labels: str) -> dict[str, Any]:
    """Describe a pod as its controller makes it."""
    reference = {"kind": kind, "name": name, "controller": True}
    return {"labels": labels, "ownerReferences": [{"kind": "Other", "name": "x"}, reference]}


@pytest.mark.parametrize(
    ("pod", "more", "workload"),
    [
        ("api-7d4b9c-x2x4z", owned("ReplicaSet", "api-7d4b9c", **{"pod-template-hash": "7d4b9c"}), "api"),
        ("bare-x2x4z", owned("ReplicaSet", "bare"), "bare"),  # a ReplicaSet that belongs to no Deployment
        ("db-0", owned("StatefulSet", "db"), "db"),
        ("logs-x2x4z", owned("DaemonSet", "logs"), "logs"),
        ("backup-29000000-abcde", owned("Job", "backup-29000000"), "backup-29000000"),
        # A sidecar is told the labels alone.
        ("api-7d4b9c-x2x4z", {"labels": {"pod-template-hash": "7d4b9c"}}, "api"),
        ("db-12", {"labels": {"statefulset.kubernetes.io/pod-name": "db-12"}}, "db"),
        ("logs-x2x4z", {"labels": {"controller-revision-hash": "5f", "pod-template-generation": "1"}}, "logs"),
        ("alone", {"labels": {"app": "alone"}}, None),
        ("odd", {"labels": {"pod-template-hash": "("}, "ownerReferences": "none"}, None),
    ],
)
def test_the_workload_is_what_made_the_pod(pod: str, more: dict[str, Any], workload: str | None) -> None:
    one = described()
    one["metadata"] |= {"name": pod, **more}
    found = parse_pod(one)
    assert found is not None
    assert found.workload == workload


@pytest.mark.parametrize("key", ["name", "namespace", "uid"])
@pytest.mark.parametrize("value", [None, "", 7, "x" * 300])
def test_what_has_no_usable_name_is_no_pod(key: str, value: object) -> None:
    broken = described()
    broken["metadata"][key] = value
    assert parse_pod(broken) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON, JSON)
def test_any_json_is_a_pod_or_none(whole: object, labels: object, statuses: object, status: object) -> None:
    assert parse_pod(whole, ["app"]) is None
    metadata = {"name": "a", "namespace": "b", "uid": "c", "labels": labels, "annotations": labels}
    for inner in (status, {"containerStatuses": statuses}, {"containerStatuses": [statuses]}):
        assert parse_pod({"metadata": metadata, "status": inner}, ["app"]) is not None


def test_a_pod_with_containers_without_end_keeps_some() -> None:
    endless = [{"name": "c", "containerID": f"x://{number}"} for number in range(10_000)]
    pod = parse_pod(described(containerStatuses=endless))
    assert pod is not None
    assert len(pod.containers) == pods_module.MOST_CONTAINERS


def test_a_container_is_found_by_its_id_else_by_its_pod() -> None:
    pods = Pods()
    pod = Pod("uid-1", "checkout-1", "shop", containers={ID: "main"})
    pods.replace([pod])
    assert pods.find(ID, None) == (pod, "main")
    assert pods.find(OTHER, "uid-1") == (pod, None)
    assert pods.find(None, "uid-1") == (pod, None)
    assert pods.find(OTHER, "uid-2") == (None, None)
    assert pods.find(None, None) == (None, None)


def test_a_static_pod_is_found_by_the_hash_of_its_manifest() -> None:
    static = described()
    static["metadata"]["annotations"] = {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef"}
    pod = parse_pod(static)
    assert pod is not None
    pods = Pods()
    pods.put(pod)
    assert pods.find(None, "0123456789abcdef0123456789abcdef") == (pod, None)
    assert pods.find(None, "uid-1") == (pod, None)


def test_the_generation_changes_when_and_only_when_an_answer_can_have_changed() -> None:
    pods = Pods()
    pod = Pod("uid-1", "checkout-1", "shop", containers={ID: "main"})
    pods.put(pod)
    first = pods.generation
    pods.put(Pod("uid-1", "checkout-1", "shop", containers={ID: "main"}))
    pods.drop("uid-2")
    assert pods.generation == first
    pods.put(Pod("uid-1", "checkout-1", "shop"))
    assert pods.generation > first
    assert pods.find(ID, None) == (None, None)
    second = pods.generation
    pods.drop("uid-1")
    assert pods.generation > second
    assert len(pods) == 0


def test_the_table_of_pods_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods_module, "MOST_PODS", 3)
    pods = Pods()
    pods.replace(Pod(f"uid-{number}", "name", "shop") for number in range(5))
    assert (len(pods), pods.left_out) == (3, 2)
    pods.put(Pod("uid-0", "new name", "shop"))
    pods.put(Pod("uid-9", "name", "shop"))
    assert (len(pods), pods.left_out) == (3, 3)
    found, _ = pods.find(None, "uid-0")
    assert found is not None
    assert found.name == "new name"
