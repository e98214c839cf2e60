"""The JSON Schema of gomem.report/1, and a check against it (for tests: jsonschema is no runtime dependency)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import cast

SCHEMA_FILE = "report.schema.json"


def load_schema() -> dict[str, object]:
    """Return the JSON Schema (2020-12) of a report."""
    text = resources.files("exporters").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    return cast("dict[str, object]", json.loads(text))


def validate(report: Mapping[str, object]) -> None:
    """Check the JSON object of a report; raises ValueError with every violation and its place."""
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(load_schema()).iter_errors(report), key=lambda error: error.json_path)
    if errors:
        raise ValueError("\n".join(f"{error.json_path}: {error.message[:300]}" for error in errors[:50]))
