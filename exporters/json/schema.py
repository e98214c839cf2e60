"""The JSON Schemas of what gomem prints (gomem.report/1 and others), made from their types, and a check against them.

The files beside this module are for those who read reports; after a change of the types
`python -m gomem.exporters.json.schema` writes them anew. The check is for tests: jsonschema is no runtime dependency.
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
from gomem.tracer.report import goroutines as of_goroutines
from gomem.tracer.report import pod as of_pod
from gomem.tracer.report import why as of_why
from gomem.tracer.report.difference import contract as of_difference
from gomem.tracer.report.difference.contract import Difference
from gomem.tracer.report.goroutines import GoroutineReport
from gomem.tracer.report.pod import PodReport
from gomem.tracer.report.why import Why

SCHEMA_FILE, GOROUTINES_FILE = "report.schema.json", "goroutines.schema.json"
POD_FILE, WHY_FILE = "pod.schema.json", "why.schema.json"
DIFFERENCE_FILE = "diff.schema.json"
_NO_VALUE = re.compile(r'(?<!")\bNone\b')  # "None" is the name of a region state
_DESCRIPTION = (
    "{what} Sizes are bytes, durations seconds, times RFC 3339. null: could not be had (limits says why)."
    " Fields may be added; none changes its meaning inside /1."
)


def report_schema() -> JsonObject:
    """Return the JSON Schema (2020-12) of a report, from its types: every field is there, if only as null."""
    return _schema(SCHEMA, Report, "gomem report", "One report of gomem.", MemStats)


def goroutines_schema() -> JsonObject:
    """Return that of what `gomem goroutines` prints."""
    what = "The goroutines of a process by what they have in common."
    return _schema(of_goroutines.SCHEMA, GoroutineReport, "gomem goroutines", what)


def pod_schema() -> JsonObject:
    """Return that of what `gomem pod` prints."""
    return _schema(of_pod.SCHEMA, PodReport, "gomem pod", "The bill of a memory cgroup.")


def why_schema() -> JsonObject:
    """Return that of what `gomem why` prints."""
    what = "Why a process takes the memory that it takes: what it is, and what was ruled out by which figure."
    return _schema(of_why.SCHEMA, Why, "gomem why", what)


def difference_schema() -> JsonObject:
    """Return that of what `gomem diff` prints of two reports."""
    what = "What grew from one report to another."
    return _schema(of_difference.SCHEMA, Difference, "gomem diff", what)


def _schema(name: str, kind: type, title: str, what: str, *more: type) -> JsonObject:
    _, parts = schema_components([kind, *more], ref_template="#/$defs/{name}", schema_hook=_anything)
    root = kind.__name__
    definitions = {one: _complete(part, f"#/$defs/{root}") for one, part in parts.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": name,
        **definitions.pop(root),
        "title": title,
        "description": _DESCRIPTION.format(what=what),
        "$defs": definitions,
    }


def _anything(kind: type) -> JsonObject:
    if kind is object:
        return {"description": "Any JSON."}
    raise NotImplementedError


def _complete(part: JsonObject, root: str) -> JsonObject:
    """Return a definition that requires all its fields: a default is for whoever makes a report, not who reads it."""
    fields = cast("dict[str, JsonObject]", part["properties"])
    told = {name: {word: value for word, value in field.items() if word != "default"} for name, field in fields.items()}
    description = _NO_VALUE.sub("null", inspect.cleandoc(cast(str, part["description"])))
    whole = {**part, "description": description, "properties": told, "required": list(fields)}
    return cast(JsonObject, _rooted(whole, root))


def _rooted(value: object, root: str) -> object:
    """Return `value` with references to the definition `root` as such to the whole schema."""
    if isinstance(value, dict):
        return {word: "#" if word == "$ref" and one == root else _rooted(one, root) for word, one in value.items()}
    return [_rooted(one, root) for one in value] if isinstance(value, list) else value


def load_schema(file: str = SCHEMA_FILE) -> JsonObject:
    """Return the schema in the file."""
    text = resources.files("gomem.exporters.json").joinpath(file).read_text(encoding="utf-8")
    return cast(JsonObject, json.loads(text))


def validate(report: Mapping[str, object], file: str = SCHEMA_FILE) -> None:
    """Check the JSON object of a report; raises ValueError with every violation and its place."""
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(load_schema(file)).iter_errors(report), key=lambda error: error.json_path)
    if errors:
        raise ValueError("\n".join(f"{error.json_path}: {error.message[:300]}" for error in errors[:50]))


def _write(file: str, schema: JsonObject) -> None:
    Path(__file__).with_name(file).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write(SCHEMA_FILE, report_schema())
    _write(GOROUTINES_FILE, goroutines_schema())
    _write(POD_FILE, pod_schema())
    _write(WHY_FILE, why_schema())
    _write(DIFFERENCE_FILE, difference_schema())
