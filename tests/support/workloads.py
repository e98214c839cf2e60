"""Workloads, their pods, and who selects these: labels and selectors as Kubernetes evaluates them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
KINDS = ("DaemonSet", "Deployment", "StatefulSet")


@dataclass(frozen=True)
class Pod:
    """A pod that a workload makes."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: Document

    def container(self, name: str) -> Document:
        """Return one of its containers."""
        (found,) = (one for one in self.spec["containers"] if one["name"] == name)
        return dict(found)


def of_kind(documents: Iterable[Document], *kinds: str) -> list[Document]:
    """Return the documents of some kinds."""
    return [document for document in documents if document["kind"] in kinds]


def pods(documents: Iterable[Document], namespace: str = "default") -> list[Pod]:
    """Return one pod of each workload; `namespace` is where they are applied if they do not say it."""
    return list(_pods(documents, namespace))


def _pods(documents: Iterable[Document], namespace: str) -> Iterator[Pod]:
    for workload in of_kind(documents, *KINDS):
        metadata, template = workload["metadata"], workload["spec"]["template"]
        labels = template["metadata"].get("labels", {})
        assert selects(workload["spec"]["selector"], labels), f"{metadata['name']} would not find its own pods"
        yield Pod(f"{metadata['name']}-x7k2p", metadata.get("namespace", namespace), labels, template["spec"])


def selects(selector: Document, labels: Mapping[str, str]) -> bool:
    """Return whether a LabelSelector selects something with these labels. An empty one selects everything.

    Source: metav1.LabelSelector in the Kubernetes API reference: all of matchLabels and matchExpressions must hold.
    """
    exact: Mapping[str, str] = selector.get("matchLabels") or {}
    return exact.items() <= labels.items() and all(
        _holds(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _holds(requirement: Document, labels: Mapping[str, str]) -> bool:
    key, values = requirement["key"], requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"no operator of label selectors: {requirement['operator']}")


def selected(policy: Document, among: Iterable[Pod], namespace: str = "default") -> set[str]:
    """Return the names of the pods that a NetworkPolicy applies to: those of its own namespace that it selects."""
    where = policy["metadata"].get("namespace", namespace)
    return {pod.name for pod in among if pod.namespace == where and selects(policy["spec"]["podSelector"], pod.labels)}
