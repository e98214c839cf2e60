"""The two text formats: Prometheus' own (0.0.4) and OpenMetrics 1.0.

prometheus_client writes both too (see `collector`), at several times the cost for each line: with 100 processes, a
tenth of a second and more for each new view. A test reads what is written here with prometheus_client's parsers.
Source: the exposition formats of Prometheus' documentation, and the OpenMetrics 1.0 specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from exporters.prometheus.families import Family
from exporters.prometheus.metric import Metric, MetricType

END = b"# EOF\n"
_QUOTED = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def classic(families: Sequence[Family]) -> bytes:
    """Return the families in Prometheus' text format 0.0.4."""
    lines: list[str] = []
    owners: dict[tuple[str, ...], str] = {}
    for family in families:
        metric = family.metric
        kind = MetricType.GAUGE if metric.type is MetricType.INFO else metric.type
        lines.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {kind}\n")
        lines += _samples(family, owners)
    return "".join(lines).encode()


def openmetrics(families: Sequence[Family]) -> bytes:
    """Return the families in the OpenMetrics 1.0 text format."""
    lines: list[str] = []
    owners: dict[tuple[str, ...], str] = {}
    gauges = {family.metric.name for family in families if family.metric.type is MetricType.GAUGE}
    for family in families:
        metric = family.metric
        name, kind = metric.family, str(metric.type)
        if metric.type is MetricType.COUNTER and name in gauges:
            # go_memstats_alloc_bytes is a gauge and a counter in client_golang: OpenMetrics has room for one of them.
            name, kind = metric.name, "unknown"
        lines.append(f"# HELP {name} {metric.help}\n# TYPE {name} {kind}\n")
        if metric.unit and name.endswith(metric.unit):
            lines.append(f"# UNIT {name} {metric.unit}\n")
        lines += _samples(family, owners)
    return "".join(lines).encode() + END


def _samples(family: Family, owners: dict[tuple[str, ...], str]) -> Iterator[str]:
    """Yield the lines; `owners` keeps the first labels of each process from one family to the next."""
    metric = family.metric
    rests: dict[tuple[str, ...], tuple[str, str]] = {}
    for owner, values, more, value in family.rows:
        begin = owners.get(owner)
        if begin is None:
            begin = owners[owner] = _pairs(family.owner_labels, owner)
        rest = rests.get(values)
        if rest is None:
            rest = rests[values] = _name_and_labels(metric, values)
        if more:
            yield f"{rest[0]}{{{begin}{rest[1]},{_pairs(tuple(more), tuple(more.values()))}}} {value}\n"
        elif begin:
            yield f"{rest[0]}{{{begin}{rest[1]}}} {value}\n"
        else:
            yield f"{rest[0]}{{{rest[1][1:]}}} {value}\n" if rest[1] else f"{rest[0]} {value}\n"


def _name_and_labels(metric: Metric[Any], values: tuple[str, ...]) -> tuple[str, str]:
    """Return the sample's name, and its own labels with a comma before each."""
    if metric.type is MetricType.SUMMARY:
        return metric.name + values[0], ""
    # An empty label is the same as none; only on info metrics is it shown that there could be one.
    kept = [pair for pair in zip(metric.labels, values, strict=True) if pair[1] or metric.type is MetricType.INFO]
    pairs = _pairs([name for name, _ in kept], [value for _, value in kept])
    return metric.name, "," + pairs if pairs else ""


def _pairs(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{value.translate(_QUOTED)}"' for name, value in zip(names, values, strict=True))
