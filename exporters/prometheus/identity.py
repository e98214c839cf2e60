"""Which process a series belongs to: the labels that every series has, and those that one info metric adds.

All of these strings belong to the target or to its cluster: they are cut, and what is not printable is written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gomem.exporters.prometheus.metric import Metric, MetricType, ProcessMetric, Sample
from gomem.exporters.units import clean
from gomem.tracer.fleet.cgroups import place_of
from gomem.tracer.fleet.view import TargetView

LABELS = ("pid", "process")  # of every series of a process
MOST_POD_LABELS = 32
_LONGEST = 256  # characters of a label's value
_LONGEST_NAME = 128  # of a process or a label


def text(value: str | None, limit: int = _LONGEST) -> str:
    """Return the value of a label: "" for what is not known."""
    return clean(value, limit) if value else ""


def label_values(target: TargetView) -> tuple[str, str]:
    """Return the values of LABELS."""
    return str(target.pid), text(target.name, _LONGEST_NAME)


def _facts(target: TargetView) -> dict[str, str | None]:
    process = target.report.process if target.report else None
    workload = target.workload
    return {
        "exe": process.exe if process else None,
        "go_version": process.go_version if process else None,
        "main_module": process.main_module if process else None,
        "cgroup": place_of(target.cgroup, workload),
        "container_id": workload.container_id or (process.container_id if process else None),
        "pod_uid": workload.pod_uid or (process.pod if process else None),
        "pod": workload.pod,
        "namespace": workload.namespace,
        "workload": workload.owner,
        "container": workload.container,
        "node": workload.node,
    }


def pod_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return a pod's labels as label_<name> with the characters that Prometheus allows.

    Of two names that become the same one, the first in order of the alphabet stays.
    """
    found: dict[str, str] = {}
    for name in sorted(labels)[:MOST_POD_LABELS]:
        found.setdefault("label_" + re.sub(r"[^a-zA-Z0-9_]", "_", name[:_LONGEST_NAME]), text(labels[name]))
    return found


def who(target: TargetView) -> dict[str, str]:
    """Return the labels of a process for those who know it by nothing else; without what is not known.

    service_name is what Grafana Pyroscope groups by: the container in its namespace, or the program.
    """
    facts = {name: text(value) for name, value in _facts(target).items()}
    pid, process = label_values(target)
    service = "/".join(filter(None, (facts["namespace"], facts["container"]))) if facts["container"] else process
    named = {"pid": pid, "process": process, "service_name": service, **facts, **pod_labels(target.workload.labels)}
    return {name: value for name, value in named.items() if value}


INFO_LABELS = (
    "exe", "go_version", "main_module", "cgroup", "container_id", "pod_uid", "namespace", "workload", "pod",
    "container", "node",
)  # fmt: skip


def _info(target: TargetView) -> tuple[Sample, ...]:
    facts = _facts(target)
    return ((tuple(text(facts[name]) for name in INFO_LABELS), 1),)


METRICS: tuple[ProcessMetric, ...] = (
    Metric(
        "gomem_process_info",
        MetricType.INFO,
        "",
        "What the process is and belongs to, empty where unknown, and the pod's labels that were asked for as "
        "label_<name>; join it with `* on (job, instance, pid, process) group_left (pod) gomem_process_info`.",
        INFO_LABELS,
        _info,
        lambda target: pod_labels(target.workload.labels),
    ),
    Metric(
        "gomem_process_state",
        MetricType.GAUGE,
        "",
        "1 for the state that the process is in now, how far gomem can follow it: starting, followed, kernel_only, "
        "unreadable, waiting or shed (it takes the most of gomem's memory budget, and is left alone for a while).",
        ("state",),
        lambda target: (((target.state.value,), 1),),
    ),
)
