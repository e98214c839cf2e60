"""Dataclasses and msgspec's structs as JSON and columns, and back: every value is held against its field's type.

A NumPy array becomes a column, named by its path; a list of dataclasses a table, column by column; everything else
what JSON has for it. A field that is missing gets its default, or what BEFORE says for
recordings from before it was there, so that a class may grow.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from gomem.tracer.recording.columns import Columns, Json
from gomem.tracer.recording.frames import RecordingError
from gomem.tracer.report import Limit

MOST_INT = (1 << 64) - 1
LEAST_INT = -(1 << 63)
BEFORE: Mapping[type, Mapping[str, Json]] = {Limit: {"id": "unknown"}}
T = TypeVar("T")

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Encoder:
    """Turns values into JSON; their arrays gather in `columns`."""

    def __init__(self) -> None:
        self.columns: Columns = {}

    def plain(self, value: object, path: str) -> Json:
        """Return the JSON of `value`; raises TypeError for what no recording can hold."""
        if value is None or isinstance(value, bool | str | float):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, np.ndarray):
            self.columns[path] = value
            return path
        if isinstance(value, Mapping):
            return {str(name): self.plain(one, f"{path}.{name}") for name, one in value.items()}
        if _is_object(type(value)):
            return {name: self.plain(getattr(value, name), f"{path}.{name}") for name in _names(type(value))}
        if isinstance(value, Sequence):
            return self._table(value, path) if value and _is_object(type(value[0])) else self._list(value, path)
        raise TypeError(f"{path}: {type(value).__name__} has no plain form")

    def _list(self, values: Sequence[object], path: str) -> Json:
        return [self.plain(one, f"{path}.{at}") for at, one in enumerate(values)]

    def _table(self, rows: Sequence[object], path: str) -> Json:
        table: dict[str, Json] = {}
        for name in _names(type(rows[0])):
            values = [getattr(row, name) for row in rows]
            if all(type(value) is int and 0 <= value <= MOST_INT for value in values):
                table[name] = self.plain(np.array(values, np.uint64), f"{path}.{name}")
            else:
                table[name] = self._list(values, f"{path}.{name}")
        return table


def rebuild(kind: type[T], value: Json, columns: Columns) -> T:
    """Return the instance of the class `kind` that `value` and `columns` say; raises RecordingError."""

    def column(wanted: object, named: object) -> object:
        """Return the column that stands for an array; of what may be anything, itself."""
        if wanted is object:
            return named
        dtype = np.dtype(get_args(get_args(wanted)[1])[0])
        found = columns.get(named) if isinstance(named, str) else None
        if found is None or found.dtype != dtype:
            raise RecordingError(f"no column {named!r} of {dtype}")
        return found

    _check_numbers(value)
    try:
        return msgspec.convert(_with_rows(kind, value, columns), kind, dec_hook=column)
    except msgspec.ValidationError as error:
        raise RecordingError(f"no {kind.__name__}: {error}") from error


def _check_numbers(value: Json) -> None:
    if isinstance(value, int) and not LEAST_INT <= value <= MOST_INT:
        raise RecordingError("a number of more than 64 bits")
    if isinstance(value, list):
        for one in value:
            _check_numbers(one)
    if isinstance(value, dict):
        for one in value.values():
            _check_numbers(one)


def _with_rows(kind: object, value: Json, columns: Columns) -> Json:
    """Return `value`, which shall become a `kind`, with lists of objects for its tables, and what older files lack."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        return _with_rows(kinds[0], value, columns) if len(kinds) == 1 else value
    if get_origin(kind) in (list, tuple):
        of = get_args(kind)[0]
        if isinstance(value, dict) and _is_object(of):
            value = cast("list[Json]", _rows(value, columns))
        return [_with_rows(of, one, columns) for one in value] if isinstance(value, list) and _is_object(of) else value
    if isinstance(kind, type) and _is_object(kind) and isinstance(value, dict):
        hints = _hints(kind)
        body = {name: _with_rows(hints.get(name), one, columns) for name, one in value.items()}
        return {**BEFORE.get(kind, {}), **body}
    return value


def _rows(table: dict[str, Json], columns: Columns) -> list[dict[str, Json]]:
    told: dict[str, list[Json]] = {}
    for name, values in table.items():
        if isinstance(values, str):
            if values not in columns:
                raise RecordingError(f"no column {values!r}")
            told[name] = cast("list[Json]", columns[values].tolist())
        elif isinstance(values, list):
            told[name] = values
        else:
            raise RecordingError("a table with a column that is none")
    if len({len(values) for values in told.values()}) > 1:
        raise RecordingError("a table with columns of several lengths")
    names = tuple(told)
    return [dict(zip(names, row, strict=True)) for row in zip(*told.values(), strict=True)]


def _is_object(kind: object) -> bool:
    return isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, msgspec.Struct))


def _names(kind: type) -> tuple[str, ...]:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    return tuple(one.name for one in fields(cast("type[DataclassInstance]", kind)))


@cache
def _hints(kind: type) -> Mapping[str, object]:
    return get_type_hints(kind)
