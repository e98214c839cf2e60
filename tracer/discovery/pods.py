"""The pods of a node, by container id and by pod uid, as the Kubernetes API describes them: no I/O.

Source: the API's PodList, Pod and watch events (v1). What comes from the API is checked like any other input: an object
of another shape is skipped, and there are never more pods, containers or labels than the limits below.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MOST_PODS = 2048  # a node has some hundred
MOST_CONTAINERS = 256  # of one pod, ended and ephemeral ones included
_LONGEST = 253  # a name in Kubernetes; label values are shorter
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
# The kubelet names the cgroup of a static pod by this hash, not by the uid that the API gives its mirror.
_CONFIG_HASH = "kubernetes.io/config.hash"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod, as far as it is used here."""

    uid: str
    name: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)  # those that were asked for
    containers: Mapping[str, str] = field(default_factory=dict)  # id, without the runtime's prefix -> name
    config_hash: str | None = None  # of a static pod
    workload: str | None = None


def parse_pod(described: object, label_keys: Iterable[str] = ()) -> Pod | None:
    """Return the pod that a JSON object of the API describes, with the labels asked for; None if it describes none."""
    metadata = _object(_object(described).get("metadata"))
    uid, name, namespace = (_text(metadata.get(key)) for key in ("uid", "name", "namespace"))
    if not uid or not name or not namespace:
        return None
    labels = _object(metadata.get("labels"))
    workload = _controller(metadata.get("ownerReferences"), labels) or workload_by_labels(name, labels)
    chosen = {key: value for key in label_keys if (value := _text(labels.get(key))) is not None}
    config_hash = _text(_object(metadata.get("annotations")).get(_CONFIG_HASH))
    return Pod(uid, name, namespace, chosen, _containers(_object(described).get("status")), config_hash, workload)


def workload_by_labels(pod: str, labels: Mapping[str, object]) -> str | None:
    """Return the workload that the name of a pod has in front, told by the labels that its controller gave it.

    None for a pod without such labels, as that of a Job. Source: kubernetes/kubernetes, pkg/controller: a Deployment's
    pods are NAME-HASH-XXXXX, a DaemonSet's NAME-XXXXX, a StatefulSet's NAME-NUMBER.
    """
    template = _text(labels.get("pod-template-hash"))
    if template:
        return _before(pod, rf"-{re.escape(template)}-[a-z0-9]+")
    if _text(labels.get("statefulset.kubernetes.io/pod-name")) == pod:
        return _before(pod, r"-[0-9]+")
    if "controller-revision-hash" in labels and "pod-template-generation" in labels:
        return _before(pod, r"-[a-z0-9]+")
    return None


def _controller(references: object, labels: Mapping[str, object]) -> str | None:
    """Return the name of the object that made the pod; of a ReplicaSet of a Deployment, the Deployment's."""
    for one in map(_object, references if isinstance(references, list) else []):
        name, template = _text(one.get("name")), _text(labels.get("pod-template-hash"))
        if one.get("controller") is True and name:
            by_deployment = one.get("kind") == "ReplicaSet" and template
            return (_before(name, f"-{re.escape(template or '')}") if by_deployment else None) or name
    return None


def _before(name: str, ending: str) -> str | None:
    found = re.fullmatch(f"(.+){ending}", name)
    return found[1] if found else None


def _containers(status: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in _STATUSES:
        entries = _object(status).get(kind)
        for entry in entries if isinstance(entries, list) else []:
            name, identifier = _text(_object(entry).get("name")), _text(_object(entry).get("containerID"))
            # "containerd://0123...", and "" before it has started
            plain = identifier.rpartition("://")[2] if identifier else ""
            if name and plain and len(found) < MOST_CONTAINERS:
                found[plain] = name
    return found


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= _LONGEST else None


@dataclass(frozen=True, slots=True)
class _Index:
    containers: Mapping[str, Pod]
    uids: Mapping[str, Pod]


class Pods:
    """All pods of the node: one thread changes them, any may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: dict[str, Pod] = {}
        self._index = _Index({}, {})
        self.generation = 0
        self.left_out = 0  # pods beyond MOST_PODS

    def __len__(self) -> int:
        return len(self._pods)

    def replace(self, pods: Iterable[Pod]) -> None:
        """Take these for all there are."""
        with self._lock:
            self.left_out = 0
            self._pods = {}
            for pod in pods:
                self._take(pod)
            self._publish()

    def put(self, pod: Pod) -> None:
        """Take a new pod, or what is new about one."""
        with self._lock:
            if self._pods.get(pod.uid) != pod:
                self._take(pod)
                self._publish()

    def drop(self, uid: str) -> None:
        """Forget a pod."""
        with self._lock:
            if self._pods.pop(uid, None) is not None:
                self._publish()

    def find(self, container_id: str | None, pod_uid: str | None) -> tuple[Pod | None, str | None]:
        """Return (pod, container name), each None if it is not known.

        A container that the API does not name yet, or that is nested in one, is found by its pod.
        """
        index = self._index
        pod = index.containers.get(container_id) if container_id else None
        if pod is not None and container_id is not None:
            return pod, pod.containers.get(container_id)
        return (index.uids.get(pod_uid) if pod_uid else None), None

    def _take(self, pod: Pod) -> None:
        if pod.uid in self._pods or len(self._pods) < MOST_PODS:
            self._pods[pod.uid] = pod
        else:
            self.left_out += 1

    def _publish(self) -> None:
        containers = {identifier: pod for pod in self._pods.values() for identifier in pod.containers}
        uids = {pod.config_hash: pod for pod in self._pods.values() if pod.config_hash}
        self._index = _Index(containers, uids | self._pods)
        self.generation += 1
