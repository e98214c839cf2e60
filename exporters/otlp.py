"""The newest view as OpenTelemetry metrics: one resource a process, with the semantic conventions' names.

Needs opentelemetry-sdk, which the extra `otlp` brings; only exporters.otlp_push imports this.
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

from exporters.prometheus import activity, trust
from exporters.prometheus.catalog import MetricOptions, process_metrics
from exporters.prometheus.families import HighWater, held
from exporters.prometheus.heap import goal, memory_limit
from exporters.prometheus.identity import MOST_POD_LABELS, text
from exporters.prometheus.metric import MetricType, ProcessMetric, Value, stat
from exporters.prometheus.trust import started_at
from tracer import __version__
from tracer.fleet.view import FleetView, TargetView
from tracer.report import Report

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
Reading = tuple[dict[str, str], Value]
# OTLP's integers are signed ones of 64 bits.
_MOST = 1 << 63
_UNITS = {"bytes": "By", "seconds": "s", "ratio": "1", "percent": "%", "": ""}


class Kind(Enum):
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
    kind: Kind
    read: Callable[[TargetView], Iterable[Reading]]
    since_followed: bool = False


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
    Instrument("go.memory.used", "By", "Memory that the Go runtime holds.", Kind.UP_DOWN_COUNTER, _used),
    Instrument(
        "go.memory.limit", "By", "GOMEMLIMIT, where one is set.", Kind.UP_DOWN_COUNTER, _one(memory_limit)
    ),
    Instrument(
        "go.memory.allocated", "By", "Bytes ever allocated for heap objects.", Kind.COUNTER,
        _one(lambda report: stat(report, "TotalAlloc")),
    ),
    Instrument(
        "go.memory.allocations", "{allocation}", "Heap objects ever allocated, each tiny one counted.", Kind.COUNTER,
        _one(lambda report: stat(report, "Mallocs")),
    ),
    Instrument("go.memory.gc.goal", "By", "Heap size at the end of the GC cycle.", Kind.UP_DOWN_COUNTER, _one(goal)),
    Instrument(
        "go.memory.gc.cycles", "{gc_cycle}", "Completed GC cycles.", Kind.COUNTER,
        _one(lambda report: stat(report, "NumGC")),
    ),
    Instrument("go.goroutine.count", "{goroutine}", "Goroutines that exist.", Kind.UP_DOWN_COUNTER, _one(_goroutines)),
    Instrument("go.processor.limit", "{thread}", "GOMAXPROCS.", Kind.UP_DOWN_COUNTER, _one(_processors)),
    Instrument("go.config.gogc", "%", "GOGC, unless it is off.", Kind.UP_DOWN_COUNTER, _one(_gogc)),
    Instrument(
        "process.memory.usage", "By", "RAM of the process (RSS).", Kind.UP_DOWN_COUNTER,
        _one(lambda report: report.resident.total if report.resident else None),
    ),
    Instrument(
        "process.memory.virtual", "By", "Address space of the process (VSZ).", Kind.UP_DOWN_COUNTER,
        _one(lambda report: report.virtual.total if report.virtual else None),
    ),
    Instrument(
        "process.thread.count", "{thread}", "Threads of the process.", Kind.UP_DOWN_COUNTER,
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

        kind = Kind.COUNTER if metric.type is MetricType.COUNTER else Kind.GAUGE
        unit, read = _UNITS[metric.unit], _labelled(metric)
        made.append(Instrument(metric.name, unit, metric.help, kind, read, metric.name in watched))
    return tuple(made)


def _labelled(metric: ProcessMetric) -> Callable[[TargetView], Iterator[Reading]]:
    def readings(target: TargetView) -> Iterator[Reading]:
        for values, value in metric.read(target):
            yield {label: name for label, name in zip(metric.labels, values, strict=True) if name}, value

    return readings


def resource_of(target: TargetView) -> dict[str, str | int]:
    """Return the attributes that tell which process it is; unknown ones are absent."""
    process, belonging = target.report.process if target.report else None, target.belonging
    found: Mapping[str, str | None] = {
        "service.name": target.name,
        "process.executable.name": target.name,
        "process.executable.path": process.exe if process else None,
        "process.creation.time": process.start_time if process else None,
        "process.runtime.name": "go" if process and process.go_version else None,
        "process.runtime.version": process.go_version if process else None,
        "container.id": belonging.container_id or (process.container_id if process else None),
        "k8s.pod.uid": belonging.pod_uid or (process.pod if process else None),
        "k8s.pod.name": belonging.pod,
        "k8s.namespace.name": belonging.namespace,
        "k8s.container.name": belonging.container,
        "k8s.node.name": belonging.node,
    }
    asked_for = sorted(belonging.labels)[:MOST_POD_LABELS]
    labels = {f"k8s.pod.label.{text(name)}": belonging.labels[name] for name in asked_for}
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


def _metric(one: Instrument, target: TargetView, high_water: HighWater, view: FleetView) -> Metric | None:
    at = _nanoseconds(target.looked_at or view.published_at)
    since = target.followed_since if one.since_followed or target.report is None else started_at(target.report)
    start = _nanoseconds(since or target.followed_since)
    points = []
    for attributes, value in one.read(target):
        if not math.isfinite(value):
            continue
        if one.kind is Kind.COUNTER:
            value = held(high_water.of(target), one.name, tuple(attributes.values()), value)
        number = value if -_MOST <= value < _MOST else float(value)
        points.append(NumberDataPoint(attributes, 0 if one.kind is Kind.GAUGE else start, at, number))
    if not points:
        return None
    data: Gauge | Sum = Gauge(points) if one.kind is Kind.GAUGE else Sum(
        points, AggregationTemporality.CUMULATIVE, is_monotonic=one.kind is Kind.COUNTER
    )  # fmt: skip
    return Metric(one.name, one.description, one.unit, data)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
