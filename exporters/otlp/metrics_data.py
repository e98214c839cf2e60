"""The newest view as OpenTelemetry metrics: one resource a process or cgroup, with the semantic conventions' names.

Needs opentelemetry-sdk, which the extra `otlp` brings; only gomem.exporters.otlp.push imports this.
Source: OpenTelemetry's semantic conventions 1.37 and later, model/go, model/process, model/k8s and model/container.
What they define for Go and this does not have: go.schedule.duration, and all that is not memory of the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gomem.exporters.prometheus import activity, cgroups, trust
from gomem.exporters.prometheus.catalog import MetricOptions, process_metrics
from gomem.exporters.prometheus.families import HighWater, held, told
from gomem.exporters.prometheus.heap import goal, memory_limit
from gomem.exporters.prometheus.identity import MOST_POD_LABELS, text
from gomem.exporters.prometheus.metric import MetricType, ProcessMetric, Sparse, Value
from gomem.exporters.prometheus.trust import started_at
from gomem.tracer import __version__
from gomem.tracer.fleet.view import CgroupView, FleetView, TargetView
from gomem.tracer.report import Report, stat

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
Reading = tuple[dict[str, str], Value]
# OTLP's integers are signed ones of 64 bits.
_MOST = 1 << 63
_UNITS = {"bytes": "By", "seconds": "s", "ratio": "1", "percent": "%", "": ""}


class InstrumentKind(Enum):
    """OpenTelemetry's instruments of numbers."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "updowncounter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. A counter has counted since the process started, or `since_followed`: since it is followed."""

    name: str
    unit: str
    description: str
    kind: InstrumentKind
    read: Callable[[TargetView], Iterable[Reading]]
    since_followed: bool = False
    sparse: Sparse | None = None


def _one(read: Callable[[Report], Value | None]) -> Callable[[TargetView], Iterator[Reading]]:
    def readings(target: TargetView) -> Iterator[Reading]:
        value = None if target.report is None else read(target.report)
        if value is not None:
            yield {}, value

    return readings


def _used(target: TargetView) -> Iterator[Reading]:
    if target.report is None:
        return
    sys, released, stacks = (stat(target.report, name) for name in ("Sys", "HeapReleased", "StackInuse"))
    if sys is not None and released is not None and stacks is not None:
        yield {"go.memory.type": "stack"}, stacks
        yield {"go.memory.type": "other"}, sys - released - stacks


def _gogc(report: Report) -> float | None:
    percent = report.heap.gc_percent if report.heap else None
    return None if percent is None or percent < 0 else float(percent)


def _goroutines(report: Report) -> int | None:
    return report.structure.scheduler.goroutines if report.structure and report.structure.scheduler else None


def _processors(report: Report) -> int | None:
    return report.structure.scheduler.ps if report.structure and report.structure.scheduler else None


INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument("go.memory.used", "By", "Memory that the Go runtime holds.", InstrumentKind.UP_DOWN_COUNTER, _used),
    Instrument(
        "go.memory.limit", "By", "GOMEMLIMIT, where one is set.", InstrumentKind.UP_DOWN_COUNTER, _one(memory_limit)
    ),
    Instrument(
        "go.memory.allocated", "By", "Bytes ever allocated for heap objects.", InstrumentKind.COUNTER,
        _one(lambda report: stat(report, "TotalAlloc")),
    ),
    Instrument(
        "go.memory.allocations", "{allocation}", "Heap objects ever allocated, each tiny one counted.",
        InstrumentKind.COUNTER,
        _one(lambda report: stat(report, "Mallocs")),
    ),
    Instrument(
        "go.memory.gc.goal", "By", "Heap size at the end of the GC cycle.", InstrumentKind.UP_DOWN_COUNTER, _one(goal),
    ),
    Instrument(
        "go.memory.gc.cycles", "{gc_cycle}", "Completed GC cycles.", InstrumentKind.COUNTER,
        _one(lambda report: stat(report, "NumGC")),
    ),
    Instrument(
        "go.goroutine.count", "{goroutine}", "Goroutines that exist.", InstrumentKind.UP_DOWN_COUNTER,
        _one(_goroutines),
    ),
    Instrument("go.processor.limit", "{thread}", "GOMAXPROCS.", InstrumentKind.UP_DOWN_COUNTER, _one(_processors)),
    Instrument("go.config.gogc", "%", "GOGC, unless it is off.", InstrumentKind.UP_DOWN_COUNTER, _one(_gogc)),
    Instrument(
        "process.memory.usage", "By", "RAM of the process (RSS).", InstrumentKind.UP_DOWN_COUNTER,
        _one(lambda report: report.resident.total if report.resident else None),
    ),
    Instrument(
        "process.memory.virtual", "By", "Address space of the process (VSZ).", InstrumentKind.UP_DOWN_COUNTER,
        _one(lambda report: report.virtual.total if report.virtual else None),
    ),
    Instrument(
        "process.thread.count", "{thread}", "Threads of the process.", InstrumentKind.UP_DOWN_COUNTER,
        _one(lambda report: report.structure.threads if report.structure else None),
    ),
)  # fmt: skip


