"""From a view of all processes to metric families: plain data, which the two text formats and the collector share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporters.prometheus import tracer_health
from exporters.prometheus.catalog import MetricOptions, process_metrics
from exporters.prometheus.identity import LABELS, label_values
from exporters.prometheus.metric import Metric, MetricType, Value
from tracer.fleet.view import FleetView, TargetView

NO_OWNER: tuple[str, ...] = ()
# Who the series is of (the values of LABELS, or none), the values of the metric's own labels, further labels, value.
Row = tuple[tuple[str, ...], tuple[str, ...], Mapping[str, str] | None, Value]


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
        self._seen: dict[tuple[object, ...], dict[tuple[str, tuple[str, ...]], Value]] = {}

    def of(self, target: TargetView) -> dict[tuple[str, tuple[str, ...]], Value]:
        """Return the highest values seen of the process, by metric name and labels."""
        return self._seen.setdefault(_life(target), {})

    def hold(self, target: TargetView, name: str, values: tuple[str, ...], value: Value) -> Value:
        """Return `value`, or the highest one before it, of the counter `name` with these labels."""
        seen = self.of(target)
        held = seen[name, values] = max(value, seen.get((name, values), 0))
        return held

    def forget_others(self, targets: Sequence[TargetView]) -> None:
        """Drop what is kept of processes that are not among `targets`."""
        lives = {_life(target) for target in targets}
        for gone in self._seen.keys() - lives:
            self._seen.pop(gone, None)


def _life(target: TargetView) -> tuple[object, ...]:
    """Return what is the same as long as the target's counters count on."""
    return target.pid, target.report.process.start_time if target.report else None, target.followed_since


def families(view: FleetView | None, options: MetricOptions, high_water: HighWater) -> list[Family]:
    """Return all metrics that have samples, in the order of the documentation."""
    made = []
    if view is not None:
        targets = list({target.pid: target for target in view.targets}.values())
        high_water.forget_others(targets)
        owners = [(target, label_values(target), high_water.of(target)) for target in targets]
        made += [_of_processes(metric, owners) for metric in process_metrics(options)]
        made += [_of_tracer(metric, view) for metric in tracer_health.METRICS]
    made.append(_of_tracer(tracer_health.BUILD, None))
    return [family for family in made if family.rows]


def _of_processes(
    metric: Metric[TargetView],
    owners: Sequence[tuple[TargetView, tuple[str, ...], dict[tuple[str, tuple[str, ...]], Value]]],
) -> Family:
    rows: list[Row] = []
    rises = metric.type in (MetricType.COUNTER, MetricType.SUMMARY)
    for target, owner, seen in owners:
        more = metric.more_labels(target) if metric.more_labels else None
        for values, value in metric.read(target):
            if not math.isfinite(value):
                continue
            if rises:
                key = (metric.name, values)
                value = seen[key] = max(value, seen.get(key, 0))
            rows.append((owner, values, more, value))
    return Family(metric, rows)


def _of_tracer(metric: Metric[Any], subject: FleetView | None) -> Family:
    return Family(
        metric, [(NO_OWNER, values, None, value) for values, value in metric.read(subject) if math.isfinite(value)]
    )
