"""Helm without a helm binary: the chart as Helm's own code renders and lints it, in a process of its own.

The library is Go with a runtime and threads of its own, which the tests' process shall not have.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "gomem"
OPERATOR = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
# `Chart.render` has no argument for the cluster's APIs (`helm template --api-versions`), the function under it has.
_RENDER = """
import json, sys, helm_python as helm
from helm_python import _native
chart = helm.Chart.load(sys.argv[1])
answers = []
for asked in json.load(sys.stdin):
    values = asked.pop("values")
    try:
        chart.validate_schema(chart.merge_values(values))
        files = _native.call_string("helm_render", chart._raw(), json.dumps(values), json.dumps(asked))
        answers.append({"files": json.loads(files)})
    except helm.HelmError as error:
        answers.append({"refused": str(error)})
print(json.dumps(answers))
"""
_LINT = (
    "import json, sys, helm_python as helm; "
    "print(json.dumps(helm.lint(sys.argv[1], json.load(sys.stdin), strict=True)))"
)


class ChartRefused(Exception):
    """Helm does not take the chart with these values."""


def rendered(values: dict[str, Any] | None = None, apis: Sequence[str] = OPERATOR) -> list[dict[str, Any]]:
    """Return the documents that the chart makes of `values` in a cluster that has `apis` beside Kubernetes' own.

    Raises ChartRefused with what Helm says.
    """
    answer = _rendered([values or {}], apis)[0]
    if "refused" in answer:
        raise ChartRefused(answer["refused"])
    manifests = [text for path, text in sorted(answer["files"].items()) if path.endswith(".yaml")]
    return [document for text in manifests for document in yaml.safe_load_all(text) if document]


def refusals(values: Sequence[dict[str, Any]]) -> list[str | None]:
    """Return for each of `values` what Helm says against them, None where it takes them."""
    return [answer.get("refused") for answer in _rendered(values, OPERATOR)]


def complaints(values: dict[str, Any]) -> list[str]:
    """Return what `helm lint --strict` complains about, with its warnings, without its advice."""
    report = json.loads(_helm(_LINT, values))
    return [*report["errors"], *(one["error"] for one in report["messages"] if one["severity"] >= 2)]


def _rendered(values: Sequence[dict[str, Any]], apis: Sequence[str]) -> list[dict[str, Any]]:
    asked = [{"values": one, "name": "gomem", "namespace": "gomem", "api_versions": list(apis)} for one in values]
    answers: list[dict[str, Any]] = json.loads(_helm(_RENDER, asked))
    return answers


def _helm(script: str, request: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, str(CHART)], input=json.dumps(request), capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    if done.returncode != 0:
        raise ChartRefused(done.stderr)
    return done.stdout
