"""What a process belongs to: by its cgroup paths, by what gomem's own pod says of itself, by the Kubernetes API.

The environment that says it, which the downward API fills in (docs/discovery.md):
GOMEM_NODE_NAME, and in a sidecar GOMEM_POD_NAME, GOMEM_POD_NAMESPACE, GOMEM_POD_UID and GOMEM_PODINFO, the directory
of a downwardAPI volume with the file `labels`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gomem.tracer.discovery.cluster import Cluster
from gomem.tracer.discovery.pods import workload_by_labels
from gomem.tracer.discovery.process_info import ProcessInfo, cgroup_paths
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.errors import BackendUnavailable, UsageError
from gomem.tracer.machine.rights import INITIAL_NAMESPACES
from gomem.tracer.proc.cgroup_paths import first_found, neighbour_id
from gomem.tracer.proc.mounts import MOUNT_PROCFS, NO_PROCFS, has_procfs
from gomem.tracer.proc.small_files import printable, read_bounded
from gomem.tracer.report import Limit

PODINFO = "/etc/podinfo"
_REREAD = 30.0  # seconds
_MOST_LABELS_BYTES = 1 << 18  # Kubernetes bounds all annotations of an object by this, and labels by less
_LABEL = re.compile(r'([^=\s]{1,317})="((?:[^"\\]|\\.){0,1024})"')


class WorkloadSource(Protocol):
    """Answers without waiting; `generation` changes whenever an answer may have become another."""

    @property
    def generation(self) -> int:
        """How often what is known has changed."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What cannot be told now, and why."""
        ...

    def of(self, info: ProcessInfo) -> Workload:
        """Return what the process belongs to, as far as it is known now."""
        ...


@dataclass(frozen=True, slots=True)
class OwnPod:
    """The pod that gomem runs in as a sidecar."""

    name: str
    namespace: str | None
    uid: str | None
    labels: Mapping[str, str] = field(default_factory=dict)  # all of them


def own_pod(environ: Mapping[str, str], cgroups: Iterable[str], labels: str = "") -> OwnPod | None:
    """Return what the environment and the file `labels` say of our pod; None where no GOMEM_POD_NAME is set."""
    name = environ.get("GOMEM_POD_NAME")
    if not name:
        return None
    uid = environ.get("GOMEM_POD_UID") or first_found(cgroups)[1]
    return OwnPod(name, environ.get("GOMEM_POD_NAMESPACE") or None, uid, parse_labels(labels))


def parse_labels(text: str) -> dict[str, str]:
    """Return the labels in a file of the downward API: a line for each, KEY="VALUE", quoted as Go does."""
    found = {}
    for line in text.split("\n"):
        pair = _LABEL.fullmatch(line.strip())
        if pair:
            found[pair[1]] = re.sub(r"\\(.)", r"\1", pair[2])
    return found


def in_own_pod(pod: OwnPod, paths: Iterable[str], sees_only_the_pod: bool) -> bool:
    """Tell whether a process with these cgroup paths runs in our own pod.

    Its pod's uid decides where the paths name it. Else it is ours if its container lies beside our own, or if we see
    no process of others (a PID namespace that the pod shares).
    """
    paths = tuple(paths)
    uid = first_found(paths)[1]
    if uid is not None and pod.uid is not None:
        return uid == pod.uid
    return any(neighbour_id(path) for path in paths) or (uid is None and sees_only_the_pod)


