"""Dataclasses as JSON and columns, and back: every value is held against the type that its class gives it.

A NumPy array becomes a column, named by its path; a list of dataclasses a table, column by column; everything else
what JSON has for it. A field that is missing gets its default, so that a class may grow.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from tracer.recording.columns import Array, Columns, Json
from tracer.recording.frames import RecordingError

MOST_INT = (1 << 64) - 1
LEAST_INT = -(1 << 63)
T = TypeVar("T")


class Plainer:
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
        if is_dataclass(value):
            return {one.name: self.plain(getattr(value, one.name), f"{path}.{one.name}") for one in fields(value)}
        if isinstance(value, Sequence):
            return self._table(value, path) if value and is_dataclass(value[0]) else self._list(value, path)
        raise TypeError(f"{path}: {type(value).__name__} has no plain form")

    def _list(self, values: Sequence[object], path: str) -> Json:
        return [self.plain(one, f"{path}.{at}") for at, one in enumerate(values)]

    def _table(self, rows: Sequence[object], path: str) -> Json:
        first = rows[0]
        assert is_dataclass(first)
        table: dict[str, Json] = {}
        for one in fields(first):
            values = [getattr(row, one.name) for row in rows]
            if all(type(value) is int and 0 <= value <= MOST_INT for value in values):
                table[one.name] = self.plain(np.array(values, np.uint64), f"{path}.{one.name}")
            else:
                table[one.name] = self._list(values, f"{path}.{one.name}")
        return table


def rebuild(kind: type[T], value: Json, columns: Columns) -> T:
    """Return the instance of the dataclass `kind` that `value` and `columns` say; raises RecordingError."""
    return cast(T, _value(kind, value, columns))


def _value(kind: object, value: Json, columns: Columns) -> object:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _optional(get_args(kind), value, columns)
    if origin is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            raise RecordingError(f"{value!r} is none of {get_args(kind)}")
        return value
    if origin is np.ndarray:
        return _array(kind, value, columns)
    if origin is tuple and get_args(kind)[-1] is not Ellipsis:
        return _fixed(get_args(kind), value, columns)
    if origin in (list, tuple):
        return _sequence(origin, get_args(kind)[0], value, columns)
    if origin is dict:
        if not isinstance(value, dict):
            raise RecordingError("no object where one belongs")
        return {name: _value(get_args(kind)[1], one, columns) for name, one in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return _instance(kind, value, columns)
    return _scalar(kind, value)


def _optional(kinds: tuple[object, ...], value: Json, columns: Columns) -> object:
    if value is None and type(None) in kinds:
        return None
    (kind,) = (one for one in kinds if one is not type(None))
    return _value(kind, value, columns)


def _scalar(kind: object, value: Json) -> object:
    if kind is object:
        _check_numbers(value)
        return value
    if kind is float and type(value) in (int, float):
        _check_numbers(value)
        return float(cast(float, value))
    if kind not in (bool, int, str) or type(value) is not kind:
        raise RecordingError(f"{type(value).__name__} where {getattr(kind, '__name__', kind)} belongs")
    _check_numbers(value)
    return value


def _check_numbers(value: Json) -> None:
    if isinstance(value, int) and not LEAST_INT <= value <= MOST_INT:
        raise RecordingError("a number of more than 64 bits")
    if isinstance(value, list):
        for one in value:
            _check_numbers(one)
    if isinstance(value, dict):
        for one in value.values():
            _check_numbers(one)


def _array(kind: object, value: Json, columns: Columns) -> Array:
    column = columns.get(value) if isinstance(value, str) else None
    wanted = np.dtype(get_args(get_args(kind)[1])[0])
    if column is None or column.dtype != wanted:
        raise RecordingError(f"no column {value!r} of {wanted}")
    return column


def _sequence(kind: type[list[object]] | type[tuple[object, ...]], of: object, value: Json, columns: Columns) -> object:
    if isinstance(value, dict) and isinstance(of, type) and is_dataclass(of):
        return kind(_rows(of, value, columns))
    if not isinstance(value, list):
        raise RecordingError("no list where one belongs")
    return kind([_value(of, one, columns) for one in value])


def _fixed(kinds: tuple[object, ...], value: Json, columns: Columns) -> object:
    if not isinstance(value, list) or len(value) != len(kinds):
        raise RecordingError(f"no {len(kinds)} values where they belong")
    return tuple(_value(kind, one, columns) for kind, one in zip(kinds, value, strict=True))


def _rows(kind: type, table: dict[str, Json], columns: Columns) -> list[object]:
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
    return [
        _instance(kind, dict(zip(names, row, strict=True)), columns) for row in zip(*told.values(), strict=True)
    ]


def _instance(kind: type, value: Json, columns: Columns) -> object:
    if not isinstance(value, dict):
        raise RecordingError(f"no {kind.__name__} where one belongs")
    given: dict[str, object] = {}
    for one, wanted in _fields(kind):
        if one.name in value:
            given[one.name] = _value(wanted, value[one.name], columns)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise RecordingError(f"a {kind.__name__} without {one.name}")
    return cast(Callable[..., object], kind)(**given)


@cache
def _fields(kind: type) -> tuple[tuple[Field[object], object], ...]:
    hints = get_type_hints(kind)
    return tuple((one, hints[one.name]) for one in fields(kind) if one.init)
