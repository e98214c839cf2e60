"""The dashboards are what their code says, and ask only for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporters.prometheus.catalog import PROCESS_GROUPS
from exporters.prometheus.metric import MetricType

pytest.importorskip("grafana_foundation_sdk")

from deploy.grafana.boards import BOARDS
from deploy.grafana.generate import HERE, text_of

REFERENCE = Path(__file__).parents[3] / "docs" / "metrics.md"
METRIC = re.compile(r"\bgomem_[a-z0-9_]+")


def panels(name: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((HERE / f"{name}.json").read_text())["panels"]
    return found


def expressions(name: str) -> Iterator[str]:
    for panel in panels(name):
        targets = panel["targets"]
        assert isinstance(targets, list)
        for target in targets:
            yield target["expr"]


@pytest.mark.parametrize("name", BOARDS)
def test_the_files_are_what_the_code_makes(name: str) -> None:
    assert (HERE / f"{name}.json").read_text() == text_of(name), "run: python -m deploy.grafana.generate"


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_teaches_and_has_a_query(name: str) -> None:
    for panel in panels(name):
        assert panel["title"], panel
        assert len(str(panel["description"])) > 10, panel["title"]
        assert panel["targets"], panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_metric_asked_for_is_in_the_reference(name: str) -> None:
    known = set(re.findall(r"^\| `(gomem_\w+)`", REFERENCE.read_text(), re.MULTILINE))
    for expression in expressions(name):
        assert set(METRIC.findall(expression)) <= known, expression


def test_every_counter_is_asked_for_by_its_rate_or_as_a_total() -> None:
    counters = {m.name for group in PROCESS_GROUPS.values() for m in group if m.type is MetricType.COUNTER}
    for expression in expressions("overview"):
        for name in counters & set(METRIC.findall(expression)):
            assert f"rate({name}" in expression, expression


def test_no_panel_lies_on_another() -> None:
    for name in BOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in panels(name):
            place = panel["gridPos"]
            assert isinstance(place, dict)
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
