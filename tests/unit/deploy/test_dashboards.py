"""The dashboards are what their code says, and ask only for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gomem.exporters.prometheus.catalog import PROCESS_GROUPS
from gomem.exporters.prometheus.metric import MetricType

pytest.importorskip("grafana_foundation_sdk")

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import BOARDS
from deploy.grafana.generate import HERE, text_of
from tests.support.dashboards import annotation_queries, links

REFERENCE = Path(__file__).parents[3] / "docs" / "metrics.md"
RUNBOOKS = Path(__file__).parents[3] / "exporters" / "runbooks"
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
            assert re.search(rf"(rate|increase)\({name}", expression), expression


def of_processes() -> set[str]:
    return {metric.name for group in PROCESS_GROUPS.values() for metric in group}


@pytest.mark.parametrize("name", BOARDS)
def test_every_series_of_a_process_is_chosen_and_joined_by_all_that_makes_it_one(name: str) -> None:
    for expression in expressions(name):
        for metric, selector in re.findall(r"\b(gomem_\w+)\{(.*?)\}", expression):
            assert "job=" in selector, expression
            assert "instance=" in selector, expression
            assert metric not in of_processes() or "process=" in selector, expression
        if of_processes() & set(METRIC.findall(expression)):
            assert re.findall(r"\bon \((.*?)\)", expression), expression
        for joined in re.findall(r"\* on \((.*?)\)", expression):
            assert joined == "job, instance, pid, process", expression


@pytest.mark.parametrize("name", BOARDS)
def test_every_dashboard_chooses_by_namespace_workload_pod_and_container(name: str) -> None:
    board = json.loads((HERE / f"{name}.json").read_text())
    variables = [variable["name"] for variable in board["templating"]["list"]]
    assert {"job", "instance", "namespace", "workload", "pod", "container", "process"} <= set(variables)
    asked = [one for one in expressions(name) if of_processes() & set(METRIC.findall(one))]
    assert len(asked) >= 4
    for expression in asked:
        for label in ("namespace", "workload", "pod", "container"):
            assert f'{label}=~"${label}"' in expression, expression


@pytest.mark.parametrize("name", ["overview", "process"])
def test_ram_leads_and_address_space_comes_last(name: str) -> None:
    titles = [str(panel["title"]) for panel in panels(name)]
    assert titles[0] in ("RSS", "In RAM")
    assert titles.index("Address space (VSZ)") >= len(titles) - 2
    first = [one for one, panel in zip(titles, panels(name), strict=True) if panel["gridPos"]["y"] < 12]  # type: ignore[index]
    assert not [title for title in first if "VSZ" in title or "Address" in title]


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


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_one_by_the_types_of_grafana(name: str) -> None:
    board = json.loads((HERE / f"{name}.json").read_text())
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(board)))))
    for one in board.get("annotations", {}).get("list", []):
        for own in ("titleFormat", "textFormat", "useValueForTime"):  # of Prometheus's data source alone
            del one[own]
    assert again == board


def variables_of(name: str) -> set[str]:
    board = json.loads((HERE / f"{name}.json").read_text())
    return {variable["name"] for variable in board["templating"]["list"]}


@pytest.mark.parametrize("name", ["overview", "process", "workload"])
def test_every_link_leads_to_a_dashboard_that_is_there_and_sets_variables_that_it_has(name: str) -> None:
    found = links(name)
    assert found
    for panel, url in found:
        if (match := re.match(r"/d/gomem-(\w+)\?", url)) is not None:
            assert {*re.findall(r"var-(\w+)=", url)} <= variables_of(match[1]), panel["title"]
            assert "${__url_time_range}" in url
        else:
            assert url.startswith("http://${__data.fields.instance}/"), url
        # A field that is taken out of a table is not there for its links.
        taken_out = [one["options"]["excludeByName"] for one in panel.get("transformations", [])
                     if one["id"] == "organize"]  # fmt: skip
        for field in re.findall(r"__data\.fields\.(\w+)", url):
            assert not [one for one in taken_out if field in one], (panel["title"], field)
            assert not [one for one in panel["transformations"] if field in one["options"].get("renameByName", {})
                        and f"{field}" != "id"], field  # fmt: skip


def test_the_overview_leads_to_the_process_and_the_process_to_its_page_and_its_runbook() -> None:
    assert [url for _, url in links("overview") if url.startswith("/d/gomem-process?")]
    assert [url for _, url in links("overview") if url.startswith("/d/gomem-workload?")]
    of_process = [url for _, url in links("process")]
    assert [url for url in of_process if "/targets/${__data.fields.pid}" in url]
    assert [url for url in of_process if "/runbooks/${__data.fields.alertname}.md" in url]
    alerts = re.findall(r"alert: (\w+)", (HERE.parents[1] / "mixin" / "alerts.yaml").read_text())
    assert alerts
    assert [alert for alert in alerts if not (RUNBOOKS / f"{alert}.md").exists()] == []


@pytest.mark.parametrize("name", ["overview", "process", "workload"])
def test_graphs_are_marked_and_limits_have_thresholds(name: str) -> None:
    assert set(annotation_queries(name)) == {"OOM kill", "Start of a process", "At GOMEMLIMIT", "Start of gomem"}
    for panel in panels(name):
        if "Share of" in str(panel["title"]) or panel["title"] == "Kills":
            config = panel["fieldConfig"]
            assert isinstance(config, dict)
            assert len(config["defaults"]["thresholds"]["steps"]) > 1, panel["title"]
    kinds = {panel["type"] for panel in panels(name)}
    assert {"state-timeline", "table", "timeseries", "stat"} <= kinds
