"""A sidecar adds itself to somebody else's workload, and changes nothing else of it and of who reaches it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.support.kustomize import built_with
from tests.support.manifests import chart, overlay
from tests.support.workloads import KINDS, Document, Pod, of_kind, pods, selected, selects

kubernetes_validate = pytest.importorskip("kubernetes_validate")

SIDECARS = {
    "sidecar": ["sidecar", "sidecar-pod-monitor"],
    "sidecar-same-user": ["sidecar-same-user", "sidecar-pod-monitor"],
    "sidecar-older-kernels": ["sidecar", "older-kernels", "sidecar-pod-monitor"],
}
SHOP = "shop"


def workload(kind: str, name: str, labels: dict[str, str], **spec: Any) -> Document:
    container = {
        "name": "server", "image": "registry.example.net/shop:3",
        "ports": [{"name": "metrics", "containerPort": 8080}, {"name": "http", "containerPort": 80}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "selector": {"matchLabels": dict(labels)},
            "template": {"metadata": {"labels": dict(labels)}, "spec": {"containers": [container], **spec}},
            **({"serviceName": name} if kind == "StatefulSet" else {}),
        },
    }  # fmt: skip


THEIRS = [
    workload("Deployment", "checkout", {"app": "checkout", "tier": "front"}),
    workload(
        "StatefulSet", "orders", {"app.kubernetes.io/name": "orders", "app.kubernetes.io/component": "node"},
        serviceAccountName="orders", automountServiceAccountToken=True,
        securityContext={"runAsUser": 1000, "fsGroup": 5},
        volumes=[{"name": "podinfo", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    ),
    workload("DaemonSet", "agent", {"app": "agent"}, hostPID=False, priorityClassName="ours"),
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "orders"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "checkout"},
     "spec": {"selector": {"app": "checkout"}, "ports": [{"port": 80, "targetPort": "http"}]}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "checkout"},
     "spec": {"podSelector": {"matchLabels": {"app": "checkout"}}, "policyTypes": ["Ingress"],
              "ingress": [{"ports": [{"port": "http"}]}]}},
]  # fmt: skip


@pytest.fixture(params=SIDECARS)
def with_sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> list[Document]:
    """What a user's kustomization makes of their manifests with a sidecar."""
    return built_with(tmp_path, THEIRS, SIDECARS[request.param], namespace=SHOP)


@pytest.fixture
def without(tmp_path: Path) -> list[Document]:
    """The same manifests without."""
    (tmp_path / "plain").mkdir()
    return built_with(tmp_path / "plain", THEIRS, [], namespace=SHOP)


def named(documents: list[Document]) -> dict[tuple[str, str], Document]:
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def test_nothing_of_a_workload_changes_but_what_a_sidecar_needs(
    with_sidecar: list[Document], without: list[Document]
) -> None:
    before, after = named(without), named(with_sidecar)
    assert after.keys() - before.keys() == {("PodMonitor", "gomem-sidecars")}
    for key, document in before.items():
        changed = copy.deepcopy(after[key])
        if key[0] in KINDS:
            spec = changed["spec"]["template"]["spec"]
            assert spec.pop("shareProcessNamespace") is True
            assert spec["containers"].pop()["name"] == "gomem"  # the last: the first is still what kubectl means
            ours = [volume for volume in spec["volumes"] if volume["name"].startswith("gomem-")]
            assert len(ours) == 1
            spec["volumes"].remove(ours[0])
            if not spec["volumes"]:
                del spec["volumes"]
        assert changed == document, key


def test_a_sidecar_takes_no_part_in_whether_a_pod_is_ready_and_no_name_of_its_ports(
    with_sidecar: list[Document],
) -> None:
    for pod in pods(with_sidecar):
        ours, theirs = pod.container("gomem"), pod.container("server")
        assert "readinessProbe" not in ours
        assert "startupProbe" not in ours
        assert not {port["name"] for port in ours["ports"]} & {port["name"] for port in theirs["ports"]}


def test_the_documents_are_valid(with_sidecar: list[Document]) -> None:
    for document in with_sidecar:
        if document["kind"] != "PodMonitor":
            kubernetes_validate.validate(document, "1.30", strict=True)


def cluster(with_sidecar: list[Document]) -> tuple[list[Document], list[Pod]]:
    """Return all documents and pods of a cluster with gomem on each node, by overlay and by chart, and with sidecars.

    Somebody's pods are in gomem's namespace too, and wear its name.
    """
    nodes = [*overlay("daemonset-kubernetes-api"), *chart("as it comes")]
    strangers = [
        workload("Deployment", "guest", {"app.kubernetes.io/name": "gomem"}),
        workload("Deployment", "example", {"app": "example", "app.kubernetes.io/name": "gomem"}),
    ]
    for one in strangers:
        one["metadata"]["namespace"] = "gomem"
    everything = [*nodes, *strangers, *with_sidecar, *overlay("sidecar")]
    return everything, pods(everything, "default")


def test_policies_of_ours_select_pods_of_ours_and_no_others(
    with_sidecar: list[Document], without: list[Document]
) -> None:
    documents, everybody = cluster(with_sidecar)
    assert len(everybody) == 8
    ours = [one for one in of_kind(documents, "NetworkPolicy") if one not in without]
    assert len(ours) == 2
    for policy in ours:
        (name,) = selected(policy, everybody)
        assert name == "gomem-x7k2p"
        assert selected(policy, [pod for pod in everybody if pod.spec.get("hostPID") is not True]) == set()
    (theirs,) = of_kind(with_sidecar, "NetworkPolicy")
    assert selected(theirs, everybody) == {"checkout-x7k2p"}


def scraped(monitor: Document, among: list[Pod]) -> set[tuple[str, str]]:
    """Return the pods and containers that a PodMonitor's first endpoint finds."""
    where = monitor["metadata"].get("namespace", "default")
    spec = monitor["spec"]
    return {
        (pod.name, container["name"])
        for pod in among if pod.namespace == where and selects(spec["selector"], pod.labels)
        for container in pod.spec["containers"]
        for port in container.get("ports", ()) if port["name"] == spec["podMetricsEndpoints"][0]["port"]
    }  # fmt: skip


def test_each_gomem_is_scraped_by_one_monitor_and_nothing_else_is(with_sidecar: list[Document]) -> None:
    documents, everybody = cluster(with_sidecar)
    found = {}
    for monitor in of_kind(documents, "PodMonitor"):
        metadata = monitor["metadata"]
        found[metadata.get("namespace"), metadata["name"], *metadata.get("labels", {}).get("helm.sh/chart", ())[:1]] = (
            scraped(monitor, everybody)
        )
    node = {("gomem-x7k2p", "gomem")}
    shop = {(f"{name}-x7k2p", "gomem") for name in ("checkout", "orders", "agent")}
    assert found == {
        ("gomem", "gomem"): node, ("gomem", "gomem", "g"): node, (SHOP, "gomem-sidecars"): shop,
        (None, "gomem-sidecars"): {("example-x7k2p", "gomem")},
    }  # fmt: skip
