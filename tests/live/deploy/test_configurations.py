"""What is for Prometheus and its operator, as promtool and the operator's own schemas judge it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support import operator_schemas
from tests.support.charts import rendered
from tests.support.manifests import OVERLAYS, VALUES, chart, overlay
from tests.support.prometheus import promtool
from tests.support.workloads import of_kind

ROOT = Path(__file__).parents[3]
MIXIN = ROOT / "deploy" / "mixin"
FLEETS = ROOT / "docs" / "fleets.md"
CONFIGURATIONS = re.findall(r"^```yaml\n# (.*?)\n(.*?)^```$", FLEETS.read_text(), re.MULTILINE | re.DOTALL)


def test_promtool_accepts_the_rules() -> None:
    assert "FAILED" not in promtool("check", "rules", MIXIN / "rules.yaml", MIXIN / "alerts.yaml")


def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", MIXIN / "tests.yaml")


def test_promtool_accepts_the_rules_of_the_chart(tmp_path: Path) -> None:
    values = {"enabled": True, "alertLabels": {"team": "platform"}, "disabled": ["GomemStale"]}
    (found,) = of_kind(rendered({"prometheusRule": values}), "PrometheusRule")
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": found["spec"]["groups"]}))
    assert "FAILED" not in promtool("check", "rules", path)


@pytest.mark.parametrize(("name", "text"), CONFIGURATIONS)
def test_promtool_accepts_each_configuration_of_the_page_on_fleets(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(text)
    agent = ["--agent"] if name == "agent" else []
    assert "SUCCESS" in promtool("check", "config", *agent, tmp_path / "prometheus.yml")


def test_what_is_for_the_prometheus_operator_fits_its_schema() -> None:
    everything = [one for documents in (*map(overlay, OVERLAYS), *map(chart, VALUES)) for one in documents]
    checked = of_kind(everything, *operator_schemas.KINDS)
    mistyped = {**checked[0], "spec": {**checked[0]["spec"], "podMetricEndpoints": []}}
    *said, refused = operator_schemas.complaints([*checked, mistyped])
    assert said == [None] * len(checked)
    assert refused
    assert {one["kind"] for one in checked} == set(operator_schemas.KINDS)
