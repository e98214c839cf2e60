"""Helm without a helm binary: the chart as Helm's own code renders it, in a process of its own.

The library is Go with a runtime and threads of its own, which the tests' process shall not have.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "gomem"
_RENDER = (
    "import json, sys, helm_python as helm; chart = helm.Chart.load(sys.argv[1]); asked = json.load(sys.stdin); "
    "chart.validate_schema(chart.merge_values(asked['values'])); print(json.dumps(chart.render(**asked)))"
)


class ChartRefused(Exception):
    """Helm does not take the chart with these values."""


def rendered(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the documents that the chart makes of `values`. Raises ChartRefused with what Helm says."""
    request = json.dumps({"values": values or {}, "name": "gomem", "namespace": "gomem"})
    done = subprocess.run(
        [sys.executable, "-c", _RENDER, str(CHART)], input=request, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    if done.returncode != 0:
        raise ChartRefused(done.stderr)
    files: dict[str, str] = json.loads(done.stdout)
    manifests = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
    return [document for text in manifests for document in yaml.safe_load_all(text) if document]
