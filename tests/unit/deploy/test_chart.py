"""The chart: what it makes only where it is wanted and can be, and which values it takes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.charts import CHART, OPERATOR, ChartRefused, complaints, refusals, rendered
from tests.support.manifests import VALUES
from tests.support.workloads import of_kind

DEPLOY = CHART.parents[1]
RULES = {"enabled": True}


def mixin() -> list[dict[str, Any]]:
    return [group for name in ("rules", "alerts")
            for group in yaml.safe_load((DEPLOY / "mixin" / f"{name}.yaml").read_text())["groups"]]  # fmt: skip


def rule_groups(**values: Any) -> list[dict[str, Any]]:
    (found,) = of_kind(rendered({"prometheusRule": {**RULES, **values}}), "PrometheusRule")
    groups: list[dict[str, Any]] = found["spec"]["groups"]
    return groups


@pytest.mark.parametrize("name", VALUES)
def test_helm_lint_has_nothing_to_say(name: str) -> None:
    assert complaints(VALUES[name]) == []


def test_what_the_operator_reads_is_made_only_where_it_is_known_and_wanted() -> None:
    monitor, rule = OPERATOR
    everything = {"podMonitor": {"enabled": True}, "prometheusRule": RULES}
    kinds = {"PodMonitor", "PrometheusRule"}

    def made(values: dict[str, Any], *apis: str) -> set[str]:
        return {one["kind"] for one in rendered(values, apis)} & kinds

    assert made(everything) == set()
    assert made(everything, "apps/v1/DaemonSet", "monitoring.coreos.com/v1/ServiceMonitor") == set()
    assert made(everything, monitor) == {"PodMonitor"}
    assert made(everything, rule) == {"PrometheusRule"}
    assert made(everything, monitor, rule) == kinds
    assert made({"podMonitor": {"enabled": False}}, monitor, rule) == set()


def test_the_rules_are_those_of_the_mixin() -> None:
    assert rule_groups() == mixin()


def test_alerts_get_the_labels_and_pages_that_are_asked_for_and_recorded_series_do_not() -> None:
    groups = rule_groups(alertLabels={"team": "platform", "severity": "page"}, runbookUrl="https://wiki.example/gomem/")
    expected = copy.deepcopy(mixin())
    for rule in (rule for group in expected for rule in group["rules"] if "alert" in rule):
        rule["labels"] = {**rule["labels"], "team": "platform", "severity": "page"}
        rule["annotations"]["runbook_url"] = f"https://wiki.example/gomem/{rule['alert']}.md"
    assert groups == expected


def test_alerts_can_be_left_out_one_by_one() -> None:
    alerts = [rule["alert"] for group in mixin() for rule in group["rules"] if "alert" in rule]
    left = rule_groups(disabled=alerts[:3])
    assert [rule["alert"] for group in left for rule in group["rules"] if "alert" in rule] == alerts[3:]
    assert rule_groups(disabled=alerts) == [group for group in mixin() if not any("alert" in r for r in group["rules"])]


def test_each_dashboard_is_a_config_map_that_the_sidecar_of_grafana_finds() -> None:
    assert not of_kind(rendered({}), "ConfigMap")
    labels = {"dashboard": "yes", "grafana_dashboard": None}
    values = {"enabled": True, "namespace": "grafana", "labels": labels, "annotations": {"folder": "Go"}}
    found = of_kind(rendered({"dashboards": values}), "ConfigMap")
    boards = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
    assert len({one["metadata"]["name"] for one in found}) == len(boards) >= 3
    for one, board in zip(found, boards, strict=True):
        assert one["metadata"]["namespace"] == "grafana"
        assert one["metadata"]["labels"]["dashboard"] == "yes"
        assert "grafana_dashboard" not in one["metadata"]["labels"]
        assert one["metadata"]["annotations"] == {"folder": "Go"}
        assert one["data"] == {f"gomem-{board.name}": board.read_text()}
        assert len(json.dumps(one)) < 1 << 20  # what the API server takes


def test_the_sources_of_rules_and_dashboards_are_files_of_this_repository() -> None:
    for path in (CHART / "files").iterdir():
        assert path.is_symlink()
        assert path.resolve().is_relative_to(DEPLOY)
        assert path.exists(), path


def leaves(values: dict[str, Any], *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, *above, name)
        else:
            yield (*above, name), value


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def test_every_value_has_a_type_that_is_checked() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    found = list(leaves(values))
    wrong = [nested(path, 7 if isinstance(value, list | dict) else [7]) for path, value in found]
    accepted = [one for one, said in zip(wrong, refusals(wrong), strict=True) if said is None]
    assert not accepted
    assert len(found) > 30


def test_every_object_of_ours_refuses_names_that_it_does_not_know() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = {"nodeSelector", "affinity", "podAnnotations", "labels", "alertLabels", "annotations", "tlsConfig",
            "basicAuth", "requests", "limits"}  # fmt: skip
    objects = {path[:-1] for path, _ in leaves(values)} - {path for path, _ in leaves(values)}
    asked = [nested((*path, "mistyped"), {}) for path in sorted(objects) if not free & set(path)]
    for one, said in zip(asked, refusals(asked), strict=True):
        assert said is not None and "mistyped" in said, one  # noqa: PT018


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cpuBudget": 0}, "cpuBudget"),
        ({"select": ["--pid=1"]}, "select"),
        ({"prot": 9469}, "prot"),
        ({"blackBox": {"bytes": "much"}}, "bytes"),
        ({"podMonitor": {"interval": "often"}}, "interval"),
        ({"prometheusRule": {"runbookUrl": "runbooks"}}, "runbookUrl"),
        ({"seccompProfile": {"type": "Unconfined"}}, "type"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ChartRefused, match=said):
        rendered(values)
