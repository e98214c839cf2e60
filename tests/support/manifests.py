"""The manifests that tests judge: each overlay as kubectl makes it, and the chart with values as people set them."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.support.charts import rendered
from tests.support.kustomize import KUSTOMIZE, built

OVERLAYS = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())
VALUES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "for older kernels": {"olderKernels": True},
    "with the Kubernetes API": {"kubernetesApi": {"enabled": True}, "podLabels": ["app"]},
    "with TLS": {
        "webConfig": {"secretName": "gomem-web"},
        "podMonitor": {
            "tlsConfig": {"ca": {"secret": {"name": "gomem-scrape", "key": "ca.crt"}}, "serverName": "gomem.example"},
            "basicAuth": {"username": {"name": "gomem-scrape", "key": "user"}},
        },
    },
    "with black boxes": {"blackBox": {"enabled": True}},
    "with black boxes on the node": {
        "blackBox": {"enabled": True, "bytes": "1G", "crashes": True, "volume": {"hostPath": {"path": "/var/gomem"}}},
        "webConfig": {"secretName": "gomem-web"},
    },
    "for some programs": {"select": ["--exe=api*"], "extraArgs": ["--max-targets=50"], "goCollector": True},
    "with rules and dashboards": {
        "podMonitor": {"labels": {"release": "prometheus"}, "relabelings": [{"action": "labeldrop", "regex": "node"}],
                       "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "go_.*"}]},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "alertLabels": {"team": "platform"},
                           "disabled": ["GomemRetainedMemory"], "runbookUrl": "https://wiki.example/gomem/"},
        "dashboards": {"enabled": True, "namespace": "grafana", "annotations": {"grafana_folder": "Go"}},
    },
    "everything": {
        "image": {"repository": "registry.example.net/gomem", "tag": "1.2.3", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}], "sizeClasses": True, "olderKernels": True, "port": 9999,
        "kubernetesApi": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "gomem.json"}, "priorityClassName": "important",
        "podAnnotations": {"example.org/owner": "platform"}, "affinity": {"nodeAffinity": {}},
    },
    "bare": {"podMonitor": {"enabled": False}, "networkPolicy": {"enabled": False}, "tolerations": [],
             "nodeSelector": {"kubernetes.io/os": None, "kubernetes.io/arch": None}},
}  # fmt: skip


@cache
def overlay(name: str) -> list[dict[str, Any]]:
    """Return the documents of an overlay. They are shared: nobody changes them."""
    return built(KUSTOMIZE / "overlays" / name)


@cache
def chart(name: str) -> list[dict[str, Any]]:
    """Return the documents of the chart with the values of that name, shared as well."""
    return rendered(VALUES[name])
