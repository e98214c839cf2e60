"""The Prometheus operator's own schemas, as cloudcoil-models-prometheus-operator generates them from its CRDs.

The package is kept in the cache, out of the environment that tests run in: it brings a plugin for pytest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.cache import cache_dir, made_once
from tests.support.requirements import absent

KINDS = ("PodMonitor", "PrometheusRule")
_PACKAGE = "cloudcoil-models-prometheus-operator==0.80.1.0"
# Its models take unknown fields and forget them: what comes out must be what went in.
_VALIDATE = """
import json, sys
from cloudcoil.models.prometheus_operator import v1
said = []
for document in json.load(sys.stdin):
    try:
        kept = getattr(v1, document["kind"]).model_validate(document).model_dump(
            by_alias=True, exclude_unset=True, mode="json")
        said.append(None if kept == document else f"unknown fields: of {document} is kept {kept}")
    except ValueError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def complaints(documents: Sequence[dict[str, Any]]) -> list[str | None]:
    """Return for each PodMonitor or PrometheusRule what is wrong with it: types, values, fields that do not exist."""
    models = made_once(cache_dir() / "programs" / _PACKAGE, _install)
    done = subprocess.run(
        [sys.executable, "-c", _VALIDATE], input=json.dumps(documents), capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(models)},
    )  # fmt: skip
    said: list[str | None] = json.loads(done.stdout)
    return said


def _install(into: Path) -> None:
    options = ["-q", "--disable-pip-version-check", "--target", str(into)]
    command = [sys.executable, "-m", "pip", "install", *options, _PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        absent(f"{_PACKAGE} could not be installed: {done.stderr.strip()[-300:]}")
