"""What a process belongs to: its container, its pod, and who made that. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Workload:
    """What a process belongs to. None: not known, or it belongs to none."""

    container_id: str | None = None
    pod_uid: str | None = None
    pod: str | None = None
    namespace: str | None = None
    container: str | None = None
    node: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)  # of the pod, those that were asked for
    owner: str | None = None  # the Deployment, StatefulSet, DaemonSet, Job... that made the pod
