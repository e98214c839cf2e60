"""Recording rules and alerts: each has a page, a test and metrics that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from gomem.exporters.http.request import Request
from gomem.exporters.http.routes import Routes

MIXIN = Path(__file__).parents[3] / "deploy" / "mixin"
RUNBOOKS = MIXIN.parents[1] / "exporters" / "runbooks"
REFERENCE = MIXIN.parents[1] / "docs" / "metrics.md"


def rules(name: str) -> list[dict[str, object]]:
    groups = yaml.safe_load((MIXIN / f"{name}.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [str(rule["alert"]) for rule in rules("alerts")]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_runbook_and_a_test_in_which_it_fires(alert: str) -> None:
    page = (RUNBOOKS / f"{alert}.md").read_text()
    assert "## What it means" in page
    assert "## What to do" in page
    tests = yaml.safe_load((MIXIN / "tests.yaml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"] if check["alertname"] == alert]
    assert any(check["exp_alerts"] for check in checks)


@pytest.mark.parametrize("rule", rules("alerts"), ids=ALERTS)
def test_the_runbook_of_an_alert_is_a_page_that_the_exporter_serves(rule: dict[str, Any]) -> None:
    url = urlsplit(rule["annotations"]["runbook_url"].replace("{{ $labels.instance }}", "n1:9469"))
    assert (url.scheme, url.netloc) == ("http", "n1:9469")
    routes = Routes(lambda: None, lambda accept: (b"", ""), False)
    answer = routes.answer(Request("GET", url.path, "", {}, False, False))
    assert (answer.status, answer.body) == (200, (RUNBOOKS / f"{rule['alert']}.md").read_bytes())


def test_alerts_of_a_container_have_no_label_that_a_restart_changes() -> None:
    for rule in rules("alerts"):
        if rule["alert"] in ("GomemOomKill", "GomemNearContainerLimit"):
            asked = [rule["expr"], *rule["annotations"].values()]  # type: ignore[attr-defined]
            assert not re.search(r"gomem_process|\bpid\b|\.process|container_id", str(asked)), rule


def test_every_metric_in_a_rule_is_in_the_reference() -> None:
    known = set(re.findall(r"^\| `(gomem_\w+)`", REFERENCE.read_text(), re.MULTILINE))
    made = {str(rule["record"]) for rule in rules("rules")}
    for rule in [*rules("rules"), *rules("alerts")]:
        expression = str(rule["expr"])
        assert set(re.findall(r"\b(?:pid|cgroup):[a-z_]+:[a-z]+", expression)) <= made, rule
        assert set(re.findall(r"(?<![:\w])gomem_[a-z0-9_]+", expression)) <= known, rule
