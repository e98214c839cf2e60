"""The two text formats: Prometheus' own (0.0.4) and OpenMetrics 1.0, which differ in what stands above the samples.

prometheus_client writes both too, at several times the cost for each line. A test reads what is
written here with prometheus_client's parsers.
Source: the exposition formats of Prometheus' documentation, and the OpenMetrics 1.0 specification.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

from gomem.exporters.prometheus.families import Family
from gomem.exporters.prometheus.metric import Metric, MetricType

Heading = Callable[[Metric[Any], Collection[str]], str]
_QUOTED = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def classic_heading(metric: Metric[Any], gauges: Collection[str]) -> str:
    """Return what stands above the samples of a metric in Prometheus' text format 0.0.4."""
    del gauges
    kind = MetricType.GAUGE if metric.type is MetricType.INFO else metric.type
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {kind}\n"


def openmetrics_heading(metric: Metric[Any], gauges: Collection[str]) -> str:
    """Return what stands above the samples of a metric in OpenMetrics 1.0, beside gauges of these names."""
    name, kind = metric.family, str(metric.type)
    if metric.type is MetricType.COUNTER and name in gauges:
        # go_memstats_alloc_bytes is a gauge and a counter in client_golang: OpenMetrics has room for one of them.
        name, kind = metric.name, "unknown"
    unit = f"# UNIT {name} {metric.unit}\n" if metric.unit and name.endswith(metric.unit) else ""
    return f"# HELP {name} {metric.help}\n# TYPE {name} {kind}\n{unit}"


def samples(family: Family) -> str:
    """Return the samples of a metric, one a line; the same in both formats."""
    metric = family.metric
    lines = []
    for owner, values, more, value in family.rows:
        begin = _owner(family.owner_labels, owner)
        name, rest = _name_and_labels(metric, values)
        if more:
            rest += "," + _pairs(tuple(more), tuple(more.values()))
        labels = begin + rest if begin else rest[1:]
        lines.append(f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n")
    return "".join(lines)


@lru_cache(512)  # the lines of a process are written one after the other, those of cgroups are not
def _owner(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return _few(names, values)[1:] if values else ""


def _name_and_labels(metric: Metric[Any], values: tuple[str, ...]) -> tuple[str, str]:
    """Return the sample's name, and its own labels with a comma before each."""
    if metric.type is MetricType.SUMMARY:
        return metric.name + values[0], ""
    if metric.type is MetricType.INFO:
        return metric.name, "," + _pairs(metric.labels, values)
    return metric.name, _few(metric.labels, values)


@lru_cache(1024)
def _few(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Return label pairs of which there are few; an empty label is the same as none, except on info metrics."""
    kept = [(name, value) for name, value in zip(names, values, strict=True) if value]
    return "," + _pairs([name for name, _ in kept], [value for _, value in kept]) if kept else ""


def _pairs(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{value.translate(_QUOTED)}"' for name, value in zip(names, values, strict=True))
