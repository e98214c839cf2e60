"""The queries of the dashboards, with their variables filled in as Grafana does it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
BOARDS = sorted(path.stem for path in DASHBOARDS.glob("*.json"))


def queries(name: str, **variables: str) -> dict[tuple[str, str], str]:
    """Return the queries of a board's panels by (panel, legend).

    `variables` that are not given are All, and rates are over ten seconds.
    """
    board, values = _board(name, variables)
    found = {
        (panel["title"], f"{target['refId'] if panel['type'] == 'table' else target.get('legendFormat', '')}"):
        target["expr"] for panel in board["panels"] for target in panel["targets"]
    }  # fmt: skip
    return {key: _filled(query, values) for key, query in found.items()}


def variable_queries(name: str, **variables: str) -> dict[str, str]:
    """Return the queries that a board's variables have their values from, the others filled in as for `queries`."""
    board, values = _board(name, variables)
    chosen = [one for one in board["templating"]["list"] if one["type"] == "query"]
    return {one["name"]: _filled(_series(one["query"]), values) for one in chosen}


def annotation_queries(name: str, **variables: str) -> dict[str, str]:
    """Return the queries of what marks a board's graphs, by name."""
    board, values = _board(name, variables)
    marks = board.get("annotations", {}).get("list", [])
    return {one["name"]: _filled(one["expr"], values) for one in marks}


def links(name: str) -> list[tuple[dict[str, Any], str]]:
    """Return the links of a board's values, each with its panel."""
    board, _ = _board(name, {})
    found = []
    for panel in board["panels"]:
        config = panel["fieldConfig"]
        own = [link["url"] for link in config["defaults"].get("links", [])]
        properties = [one for override in config["overrides"] for one in override["properties"]]
        own += [link["url"] for one in properties if one["id"] == "links" for link in one["value"]]
        found += [(panel, url) for url in own]
    return found


def _board(name: str, variables: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    board = json.loads((DASHBOARDS / f"{name}.json").read_text())
    all_of_each = {one["name"]: ".*" for one in board["templating"]["list"]}
    return board, all_of_each | {"__rate_interval": "10s", "__range": "60s"} | dict(variables)


def _series(query: str) -> str:
    """Return the selector of Grafana's label_values(selector, label)."""
    match = re.fullmatch(r"label_values\((.*), \w+\)", query)
    assert match, query
    return match[1]


def _filled(query: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        query = query.replace(f"${name}", value)
    assert "$" not in query, query
    return query