class Workloads:
    """Joins what is known. Not for several threads; the cluster's answers come from one of its own."""

    def __init__(
        self,
        *,
        node: str | None = None,
        pod: OwnPod | None = None,
        sees_only_the_pod: bool = False,
        cluster: Cluster | None = None,
        label_keys: Iterable[str] = (),
        labels_file: Path | None = None,
    ) -> None:
        """Join; of a pod's labels only `label_keys` are told. `labels_file` is read again now and then."""
        self._node = node
        self._pod = pod
        self._sees_only_the_pod = sees_only_the_pod
        self._cluster = cluster
        self._label_keys = tuple(dict.fromkeys(label_keys))
        self._labels_file = labels_file if pod is not None else None
        self._reread_at = time.monotonic() + _REREAD
        self._own_generation = 0

    @classmethod
    def here(
        cls, environ: Mapping[str, str] = os.environ, *, api: bool = False, label_keys: Iterable[str] = ()
    ) -> Workloads:
        """Return what this machine and this environment tell; with `api`, ask the Kubernetes API, too.

        Raises UsageError when the API is to be asked and the node is not known: its pods alone are wanted, and
        BackendUnavailable where there is no /proc.
        """
        label_keys = tuple(label_keys)
        node = environ.get("GOMEM_NODE_NAME") or None
        if api and node is None:
            raise UsageError(
                "the Kubernetes API is asked for the pods of one node only, and GOMEM_NODE_NAME is not set",
                "set it by the downward API: valueFrom.fieldRef.fieldPath: spec.nodeName",
            )
        labels_file = Path(environ.get("GOMEM_PODINFO") or PODINFO) / "labels"
        if not has_procfs():
            raise BackendUnavailable(f"no process can be seen: {NO_PROCFS}", MOUNT_PROCFS)
        paths = cgroup_paths(read_text(Path("/proc/self/cgroup")))  # a kernel without cgroups has no such file
        return cls(
            node=node,
            pod=own_pod(environ, paths, read_text(labels_file)),
            sees_only_the_pod=os.stat("/proc/self/ns/pid").st_ino != INITIAL_NAMESPACES["pid"],
            cluster=Cluster(node, label_keys) if api and node is not None else None,
            label_keys=label_keys,
            labels_file=labels_file,
        )

    def start(self) -> None:
        """Begin to ask the Kubernetes API, if there is one to ask."""
        if self._cluster is not None:
            self._cluster.start()

    def stop(self) -> None:
        """End what `start` began."""
        if self._cluster is not None:
            self._cluster.stop()

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What cannot be told now, and why."""
        limit = self._cluster.limit if self._cluster is not None else None
        return (limit,) if limit is not None else ()

    @property
    def generation(self) -> int:
        """How often what is known has changed."""
        if self._labels_file is not None and time.monotonic() >= self._reread_at:
            self._reread_at = time.monotonic() + _REREAD
            self._take_labels(parse_labels(read_text(self._labels_file)))
        return self._own_generation + (self._cluster.pods.generation if self._cluster is not None else 0)

    def _take_labels(self, labels: dict[str, str]) -> None:
        if self._pod is not None and labels != self._pod.labels:
            self._pod = OwnPod(self._pod.name, self._pod.namespace, self._pod.uid, labels)
            self._own_generation += 1

    def of(self, info: ProcessInfo) -> Workload:
        """Return what the process belongs to, as far as it is known now."""
        container_id, pod_uid = first_found(info.cgroups)
        if self._cluster is not None:
            pod, container = self._cluster.pods.find(container_id, pod_uid)
            if pod is not None:
                return Workload(
                    container_id=container_id,
                    pod_uid=pod_uid or pod.uid,
                    pod=pod.name,
                    namespace=pod.namespace,
                    container=container,
                    node=self._node,
                    labels=pod.labels,
                    owner=pod.workload,
                )
        if self._pod is not None and in_own_pod(self._pod, info.cgroups, self._sees_only_the_pod):
            return Workload(
                container_id=container_id,
                pod_uid=pod_uid or self._pod.uid,
                pod=self._pod.name,
                namespace=self._pod.namespace,
                node=self._node,
                labels={key: self._pod.labels[key] for key in self._label_keys if key in self._pod.labels},
                owner=workload_by_labels(self._pod.name, self._pod.labels),
            )
        return Workload(container_id=container_id, pod_uid=pod_uid, node=self._node)


def read_text(path: Path) -> str:
    """Return the file's text, "" where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return printable(read_bounded(fd, _MOST_LABELS_BYTES)[0])
    except OSError:
        return ""
    finally:
        os.close(fd)
