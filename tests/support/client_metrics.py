"""The metrics as prometheus_client writes them: the oracle of what we write ourselves, and what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric as ClientMetric
from prometheus_client.registry import Collector

from gomem.exporters.prometheus.catalog import MetricOptions, process_metrics
from gomem.exporters.prometheus.families import (
    Family,
    HighWater,
    Row,
    cgroup_families,
    distinct,
    rows_of_target,
    tracer_families,
)
from gomem.exporters.prometheus.identity import LABELS
from gomem.exporters.prometheus.metric import MetricType
from gomem.tracer.fleet.view import FleetView


class ClientCollector(Collector):
    """Renders the newest view at each scrape; reads no process and waits for none."""

    def __init__(self, view: Callable[[], FleetView | None], options: MetricOptions | None = None) -> None:
        """`view` returns the newest view, None before the first; it is called once a scrape."""
        self._view = view
        self._options = options or MetricOptions()
        self._high_water = HighWater()

    def describe(self) -> Iterable[ClientMetric]:
        """Return nothing, so that registering does not render."""
        return ()

    def collect(self) -> Iterator[ClientMetric]:
        """Yield the metric families of prometheus_client."""
        for family in families(self._view(), self._options, self._high_water):
            yield _client_family(family)


def _client_family(family: Family) -> ClientMetric:
    metric = family.metric
    unit = metric.unit if metric.family.endswith(f"_{metric.unit}") else ""
    made = ClientMetric(metric.family, metric.help, str(metric.type), unit)
    names = family.owner_labels + (() if metric.type is MetricType.SUMMARY else metric.labels)
    for owner, values, more, value in family.rows:
        suffix = values[0] if metric.type is MetricType.SUMMARY else ""
        labels = dict(zip(names, owner if suffix else owner + values, strict=True)) | dict(more or {})
        made.add_sample(metric.name + suffix, labels, value)
    return made


def families(view: FleetView | None, options: MetricOptions, high_water: HighWater) -> list[Family]:
    """Return all metrics that have samples, in the order of the documentation."""
    targets = distinct(view) if view is not None else []
    high_water.forget_others(targets)
    rows: dict[str, list[Row]] = {}
    metrics = process_metrics(options)
    for target in targets:
        for metric, found in zip(metrics, rows_of_target(metrics, target, high_water), strict=True):
            rows.setdefault(metric.name, []).extend(found)
    made = [Family(metric, rows[metric.name], LABELS) for metric in metrics if rows.get(metric.name)]
    return [*made, *cgroup_families(view), *tracer_families(view)]
