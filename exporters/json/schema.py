"""The JSON Schema of gomem.report/1, made from the report's types, and a check against it.

The file beside this module is for those who read reports; after a change of the types
`python -m gomem.exporters.json.schema` writes it anew. The check is for tests: jsonschema is no runtime dependency.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import cast

from msgspec.json import schema_components

from gomem.tracer.report import SCHEMA, JsonObject, MemStats, Report

SCHEMA_FILE = "report.schema.json"
_NO_VALUE = re.compile(r'(?<!")\bNone\b')  # "None" is the name of a region state
_ROOT = "#/$defs/Report"
_DESCRIPTION = (
    "One report of gomem. Sizes are bytes, durations seconds, times RFC 3339. null: could not be had (limits says why)."
    " Fields may be added; none changes its meaning inside /1."
)


def report_schema() -> JsonObject:
    """Return the JSON Schema (2020-12) of a report, from its types: every field is there, if only as null."""
    _, parts = schema_components([Report, MemStats], ref_template="#/$defs/{name}", schema_hook=_anything)
    definitions = {name: _complete(part) for name, part in parts.items()}
    root = definitions.pop("Report")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        **root,
        "title": "gomem report",
        "description": _DESCRIPTION,
        "$defs": definitions,
    }


def _anything(kind: type) -> JsonObject:
    if kind is object:
        return {"description": "Any JSON."}
    raise NotImplementedError


def _complete(part: JsonObject) -> JsonObject:
    """Return a definition that requires all its fields: a default is for whoever makes a report, not who reads it."""
    fields = cast("dict[str, JsonObject]", part["properties"])
    told = {name: {word: value for word, value in field.items() if word != "default"} for name, field in fields.items()}
    description = _NO_VALUE.sub("null", inspect.cleandoc(cast(str, part["description"])))
    whole = {**part, "description": description, "properties": told, "required": list(fields)}
    return cast(JsonObject, _rooted(whole))


def _rooted(value: object) -> object:
    """Return `value` with references to the report's definition as such to the whole schema."""
    if isinstance(value, dict):
        return {word: "#" if word == "$ref" and one == _ROOT else _rooted(one) for word, one in value.items()}
    return [_rooted(one) for one in value] if isinstance(value, list) else value


def load_schema() -> JsonObject:
    """Return the schema in the file."""
    text = resources.files("gomem.exporters.json").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    return cast(JsonObject, json.loads(text))


def validate(report: Mapping[str, object]) -> None:
    """Check the JSON object of a report; raises ValueError with every violation and its place."""
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(load_schema()).iter_errors(report), key=lambda error: error.json_path)
    if errors:
        raise ValueError("\n".join(f"{error.json_path}: {error.message[:300]}" for error in errors[:50]))


if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA_FILE).write_text(json.dumps(report_schema(), indent=2) + "\n", encoding="utf-8")