def own_instruments(options: MetricOptions) -> tuple[Instrument, ...]:
    """Return the metrics of docs/metrics.md under the names that they have there, labels as attributes."""
    watched = {metric.name for metric in (*activity.METRICS, *trust.METRICS)}
    made = []
    for metric in process_metrics(options):
        if metric.type in (MetricType.INFO, MetricType.SUMMARY):
            continue

        kind = InstrumentKind.COUNTER if metric.type is MetricType.COUNTER else InstrumentKind.GAUGE
        unit, read = _UNITS[metric.unit], _labelled(metric)
        made.append(Instrument(metric.name, unit, metric.help, kind, read, metric.name in watched, metric.sparse))
    return tuple(made)


def _labelled(metric: ProcessMetric) -> Callable[[TargetView], Iterator[Reading]]:
    def readings(target: TargetView) -> Iterator[Reading]:
        for values, value in metric.read(target):
            yield {label: name for label, name in zip(metric.labels, values, strict=True) if name}, value

    return readings


def resource_of(target: TargetView) -> dict[str, str | int]:
    """Return the attributes that tell which process it is; unknown ones are absent."""
    process, workload = target.report.process if target.report else None, target.workload
    found: Mapping[str, str | None] = {
        "service.name": target.name,
        "process.executable.name": target.name,
        "process.executable.path": process.exe if process else None,
        "process.creation.time": process.start_time if process else None,
        "process.runtime.name": "go" if process and process.go_version else None,
        "process.runtime.version": process.go_version if process else None,
        "container.id": workload.container_id or (process.container_id if process else None),
        "k8s.pod.uid": workload.pod_uid or (process.pod if process else None),
        "k8s.pod.name": workload.pod,
        "k8s.namespace.name": workload.namespace,
        "k8s.container.name": workload.container,
        "k8s.node.name": workload.node,
    }
    asked_for = sorted(workload.labels)[:MOST_POD_LABELS]
    labels = {f"k8s.pod.label.{text(name)}": workload.labels[name] for name in asked_for}
    return {"process.pid": target.pid, **{name: text(value) for name, value in {**found, **labels}.items() if value}}


def metrics_data(
    view: FleetView, high_water: HighWater, instruments: Iterable[Instrument] = INSTRUMENTS
) -> MetricsData:
    """Return the view as the SDK's own data, for any of its exporters; processes that were never read are left out."""
    wanted = tuple(instruments)
    high_water.forget_others(view.targets)
    scope = InstrumentationScope("gomem", __version__, SCHEMA_URL)
    resources = []
    for target in view.targets:
        metrics = [made for one in wanted if (made := _metric(one, target, high_water, view)) is not None]
        if target.report is not None and metrics:
            resource = Resource(resource_of(target), SCHEMA_URL)
            resources.append(ResourceMetrics(resource, [ScopeMetrics(scope, metrics, SCHEMA_URL)], SCHEMA_URL))
    return MetricsData(resources)


def with_cgroups(data: MetricsData, view: FleetView) -> MetricsData:
    """Return the data with the cgroups of the view beside it: one resource each, the names of docs/metrics.md."""
    scope, at = InstrumentationScope("gomem", __version__, SCHEMA_URL), _nanoseconds(view.published_at)
    found = []
    for one in view.cgroups:
        metrics = [made for metric in cgroups.METRICS if (made := _metric_of_cgroup(metric, one, view, at)) is not None]
        resource = Resource(_resource_of_cgroup(one), SCHEMA_URL)
        found.append(ResourceMetrics(resource, [ScopeMetrics(scope, metrics, SCHEMA_URL)], SCHEMA_URL))
    return MetricsData([*data.resource_metrics, *found])


def _resource_of_cgroup(one: CgroupView) -> dict[str, str]:
    of = one.workload
    found = {
        "process.linux.cgroup": one.path,
        "k8s.namespace.name": of.namespace,
        "k8s.pod.name": of.pod,
        "k8s.container.name": of.container,
        "k8s.node.name": of.node,
    }
    return {name: text(value) for name, value in found.items() if value}


def _metric_of_cgroup(metric: cgroups.CgroupMetric, one: CgroupView, view: FleetView, at: int) -> Metric | None:
    rises = metric.type is MetricType.COUNTER
    start = min(_nanoseconds(view.health.started_at), at) if rises else 0
    points = [
        NumberDataPoint(dict(zip(metric.labels, values, strict=True)), start, at, value)
        for values, value in metric.read(one)
    ]
    if not points:
        return None
    data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True) if rises else Gauge(points)
    return Metric(metric.name, metric.help, _UNITS[metric.unit], data)


def _metric(one: Instrument, target: TargetView, high_water: HighWater, view: FleetView) -> Metric | None:
    at = _nanoseconds(target.looked_at or view.published_at)
    since = target.followed_since if one.since_followed or target.report is None else started_at(target.report)
    start = min(_nanoseconds(since or target.followed_since), at)  # somebody may have put the clock back
    points = []
    for attributes, value in one.read(target):
        values = tuple(attributes.values())
        if not math.isfinite(value) or not told(high_water.of(target), one.name, values, value, one.sparse):
            continue
        if one.kind is InstrumentKind.COUNTER:
            value = held(high_water.of(target), one.name, values, value)
        number = value if -_MOST <= value < _MOST else float(value)
        points.append(NumberDataPoint(attributes, 0 if one.kind is InstrumentKind.GAUGE else start, at, number))
    if not points:
        return None
    data: Gauge | Sum = Gauge(points) if one.kind is InstrumentKind.GAUGE else Sum(
        points, AggregationTemporality.CUMULATIVE, is_monotonic=one.kind is InstrumentKind.COUNTER
    )  # fmt: skip
    return Metric(one.name, one.description, one.unit, data)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
