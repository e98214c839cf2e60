"""What is in a frame: one JSON object and named arrays, laid out so that they compress well.

    payload = u32 length of the JSON text, the text, the columns one after the other

The text is {"columns": [[name, dtype, elements, delta], ...], "body": {...}}. A column is stored byte plane by byte
plane (the lowest byte of all its elements, then the next one, ...); with `delta` 1 each element is the difference to
the one before, modulo its size. Nothing here executes anything, and lengths are checked before arrays are made.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from gomem.tracer.recording.frames import RecordingError, Worth

MAX_TEXT = 16 << 20
_VALUES = Worth(1 << 10, 4)  # of a text: a look has one for every few bytes
_LENGTH = struct.Struct("<I")
_DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f8")

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Array = NDArray[np.generic]
Columns = dict[str, Array]


def pack(body: Mapping[str, Json], columns: Mapping[str, Array]) -> bytes:
    """Return the payload; columns of shape (n,) of integers, booleans or floats.

    Integers that never fall are stored as differences. Raises RecordingError where the body is too large.
    """
    described: list[Json] = []
    parts: list[bytes] = []
    for name, given in columns.items():
        column = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("<"))
        rising = _rises(column)
        described.append([name, column.dtype.str, len(column), int(rising)])
        parts.append(_planes(_differences(column) if rising else column))
    text = json.dumps({"columns": described, "body": dict(body)}, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > MAX_TEXT:
        raise RecordingError(f"{len(text)} bytes of text are more than a frame may hold")
    return b"".join((_LENGTH.pack(len(text)), text, *parts))


def unpack(payload: bytes, stored: int | None = None) -> tuple[dict[str, Json], Columns]:
    """Return the body and the columns of a payload; raises RecordingError if it is none.

    `stored`: as how many bytes it stands in a file, which bounds how many values its text may have.
    """
    text = _text(payload)
    values = _values(text)
    if stored is not None and values > _VALUES.most(stored):
        raise RecordingError(f"a text of {values} values in {stored} bytes")
    try:
        told = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordingError("the text of a frame makes no sense") from error
    body = told.get("body") if isinstance(told, dict) else None
    described = told.get("columns") if isinstance(told, dict) else None
    if not isinstance(body, dict) or not isinstance(described, list):
        raise RecordingError("a frame without a body")
    return body, _columns(described, memoryview(payload)[_LENGTH.size + len(text) :])


def least_stored(payload: bytes) -> int:
    """Return as how many bytes a payload has to stand in a file for `unpack` to take its text."""
    return _VALUES.bytes_for(_values(_text(payload)))


def _text(payload: bytes) -> bytes:
    if len(payload) < _LENGTH.size:
        raise RecordingError("a frame without a text")
    (length,) = _LENGTH.unpack_from(payload)
    if length > min(MAX_TEXT, len(payload) - _LENGTH.size):
        raise RecordingError("the text of a frame is longer than the frame")
    return payload[_LENGTH.size : _LENGTH.size + length]


def _values(text: bytes) -> int:
    """Return how many values a JSON text has at most: it may have these in its strings, too."""
    return sum(map(text.count, (b",", b"[", b"{")))


def _columns(described: list[Json], raw: memoryview) -> Columns:
    columns: Columns = {}
    at = 0
    for one in described:
        if not isinstance(one, list) or len(one) != 4:
            raise RecordingError("a column that is described badly")
        name, dtype, count, delta = one
        if not isinstance(name, str) or not isinstance(dtype, str) or dtype not in _DTYPES:
            raise RecordingError("a column of an unknown kind")
        kind = np.dtype(dtype)
        if type(count) is not int or not 0 <= count * kind.itemsize <= len(raw) - at:
            raise RecordingError("a column is longer than its frame")
        size = count * kind.itemsize
        columns[name] = _column(raw[at : at + size], kind, count, bool(delta))
        at += size
    if at != len(raw):
        raise RecordingError("a frame that is longer than its columns")
    return columns


def _column(raw: memoryview, kind: np.dtype[np.generic], count: int, delta: bool) -> Array:
    planes = np.frombuffer(raw, np.uint8).reshape(kind.itemsize, count)
    if kind.kind == "b" and count and int(planes.max()) > 1:
        raise RecordingError("a column of truth values that are none")
    column: Array = np.ascontiguousarray(planes.T).reshape(-1).view(kind)
    if not delta:
        return column
    if kind.kind not in "ui":
        raise RecordingError("a column of differences of what has none")
    return np.add.accumulate(column, dtype=kind)


def _rises(column: Array) -> bool:
    return column.dtype.kind in "ui" and len(column) > 1 and bool(np.all(np.greater_equal(column[1:], column[:-1])))


def _differences(column: Array) -> Array:
    return np.concatenate((column[:1], np.subtract(column[1:], column[:-1], dtype=column.dtype)))


def _planes(column: Array) -> bytes:
    return column.view(np.uint8).reshape(-1, column.dtype.itemsize).T.tobytes()
