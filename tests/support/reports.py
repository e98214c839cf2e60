"""Reports as data, out of the JSON that the command line wrote."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from tracer.report import Report


def report_from(json: Mapping[str, Any]) -> Report:
    """Return the report of a JSON object that `report.to_dict` made."""
    rows = [{"from_state": row["from"], "to_state": row["to"], **row} for row in json["transitions"] or ()]
    made = _made(Report, {**json, "transitions": rows if json["transitions"] is not None else None})
    assert isinstance(made, Report)
    return made


def _made(kind: Any, value: Any) -> Any:
    """Return `value`, out of JSON, as what the annotation `kind` says."""
    if value is None:
        return None
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: _made(hints[field.name], value[field.name]) for field in fields(kind)})  # type: ignore[operator]
    arguments = get_args(kind)
    if get_origin(kind) is list:
        return [_made(arguments[0], one) for one in value]
    if get_origin(kind) is dict:
        return {key: _made(arguments[1], one) for key, one in value.items()}
    return value
