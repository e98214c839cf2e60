"""The Prometheus configurations on the page about fleets, as the rules see them."""

from __future__ import annotations

import re

import yaml

from tests.unit.deploy.test_mixin import REFERENCE, rules

PAGE = REFERENCE.with_name("fleets.md")
CONFIGURATIONS = re.findall(r"^```yaml\n# (.*?)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def known() -> set[str]:
    return set(re.findall(r"^\| `(gomem_\w+)`", REFERENCE.read_text(), re.MULTILINE))


def metric_filters(action: str) -> list[str]:
    """Return the regular expressions by which scrapes keep or drop metrics."""
    return [
        relabel["regex"]
        for _, text in CONFIGURATIONS
        for scrape in yaml.safe_load(text)["scrape_configs"]
        for relabel in scrape.get("metric_relabel_configs", [])
        if relabel["action"] == action
    ]


def test_what_is_kept_for_the_rules_and_alerts_is_all_that_they_ask_for() -> None:
    (kept,) = metric_filters("keep")
    expressions = " ".join(str(rule["expr"]) for rule in [*rules("rules"), *rules("alerts")])
    asked = {name for name in known() if re.search(rf"(?<![:\w]){name}\b", expressions)}
    assert asked
    assert not {name for name in asked if not re.fullmatch(kept, name)}


def test_what_is_dropped_exists_and_no_rule_asks_for_it() -> None:
    (dropped,) = metric_filters("drop")
    gone = {name for name in known() if re.fullmatch(dropped, name)}
    assert len(gone) == dropped.count("|") + 1, "a name that no metric has"
    expressions = " ".join(str(rule["expr"]) for rule in [*rules("rules"), *rules("alerts")])
    assert not {name for name in gone if name in expressions}
