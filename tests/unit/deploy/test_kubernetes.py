"""Manifests: what kubectl makes of each overlay, and Helm of the chart, is valid and gives no more than it must."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import operator_schemas
from tests.support.manifests import OVERLAYS, VALUES, chart, overlay
from tests.support.workloads import of_kind, pods, selected, selects

kubernetes_validate = pytest.importorskip("kubernetes_validate")

NEEDED = ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]
ALL = [pytest.param(overlay, name, id=name) for name in OVERLAYS]
ALL += [pytest.param(chart, name, id=f"chart {name}") for name in VALUES]


def templates(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"] for one in of_kind(documents, "DaemonSet", "Deployment")]


def containers(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [container for template in templates(documents) for container in template["spec"]["containers"]]


def gomem(documents: list[dict[str, Any]]) -> dict[str, Any]:
    found = [container for container in containers(documents) if container["name"] == "gomem"]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("make", "name"), ALL)
def test_every_document_fits_the_schema_of_kubernetes(make: Any, name: str) -> None:
    documents = make(name)
    checked = [document for document in documents if document["kind"] not in operator_schemas.KINDS]
    assert len(checked) >= 1
    for document in checked:
        kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize(("make", "name"), ALL)
def test_no_container_gets_more_than_it_must(make: Any, name: str) -> None:
    documents = make(name)
    context = gomem(documents)["securityContext"]
    older = "older" in name or bool(VALUES.get(name, {}).get("olderKernels"))
    expected = [] if name == "sidecar-same-user" else NEEDED + ["SYS_ADMIN"] * older
    assert context["capabilities"] == {"drop": ["ALL"], **({"add": expected} if expected else {})}
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    for container in containers(documents):
        assert not container.get("securityContext", {}).get("privileged")
        if container["name"] != "gomem":
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    for template in templates(documents):
        spec = template["spec"]
        assert not spec.get("hostNetwork")
        assert not spec.get("hostIPC")
        on_the_node = [volume["name"] for volume in spec.get("volumes", []) if "hostPath" in volume]
        assert on_the_node == (["black-box"] if name.endswith("on the node") else [])
        asks = "--kubernetes" in gomem(documents)["args"]
        assert spec["automountServiceAccountToken"] is asks


@pytest.mark.parametrize(("make", "name"), ALL)
def test_the_options_given_are_options_of_gomem_serve(make: Any, name: str) -> None:
    from gomem.tracer.cli.serve import serve

    words = gomem(make(name))["args"]
    assert words[0] == "serve"
    serve.make_context("serve", list(words[1:]))


@pytest.mark.parametrize(("make", "name"), ALL)
def test_pods_are_found_by_what_selects_them(make: Any, name: str) -> None:
    documents = make(name)
    theirs = pods(documents)
    for policy in of_kind(documents, "NetworkPolicy"):
        assert selected(policy, theirs) == {pod.name for pod in theirs}
    for monitor in of_kind(documents, "PodMonitor"):
        port = monitor["spec"]["podMetricsEndpoints"][0]["port"]
        assert [one["name"] for one in gomem(documents)["ports"]] == [port]
        assert all(selects(monitor["spec"]["selector"], pod.labels) for pod in theirs)


@pytest.mark.parametrize(("make", "name"), ALL)
def test_nothing_is_assumed_of_the_cluster(make: Any, name: str) -> None:
    documents = make(name)
    for policy in of_kind(documents, "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            # A namespace by its name is somebody's own choice.
            assert [source["namespaceSelector"] for source in rule["from"]] == [{}]
    for template in templates(documents):
        assert template["spec"].get("priorityClassName") == VALUES.get(name, {}).get("priorityClassName")


def test_the_right_to_read_pods_comes_only_with_the_option_that_uses_it() -> None:
    for documents in (overlay("daemonset-kubernetes-api"), chart("with the Kubernetes API")):
        rules = of_kind(documents, "ClusterRole")[0]["rules"]
        assert rules == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        assert "--kubernetes" in gomem(documents)["args"]
    for documents in (overlay("daemonset"), chart("as it comes")):
        assert not of_kind(documents, "ClusterRole")
        assert "--kubernetes" not in gomem(documents)["args"]


def test_black_boxes_have_a_directory_only_where_they_are_wanted() -> None:
    for make, name in [(overlay, name) for name in OVERLAYS] + [(chart, name) for name in VALUES]:
        documents = make(name)
        words = [word.partition("=") for word in gomem(documents)["args"]]
        (directory,) = [value for word, _, value in words if word == "--black-box"] or [None]
        mounts = {one["mountPath"]: one for one in gomem(documents).get("volumeMounts", [])}
        volumes = {one["name"]: one for one in templates(documents)[0]["spec"].get("volumes", [])}
        assert (directory is not None) is ("black" in name), name
        if directory is not None:
            assert not mounts[directory].get("readOnly")
            assert len(volumes[mounts[directory]["name"]]) == 2
    assert {"emptyDir": {}, "name": "black-box"} in templates(chart("with black boxes"))[0]["spec"]["volumes"]


def test_the_chart_and_the_overlay_agree() -> None:
    ours, theirs = gomem(overlay("daemonset")), gomem(chart("as it comes"))
    for field in ("securityContext", "resources", "env", "ports", "startupProbe", "readinessProbe", "livenessProbe"):
        left, right = (probe_without_scheme(one.get(field)) for one in (ours, theirs))
        assert left == right, field
    specs = [templates(documents)[0]["spec"] for documents in (overlay("daemonset"), chart("as it comes"))]
    for field in ("hostPID", "tolerations", "nodeSelector", "securityContext"):
        assert specs[0][field] == specs[1][field], field


def test_all_ways_to_scrape_agree() -> None:
    endpoints = [
        of_kind(documents, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0]
        for documents in (overlay("daemonset"), overlay("sidecar"), chart("as it comes"))
    ]
    assert [one["port"] for one in endpoints] == ["metrics", "gomem-metrics", "metrics"]
    first, *others = [{name: value for name, value in one.items() if name != "port"} for one in endpoints]
    assert others == [first, first]


def probe_without_scheme(value: Any) -> Any:
    if isinstance(value, dict) and "httpGet" in value:
        return {**value, "httpGet": {k: v for k, v in value["httpGet"].items() if k != "scheme"}}
    return value
