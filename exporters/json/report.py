"""The report as one JSON object: the contract of `--format json`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from gomem.tracer.report import JsonObject, MemStats, Report

# Dictionaries that are built while watching come in any order; the contract's order is this.
_MEMSTATS_ORDER = tuple(MemStats.__annotations__)
_EVENTS_ORDER = (
    "mmap", "munmap", "madvise", "mprotect", "mremap", "brk", "process_madvise", "reserve", "map", "used",
    "unused", "fault", "free", "alloc", "grow", "arena", "scavenge", "gc_start", "gc_done", "mallocgc",
)  # fmt: skip
_NO_TEXT = re.compile("[\ud800-\udfff]")


def _ordered(table: object, first: tuple[str, ...]) -> object:
    if not isinstance(table, Mapping):
        return table
    known = [name for name in first if name in table]
    return {name: table[name] for name in (*known, *sorted(set(table) - set(known)))}


def _plain(value: object) -> object:
    """Return `value` in JSON's own types; what JSON cannot say becomes null (not-a-number) or U+FFFD."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _NO_TEXT.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {str(_plain(str(key))): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    item = getattr(value, "item", None)  # a NumPy scalar
    if callable(item):
        return _plain(item())
    raise TypeError(f"a report cannot hold {type(value).__name__}")


def _escape_unprintable(match: re.Match[str]) -> str:
    written = []
    for character in match.group():
        units = character.encode("utf-16-be")
        written.append(
            character
            if character.isprintable()
            else "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
        )
    return "".join(written)


def _in_order(body: JsonObject) -> JsonObject:
    body["memstats"] = _ordered(body["memstats"], _MEMSTATS_ORDER)
    body["events"] = _ordered(body["events"], _EVENTS_ORDER)
    for name in ("chapters", "children"):
        reports = body[name]
        if isinstance(reports, list):
            body[name] = [_in_order(report) for report in reports]
    return body


def report_object(report: Report) -> JsonObject:
    """Return the report as JSON's own types, in the contract's order."""
    plain = _plain(_in_order(report.to_dict()))
    assert isinstance(plain, dict)
    return plain


def plain_json(body: object, indent: int | None = None) -> str:
    r"""Return any object of JSON's types as JSON and a final newline; one line unless `indent` is given.

    The text is valid UTF-8 and safe to show on a terminal: characters that are not printable (the
    target's command line may hold any) are written as \uXXXX.
    """
    text = json.dumps(_plain(body), ensure_ascii=False, allow_nan=False, indent=indent)
    return re.sub(r"[^\n -~]+", _escape_unprintable, text) + "\n"


def render_json(report: Report, indent: int | None = None) -> str:
    """Return the report as `plain_json` writes it."""
    return plain_json(report_object(report), indent)
