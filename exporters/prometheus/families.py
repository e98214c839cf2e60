"""From a view of all processes to samples: plain data, which the text formats share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gomem.exporters.prometheus import cgroups, tracer_health
from gomem.exporters.prometheus.identity import label_values
from gomem.exporters.prometheus.metric import Metric, MetricType, ProcessMetric, Sparse, Value
from gomem.tracer.fleet.view import FleetView, TargetView

NO_OWNER: tuple[str, ...] = ()
# Who the series is of (the values of LABELS, or none), the values of the metric's own labels, further labels, value.
Row = tuple[tuple[str, ...], tuple[str, ...], Mapping[str, str] | None, Value]


# The highest value seen of each counter, and that a sparse gauge was seen, by name and labels.
Marks = dict[tuple[str, tuple[str, ...]], Value]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its samples."""

    metric: Metric[Any]
    rows: Sequence[Row]
    owner_labels: tuple[str, ...] = ()  # whose values each row begins with; pid and process, those of a cgroup, or none


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


def told(marks: Marks, name: str, values: tuple[str, ...], value: Value, sparse: Sparse | None) -> bool:
    """Tell whether a gauge is shown: one that is `sparse` is from its first value that is not 0 on."""
    if sparse is None or not sparse(values):
        return True
    if value:
        marks[name, values] = 1
    return (name, values) in marks


def _life(target: TargetView) -> tuple[object, ...]:
    """Return what is the same as long as the target's counters count on."""
    return target.pid, target.report.process.start_time if target.report else None, target.found


def distinct(view: FleetView) -> list[TargetView]:
    """Return the targets of the view, each pid once: a series that is there twice spoils a scrape."""
    return list({target.pid: target for target in view.targets}.values())


def rows_of_target(metrics: Sequence[ProcessMetric], target: TargetView, high_water: HighWater) -> Iterator[list[Row]]:
    """Yield the samples of one process, for each metric."""
    owner, marks = label_values(target), high_water.of(target)
    for metric in metrics:
        more = metric.more_labels(target) if metric.more_labels else None
        rises = metric.type in (MetricType.COUNTER, MetricType.SUMMARY)
        rows: list[Row] = []
        for values, value in metric.read(target):
            if math.isfinite(value) and told(marks, metric.name, values, value, metric.sparse):
                shown = held(marks, metric.name, values, value) if rises else value
                rows.append((owner, values, more, shown))
        yield rows


def cgroup_families(view: FleetView | None) -> list[Family]:
    """Return what is known of the cgroups."""
    shown = [(cgroups.label_values(one), one) for one in view.cgroups] if view is not None else []
    made = []
    for metric in cgroups.METRICS:
        rows: list[Row] = [(owner, values, None, value) for owner, one in shown for values, value in metric.read(one)]
        if rows:
            made.append(Family(metric, rows, cgroups.LABELS))
    return made


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
