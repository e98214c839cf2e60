"""Reading a report from a file that anybody may have made."""

from __future__ import annotations

import os
import re
import stat
from typing import Final, cast

import msgspec

from gomem.tracer.errors import GomemError
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.whole import SCHEMA, Report

LARGEST: Final = 64 << 20  # bytes of a file
_VERSION = re.compile(r"gomem\.report/(\d{1,9})")
_FIELD = re.compile(r"`\$\.(\w{1,64})")
_MISSING = re.compile(r"missing required field `(\w{1,64})`$")
_MOST_DROPPED = 64
_TAKE = "take one with gomem snapshot PID --format json -o FILE"


def read_report(path: str) -> Report:
    """Return the report in a file. What this gomem does not understand of it is None, and a limit says so.

    Raises GomemError: the file is no report, is cut, is too large, or is of a schema that is not known.
    """
    return decode_report(_content(path), path)


def decode_report(raw: bytes, name: str) -> Report:
    """Return the report in the bytes of a file; `name` says in errors which file it is."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise GomemError(f"{name} is cut or damaged, or no report: {error}", _TAKE) from error
    schema = body.get("schema") if isinstance(body, dict) else None
    if not isinstance(schema, str):
        raise GomemError(f"{name} is no report of gomem: it does not say {SCHEMA}", _TAKE)
    if schema != SCHEMA:
        raise _other_schema(name, schema)
    return _converted(cast("dict[str, object]", body), name)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise GomemError(f"cannot read {path}: Is a directory", _TAKE)
            raw = file.read(LARGEST + 1) or b""
    except OSError as error:
        raise GomemError(f"cannot read {path}: {error.strerror}", _TAKE) from error
    if len(raw) > LARGEST:
        raise GomemError(f"{path} has more than {LARGEST >> 20} MiB: that is no report", _TAKE)
    return raw


def _other_schema(name: str, schema: str) -> GomemError:
    told = schema[:60]
    if _VERSION.fullmatch(schema):
        return GomemError(f"{name} is a report of another gomem: its schema is {told}, not {SCHEMA}", "use that gomem")
    if schema.startswith("gomem."):
        return GomemError(f"{name} is a {told}, and no report: two of these cannot be compared", _TAKE)
    return GomemError(f"{name} is no report of gomem: its schema is {told!r}", _TAKE)


def _converted(body: dict[str, object], name: str) -> Report:
    """Return the report; sections that make no sense to this gomem are left out, and said."""
    dropped: list[str] = []
    while True:
        try:
            report = msgspec.convert(body, Report)
            break
        except (msgspec.ValidationError, RecursionError) as error:
            found = _FIELD.search(str(error)) or _MISSING.search(str(error))
            field = found[1] if found is not None else ""
            if not field or field in dropped or len(dropped) >= _MOST_DROPPED:
                raise GomemError(f"{name} is no report that this gomem understands: {error}", _TAKE) from error
            dropped.append(field)
            body = {**body, field: None}
    limits = [Limit("not-understood", one, "this gomem does not know what is in it", "") for one in dropped]
    return msgspec.structs.replace(report, limits=[*report.limits, *limits])
