"""From a view of all processes to samples: plain data, which the text formats and the collector share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.prometheus import tracer_health
from exporters.prometheus.catalog import MetricOptions, process_metrics
from exporters.prometheus.identity import LABELS, label_values
from exporters.prometheus.metric import Metric, MetricType, ProcessMetric, Value
from tracer.fleet.view import FleetView, TargetView

NO_OWNER: tuple[str, ...] = ()
# Who the series is of (the values of LABELS, or none), the values of the metric's own labels, further labels, value.
Row = tuple[tuple[str, ...], tuple[str, ...], Mapping[str, str] | None, Value]


# The highest value seen of each counter, by name and labels.
Marks = dict[tuple[str, tuple[str, ...]], Value]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its samples."""

    metric: Metric[Any]
    rows: Sequence[Row]

    @property
    def owner_labels(self) -> tuple[str, ...]:
        """The names of the first labels: pid and process, or none."""
        return LABELS if self.rows and self.rows[0][0] else ()


class HighWater:
    """Keeps counters from falling while they are those of one process.

    A look at a moving process may find one of the runtime's counters lower by a few than the look before. To Prometheus
    that is a reset, and a rate would then count the whole history of the process once more.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], Marks] = {}

    def of(self, target: TargetView) -> Marks:
        """Return the marks of one process."""
        return self._seen.setdefault(_life(target), {})

    def forget_others(self, targets: Iterable[TargetView]) -> None:
        """Drop what is kept of processes that are not among `targets`."""
        lives = {_life(target) for target in targets}
        for gone in self._seen.keys() - lives:
            self._seen.pop(gone, None)


def held(marks: Marks, name: str, values: tuple[str, ...], value: Value) -> Value:
    """Return `value`, or the highest one before it, of the counter `name` with these labels."""
    key = (name, values)
    before = marks.get(key, 0)
    if value < before:
        return before
    marks[key] = value
    return value


def _life(target: TargetView) -> tuple[object, ...]:
    """Return what is the same as long as the target's counters count on."""
    return target.pid, target.report.process.start_time if target.report else None, target.followed_since


def distinct(view: FleetView) -> list[TargetView]:
    """Return the targets of the view, each pid once: a series that is there twice spoils a scrape."""
    return list({target.pid: target for target in view.targets}.values())


def families(view: FleetView | None, options: MetricOptions, high_water: HighWater) -> list[Family]:
    """Return all metrics that have samples, in the order of the documentation."""
    targets = distinct(view) if view is not None else []
    high_water.forget_others(targets)
    rows: dict[str, list[Row]] = {}
    metrics = process_metrics(options)
    for target in targets:
        for metric, found in zip(metrics, rows_of_target(metrics, target, high_water), strict=True):
            rows.setdefault(metric.name, []).extend(found)
    made = [Family(metric, rows[metric.name]) for metric in metrics if rows.get(metric.name)]
    return [*made, *tracer_families(view)]


def rows_of_target(
    metrics: Sequence[ProcessMetric], target: TargetView, high_water: HighWater
) -> Iterator[list[Row]]:
    """Yield the samples of one process, for each metric."""
    owner, marks = label_values(target), high_water.of(target)
    for metric in metrics:
        more = metric.more_labels(target) if metric.more_labels else None
        rises = metric.type in (MetricType.COUNTER, MetricType.SUMMARY)
        rows: list[Row] = []
        for values, value in metric.read(target):
            if math.isfinite(value):
                shown = held(marks, metric.name, values, value) if rises else value
                rows.append((owner, values, more, shown))
        yield rows


def tracer_families(view: FleetView | None) -> list[Family]:
    """Return what the tracer tells of itself."""
    metrics: list[Family] = []
    if view is not None:
        metrics += [_of_tracer(metric, view) for metric in tracer_health.METRICS]
    return [*metrics, _of_tracer(tracer_health.BUILD, None)]


def _of_tracer(metric: Metric[Any], subject: FleetView | None) -> Family:
    return Family(
        metric, [(NO_OWNER, values, None, value) for values, value in metric.read(subject) if math.isfinite(value)]
    )
