"""The names: unique, by Prometheus' conventions, documented, and not too many series for each process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.prometheus import MetricOptions
from gomem.exporters.prometheus.catalog import process_metrics
from gomem.exporters.prometheus.metric import Metric, MetricType
from gomem.exporters.prometheus.tracer_health import BUILD, ERRORS
from gomem.exporters.prometheus.tracer_health import METRICS as TRACER
from gomem.exporters.reference import with_tables
from tests.support.samples.fleet import ALL, series, whole
from tests.support.samples.reports import SAMPLES

PAGE = Path(__file__).parents[4] / "docs" / "metrics.md"
METRICS: list[Metric[Any]] = [*process_metrics(ALL), *TRACER, BUILD, ERRORS]
OURS = [metric for metric in METRICS if metric.name.startswith("gomem_")]


def test_no_name_is_there_twice() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", OURS, ids=lambda metric: metric.name)
def test_each_name_follows_the_conventions_and_its_help_is_a_sentence(metric: Metric[Any]) -> None:
    assert re.fullmatch(r"gomem_[a-z0-9_]+[a-z0-9]", metric.name)
    assert metric.name.endswith("_total") == (metric.type is MetricType.COUNTER)
    assert metric.name.endswith("_info") == (metric.type is MetricType.INFO)
    assert not metric.unit or metric.family.endswith(f"_{metric.unit}")
    assert metric.help.endswith(".")
    assert not set(metric.help) & set('\\"\n|')
    assert all(re.fullmatch(r"[a-z_]+", label) and label not in ("pid", "process") for label in metric.labels)


def test_the_page_has_all_of_them() -> None:
    page = PAGE.read_text()
    assert with_tables(page) == page, "python -m gomem.exporters.reference writes the tables anew"


@pytest.mark.parametrize("sample", [*SAMPLES, "whole"])
def test_a_process_has_less_than_200_series(sample: str) -> None:
    report = SAMPLES.get(sample, whole)()
    assert len(series(report)) < 200
    # At most 68 size classes, whatever the process allocates.
    assert len(series(report, MetricOptions(size_classes=True))) < 200 + 68 * 5
