"""Metrics of real processes: valid to promtool, and what the processes export of themselves."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gomem.exporters.http.statistics import WebCollector, WebStatistics
from gomem.exporters.otlp.push import PushCollector, PushCounts
from gomem.exporters.prometheus import MetricOptions, Scrapes, cgroups
from gomem.exporters.prometheus.catalog import process_metrics
from gomem.tracer.process.target import Target
from gomem.tracer.report import Report
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import build
from tests.support.debian import prometheus
from tests.support.parked import Flag, parked
from tests.support.prometheus import METRICS, running_prometheus
from tests.support.samples.fleet import all_samples, target, view
from tests.support.toolchains import RELEASES

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
ALL = MetricOptions(size_classes=True, go_collector=True)
SHAPE: dict[str, Flag] = {"live": 12, "garbage": 0.5, "goroutines": 30, "depth": 10, "big": 4, "bigdrop": 2}


def _report(pid: int) -> Report:
    with Target.open(pid) as process, Inspector.open(process) as inspector:
        return snapshot_target(inspector)


def _text(report: Report, options: MetricOptions = ALL) -> str:
    shown = view(target(report, report.process.pid))
    return Scrapes(lambda: shown, options).answer()[0].decode()


def _families(text: str) -> dict[str, Metric]:
    return {family.name + ("_total" if family.type == "counter" else ""): family
            for family in text_string_to_metric_families(text)}  # fmt: skip


@pytest.mark.parametrize("options", [MetricOptions(), ALL])
def test_promtool_has_no_complaint(options: MetricOptions) -> None:
    promtool = prometheus().with_name("promtool")
    shown = all_samples()
    scrapes = Scrapes(lambda: shown, options)
    scrapes.add(WebCollector(lambda: WebStatistics({("metrics", 200): 1}, {"metrics": 0.5}, {"slow": 1}, 0, 1, 2, 0)))
    scrapes.add(PushCollector(lambda: PushCounts(1, 0, "")))
    text = scrapes.answer()[0]
    assert b"\ngomem_otlp_pushes_total 1" in text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize("release", [RELEASES[0], RELEASES[-1]])
def test_the_names_of_client_golang_have_the_figures_that_the_program_has(release: str) -> None:
    with parked(build("parked", release, stripped=True), SHAPE, env={"GOMAXPROCS": "3", "GOGC": "off"}) as process:
        report = _report(process.pid)
        truth = process.memstats()
    families = _families(_text(report)).values()
    shown = {sample.name: float(sample.value) for family in families for sample in family.samples}
    assert {name: shown[name] for name in METRICS.values()} == {
        name: float(truth[field]) for field, name in METRICS.items()
    }
    assert shown["go_sched_gomaxprocs_threads"] == 3
    assert shown["go_gc_gogc_percent"] == 18446744073709551615.0
    assert shown["go_gc_gomemlimit_bytes"] == 9223372036854775807.0


def test_a_process_has_less_than_200_series_and_those_by_size_class_are_bounded() -> None:
    with parked(build("parked", RELEASES[-1]), SHAPE) as process:
        report = _report(process.pid)
    owner = f'pid="{report.process.pid}"'
    default = [line for line in _text(report, MetricOptions()).splitlines() if owner in line]
    by_class = [line for line in _text(report, MetricOptions(size_classes=True)).splitlines() if owner in line]
    assert 80 < len(default) < 200
    assert len(default) < len(by_class) <= len(default) + 68 * 5


def test_debians_prometheus_exports_the_same_names_with_the_same_types(tmp_path: Path) -> None:
    with running_prometheus(tmp_path) as process:
        own = _families(process.get("/metrics"))
        ours = _families(_text(_report(process.pid)))
    both = {name for name in own.keys() & ours.keys() if name.startswith(("go_", "process_"))}
    assert both >= {*METRICS.values()} - {"go_gc_duration_seconds_count"} | {
        "go_goroutines", "go_threads", "go_info", "go_gc_duration_seconds", "go_memstats_last_gc_time_seconds",
        "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_start_time_seconds",
    }  # fmt: skip
    assert {name: ours[name].type for name in both} == {name: own[name].type for name in both}
    assert ours["go_info"].samples[0].labels["version"] == own["go_info"].samples[0].labels["version"]
    started = [families["process_start_time_seconds"].samples[0].value for families in (own, ours)]
    assert abs(started[0] - started[1]) < 2


def test_the_queries_of_the_page_are_queries_of_metrics_that_exist(tmp_path: Path) -> None:
    queries = re.findall(r"```promql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    rules = [{"record": f"page:query{at}", "expr": query} for at, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "page", "rules": rules}]}))
    promtool = prometheus().with_name("promtool")
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, check=False, timeout=60)
    assert len(queries) > 5
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    known = {metric.name for metric in process_metrics(ALL)} | {metric.name for metric in cgroups.METRICS}
    assert set(re.findall(r"gomem_\w+", "".join(queries))) <= known
