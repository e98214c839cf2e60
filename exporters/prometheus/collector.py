"""The metrics as a prometheus_client collector, for a registry that has others beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric as ClientMetric
from prometheus_client.registry import Collector

from exporters.prometheus.catalog import MetricOptions
from exporters.prometheus.families import Family, HighWater, families
from exporters.prometheus.metric import MetricType
from tracer.fleet.view import FleetView


class FleetCollector(Collector):
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
