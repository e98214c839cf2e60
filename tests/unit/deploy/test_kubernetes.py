"""Manifests: what kubectl makes of each overlay, and Helm of the chart, is valid and gives no more than it must."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.charts import ChartRefused, rendered
from tests.support.requirements import program

kubernetes_validate = pytest.importorskip("kubernetes_validate")

OVERLAYS = Path(__file__).parents[3] / "deploy" / "kustomize" / "overlays"
NAMES = sorted(path.name for path in OVERLAYS.iterdir())
CUSTOM = {"PodMonitor"}  # of the Prometheus operator: no part of Kubernetes' schemas
NEEDED = ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]
VALUES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "for older kernels": {"olderKernels": True},
    "with the Kubernetes API": {"kubernetesApi": {"enabled": True}, "podLabels": ["app"]},
    "with TLS": {"webConfig": {"secretName": "gomem-web"}},
    "for some programs": {"select": ["--exe=api*"], "extraArgs": ["--max-targets=50"], "goCollector": True},
    "bare": {"podMonitor": {"enabled": False}, "networkPolicy": {"enabled": False}, "priorityClassName": ""},
}


@cache
def overlay(name: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [program("kubectl", "kubectl"), "kustomize", str(OVERLAYS / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def chart(name: str) -> list[dict[str, Any]]:
    return rendered(VALUES[name])


ALL = [pytest.param(overlay, name, id=name) for name in NAMES]
ALL += [pytest.param(chart, name, id=f"chart {name}") for name in VALUES]


def templates(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"] for one in documents if one["kind"] in ("DaemonSet", "Deployment")]


def containers(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [container for template in templates(documents) for container in template["spec"]["containers"]]


def gomem(documents: list[dict[str, Any]]) -> dict[str, Any]:
    found = [container for container in containers(documents) if container["name"] == "gomem"]
    assert len(found) == 1
    return found[0]


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


@pytest.mark.parametrize(("make", "name"), ALL)
def test_every_document_fits_the_schema_of_kubernetes(make: Any, name: str) -> None:
    documents = make(name)
    checked = 0
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, "1.30", strict=True)
            checked += 1
    assert checked >= 2


@pytest.mark.parametrize(("make", "name"), ALL)
def test_no_container_gets_more_than_it_must(make: Any, name: str) -> None:
    documents = make(name)
    context = gomem(documents)["securityContext"]
    expected = [] if name == "sidecar-same-user" else NEEDED + ["SYS_ADMIN"] * ("older" in name)
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
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
        assert spec["automountServiceAccountToken"] is ("API" in name or "kubernetes-api" in name)


@pytest.mark.parametrize(("make", "name"), ALL)
def test_the_options_given_are_options_of_gomem_serve(make: Any, name: str) -> None:
    from tracer.cli.serve import serve

    words = gomem(make(name))["args"]
    assert words[0] == "serve"
    serve.make_context("serve", list(words[1:]))


@pytest.mark.parametrize(("make", "name"), ALL)
def test_pods_are_found_by_what_selects_them(make: Any, name: str) -> None:
    documents = make(name)
    pods = [template["metadata"]["labels"] for template in templates(documents)]
    for kind, where in (("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")):
        for document in of_kind(documents, kind):
            wanted = document["spec"][where]["matchLabels"]
            assert any(wanted.items() <= labels.items() for labels in pods), (kind, wanted)
    ports = {port["name"] for port in gomem(documents)["ports"]}
    assert ports == {"metrics"}


def test_the_right_to_read_pods_comes_only_with_the_option_that_uses_it() -> None:
    for documents in (overlay("daemonset-kubernetes-api"), chart("with the Kubernetes API")):
        rules = of_kind(documents, "ClusterRole")[0]["rules"]
        assert rules == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        assert "--kubernetes" in gomem(documents)["args"]
    for documents in (overlay("daemonset"), chart("as it comes")):
        assert not of_kind(documents, "ClusterRole")
        assert "--kubernetes" not in gomem(documents)["args"]


def test_the_chart_and_the_overlay_agree() -> None:
    ours, theirs = gomem(overlay("daemonset")), gomem(chart("as it comes"))
    for field in ("securityContext", "resources", "env", "ports", "startupProbe", "readinessProbe", "livenessProbe"):
        left, right = (probe_without_scheme(one.get(field)) for one in (ours, theirs))
        assert left == right, field
    specs = [templates(documents)[0]["spec"] for documents in (overlay("daemonset"), chart("as it comes"))]
    for field in ("hostPID", "tolerations", "nodeSelector", "priorityClassName", "securityContext"):
        assert specs[0][field] == specs[1][field], field


def probe_without_scheme(value: Any) -> Any:
    if isinstance(value, dict) and "httpGet" in value:
        return {**value, "httpGet": {k: v for k, v in value["httpGet"].items() if k != "scheme"}}
    return value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cpuBudget": 0}, "cpuBudget"),
        ({"select": ["--pid=1"]}, "select"),
        ({"prot": 9469}, "prot"),
        ({"podMonitor": {"interval": "often"}}, "interval"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ChartRefused, match=said):
        rendered(values)
