"""What the Prometheus operator makes of a PodMonitor, and what Prometheus' discovery says of a pod: without a cluster.

Sources: the golden files of the operator's generator (pkg/prometheus/testdata in its repository) for the relabelling
and its order, where that of the PodMonitor comes last; the reference of kubernetes_sd_config, role `pod`, for labels.
Debian's Prometheus has no discovery for Kubernetes, so the targets are static ones that wear the labels of discovery.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tests.support.workloads import Document, Pod

_META = "__meta_kubernetes"


def scrape_config(monitor: Document, targets: list[Document], *, override_honor_labels: bool = False) -> Document:
    """Return the scrape_config for the first endpoint of a PodMonitor; `targets` are those of `discovered`.

    `override_honor_labels` is the field overrideHonorLabels of a Prometheus of the operator.
    """
    name, namespace = monitor["metadata"]["name"], monitor["metadata"].get("namespace", "default")
    spec = monitor["spec"]
    endpoint = spec["podMetricsEndpoints"][0]
    return {
        "job_name": f"podMonitor/{namespace}/{name}/0",
        "honor_labels": endpoint.get("honorLabels", False) and not override_honor_labels,
        "metrics_path": endpoint.get("path", "/metrics"),
        "static_configs": targets,
        "relabel_configs": [
            {"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"},
            {"action": "drop", "source_labels": [f"{_META}_pod_phase"], "regex": "(Failed|Succeeded)"},
            *_keep(spec["selector"]),
            {"action": "keep", "source_labels": [f"{_META}_pod_container_port_name"], "regex": endpoint["port"]},
            # Namespaces are the discovery's business in the operator's configuration.
            {"action": "keep", "source_labels": [f"{_META}_namespace"], "regex": namespace},
            {"source_labels": [f"{_META}_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{_META}_pod_container_name"], "target_label": "container"},
            {"source_labels": [f"{_META}_pod_name"], "target_label": "pod"},
            {"target_label": "job", "replacement": f"{namespace}/{name}"},
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *map(_snake, endpoint.get("relabelings", ())),
        ],
        "metric_relabel_configs": [*map(_snake, endpoint.get("metricRelabelings", ()))],
    }


def discovered(pods: Iterable[Pod], addresses: dict[str, str], node: str) -> list[Document]:
    """Return the targets that Prometheus finds: one for each declared port of each container.

    `addresses`: where a port is really served, by the pod's name and the port's name as "pod:port"; others are not.
    """
    return [
        {
            "targets": [addresses.get(f"{pod.name}:{port['name']}", "127.0.0.1:1")],
            "labels": {
                f"{_META}_namespace": pod.namespace,
                f"{_META}_pod_name": pod.name,
                f"{_META}_pod_node_name": node,
                f"{_META}_pod_phase": "Running",
                f"{_META}_pod_container_name": container["name"],
                f"{_META}_pod_container_port_name": port["name"],
                f"{_META}_pod_container_port_number": str(port["containerPort"]),
                **{f"{_META}_pod_label_{_name(key)}": value for key, value in pod.labels.items()},
                **{f"{_META}_pod_labelpresent_{_name(key)}": "true" for key in pod.labels},
            },
        }
        for pod in pods
        for container in pod.spec["containers"]
        for port in container.get("ports", ())
    ]


def _keep(selector: Document) -> list[Document]:
    assert not selector.get("matchExpressions")
    return [
        {
            "action": "keep",
            "source_labels": [f"{_META}_pod_label_{_name(key)}", f"{_META}_pod_labelpresent_{_name(key)}"],
            "regex": f"({value});true",
        }
        for key, value in sorted((selector.get("matchLabels") or {}).items())
    ]


def _name(label: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _snake(relabeling: Document) -> dict[str, Any]:
    return {re.sub(r"([A-Z])", lambda upper: "_" + upper[0].lower(), key): value for key, value in relabeling.items()}
