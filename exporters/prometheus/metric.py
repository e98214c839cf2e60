"""What a metric is here: a name that never changes, what it means, and how to read it off the view.

Each module of this package that ends in a tuple `METRICS` is one group of them. Nothing here knows a text format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from gomem.tracer.fleet.view import TargetView
from gomem.tracer.report import EventCount, Report

Value = int | float
Sample = tuple[tuple[str, ...], Value]
Sparse = Callable[[tuple[str, ...]], bool]
Subject = TypeVar("Subject")


class MetricType(StrEnum):
    """The metric types in use. Every sample of an INFO is 1; a SUMMARY here has `_sum` and `_count`, no quantiles."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Metric(Generic[Subject]):
    """One metric: `name` as it stands in queries, base `unit` or "", and HELP that a tired person understands.

    `read` yields a sample for each combination of values of `labels`, in their order; nothing for a figure that could
    not be had. Series of processes have the labels pid and process beside these. For a SUMMARY, which has no labels of
    its own, the one value is the suffix of the sample's name. `more_labels` are those whose names are not known before.
    `sparse` tells by its labels whether a gauge's sample is left out until it is not 0 for the first time, as it never
    is for most processes; None: none is.
    """

    name: str
    type: MetricType
    unit: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Subject], Iterable[Sample]]
    more_labels: Callable[[Subject], Mapping[str, str]] | None = None
    sparse: Sparse | None = None

    @property
    def family(self) -> str:
        """The name without the suffix that OpenMetrics keeps for samples."""
        if self.type is MetricType.COUNTER:
            return self.name.removesuffix("_total")
        return self.name.removesuffix("_info") if self.type is MetricType.INFO else self.name


ProcessMetric = Metric[TargetView]


def _unit(name: str) -> str:
    stem = name.removesuffix("_total")
    return next((unit for unit in ("bytes", "seconds", "ratio", "percent") if stem.endswith(f"_{unit}")), "")


def of_report(
    name: str,
    help: str,
    read: Callable[[Report], Iterable[Sample]],
    labels: tuple[str, ...] = (),
    sparse: Sparse | None = None,
) -> ProcessMetric:
    """Return the metric with several samples a report; one whose name ends in _total is a counter."""

    def samples(target: TargetView) -> Iterable[Sample]:
        return () if target.report is None else read(target.report)

    return Metric(name, _type(name), _unit(name), help, labels, samples, sparse=sparse)


def every(labels: tuple[str, ...]) -> bool:
    """Say that all samples of a metric are sparse."""
    return True


def figure(name: str, help: str, read: Callable[[Report], Value | None], sparse: Sparse | None = None) -> ProcessMetric:
    """Return the metric of one figure of the report; None gives no sample."""

    def samples(target: TargetView) -> Iterable[Sample]:
        value = None if target.report is None else read(target.report)
        return () if value is None else (((), value),)

    return Metric(name, _type(name), _unit(name), help, (), samples, sparse=sparse)


def of_view(name: str, help: str, read: Callable[[Subject], Value | None]) -> Metric[Subject]:
    """Return the metric of one figure of what the tracer knows beside the report."""

    def samples(subject: Subject) -> Iterable[Sample]:
        value = read(subject)
        return () if value is None else (((), value),)

    return Metric(name, _type(name), _unit(name), help, (), samples)


def _type(name: str) -> MetricType:
    return MetricType.COUNTER if name.endswith("_total") else MetricType.GAUGE


def counted(rows: dict[str, EventCount] | None, always: tuple[str, ...]) -> Iterator[tuple[str, EventCount]]:
    """Yield the rows by name, those of `always` also when nothing happened; numbers without a name become "other".

    A counter has to be seen at 0, or its first increase is lost to every rate.
    """
    if rows is None:
        return
    merged = {name: NOTHING for name in always}
    for name, row in rows.items():
        key = name if _NAMED.fullmatch(name) else "other"
        before = merged.get(key, NOTHING)
        merged[key] = EventCount(before.count + row.count, before.bytes + row.bytes, before.failed + row.failed)
    yield from merged.items()


NOTHING = EventCount(0, 0)
# A hostile program may pass any number where the kernel wants one of a few; "advice_4711" is no label.
_NAMED = re.compile(r"[A-Za-z_]{1,40}")
