"""The two text formats, read with prometheus_client's parsers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from gomem.exporters.prometheus import MetricOptions, Scrapes
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import CgroupView, FleetView
from tests.support.client_metrics import ClientCollector
from tests.support.samples.fleet import ALL, all_samples, target, view
from tests.support.samples.reports import kernel_only

FORMATS: dict[str, tuple[str, Callable[[str], Iterable[Metric]], Callable[[CollectorRegistry], bytes]]] = {
    "classic": ("text/plain", parse_classic, generate_latest),
    "openmetrics": ("application/openmetrics-text", parse_openmetrics, generate_openmetrics),
}
OF_BUILD = {
    "classic": ["gomem_build_info", "gomem_metric_errors"],
    "openmetrics": ["gomem_build", "gomem_metric_errors"],
}
HOSTILE = 'x"} 1\n# TYPE evil counter\nevil{a="\\\udcff\ud800\x00\x1b[2J\u2028\u202e\r' + "\U0001f4a9" * 10_000


def _read(text: str, parse: Callable[[str], Iterable[Metric]]) -> list[tuple[object, ...]]:
    """Return the families with their samples; empty labels are the same as none."""
    return [
        (family.name, family.documentation, family.type, family.unit,
         [(sample.name, {name: value for name, value in sample.labels.items() if value}, sample.value)
          for sample in family.samples])
        for family in parse(text)
    ]  # fmt: skip


def _text(shown: FleetView | None, kind: str, options: MetricOptions | None = None) -> str:
    return Scrapes(lambda: shown, options).answer(FORMATS[kind][0])[0].decode()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("options", [MetricOptions(), MetricOptions(size_classes=True)])
def test_what_is_written_is_what_prometheus_client_writes(kind: str, options: MetricOptions) -> None:
    shown, (_, parse, generate) = all_samples(), FORMATS[kind]
    registry = CollectorRegistry()
    registry.register(ClientCollector(lambda: shown, options))
    ours = _read(_text(shown, kind, options), parse)
    assert str(ours.pop()[0]).startswith("gomem_metric_errors")
    assert ours == _read(generate(registry).decode(), parse)


@pytest.mark.parametrize("kind", FORMATS)
def test_all_families_together_can_be_read_and_none_is_there_twice(kind: str) -> None:
    read = _read(_text(all_samples(), kind, ALL), FORMATS[kind][1])
    names = [family[0] for family in read]
    assert len(names) == len(set(names)) or kind == "classic"  # the gauge and the counter go_memstats_alloc_bytes
    assert {"go_memstats_alloc_bytes", "process_resident_memory_bytes"} <= set(names)
    keys = [(sample[0], tuple(sorted(sample[1].items()))) for family in read for sample in family[4]]  # type: ignore[attr-defined]
    assert len(keys) == len(set(keys))


def test_openmetrics_has_units_and_ends_with_eof() -> None:
    text = _text(all_samples(), "openmetrics")
    assert "# UNIT gomem_resident_bytes bytes\n" in text
    assert "# TYPE gomem_drift_bytes counter\n# UNIT gomem_drift_bytes bytes\ngomem_drift_bytes_total{" in text
    assert "# TYPE gomem_process info\ngomem_process_info{" in text
    assert text.endswith("\n# EOF\n")


def test_before_the_first_view_both_formats_are_valid() -> None:
    for kind, (_, parse, _) in FORMATS.items():
        assert [family[0] for family in _read(_text(None, kind), parse)] == OF_BUILD[kind]


def _with_strings(text: str) -> FleetView:
    report = kernel_only()
    process = replace(report.process, exe=text, go_version=text, main_module=text, container_id=text, pod=text)
    workload = Workload(text, text, text, text, text, text, {text: text}, text)
    shown = view(target(replace(report, process=process), 7, text, workload=workload, cgroup=text))
    return dataclasses.replace(shown, cgroups=(CgroupView(text, workload, None, 0),))


@pytest.mark.parametrize("kind", FORMATS)
def test_hostile_strings_stay_in_their_labels(kind: str) -> None:
    text = _text(_with_strings(HOSTILE), kind, ALL)
    families = list(FORMATS[kind][1](text))
    assert not [family for family in families if "evil" in family.name]
    info = next(sample for family in families for sample in family.samples if sample.name == "gomem_process_info")
    assert info.labels["pid"] == "7"
    assert all(len(value) <= 256 for value in info.labels.values())
    assert all(len(name) <= 140 for name in info.labels)
    assert len(text) < 200_000


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=60))
def test_any_string_can_be_shown(text: str) -> None:
    for kind, (_, parse, _) in FORMATS.items():
        written = _text(_with_strings(text), kind, ALL)
        owners = {sample.labels["process"] for family in parse(written) for sample in family.samples
                  if "pid" in sample.labels and "process" in sample.labels}  # fmt: skip
        assert len(owners) <= 1
