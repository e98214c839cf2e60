"""Recording rules and alerts, as promtool sees them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.debian import prometheus

MIXIN = Path(__file__).parents[3] / "deploy" / "mixin"
REFERENCE = MIXIN.parents[1] / "docs" / "metrics.md"


def promtool(*words: object) -> str:
    program = prometheus().with_name("promtool")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules(name: str) -> list[dict[str, object]]:
    groups = yaml.safe_load((MIXIN / f"{name}.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [str(rule["alert"]) for rule in rules("alerts")]


def test_promtool_accepts_the_rules() -> None:
    assert "FAILED" not in promtool("check", "rules", MIXIN / "rules.yaml", MIXIN / "alerts.yaml")


def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", MIXIN / "tests.yaml")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_runbook_and_a_test_in_which_it_fires(alert: str) -> None:
    page = (MIXIN / "runbooks" / f"{alert}.md").read_text()
    assert "## What it means" in page
    assert "## What to do" in page
    tests = yaml.safe_load((MIXIN / "tests.yaml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"] if check["alertname"] == alert]
    assert any(check["exp_alerts"] for check in checks)


def test_every_metric_in_a_rule_is_in_the_reference() -> None:
    known = set(re.findall(r"^\| `(gomem_\w+)`", REFERENCE.read_text(), re.MULTILINE))
    made = {str(rule["record"]) for rule in rules("rules")}
    for rule in [*rules("rules"), *rules("alerts")]:
        expression = str(rule["expr"])
        assert set(re.findall(r"\bpid:[a-z_]+:[a-z]+", expression)) <= made, rule
        assert set(re.findall(r"(?<![:\w])gomem_[a-z0-9_]+", expression)) <= known, rule
