"""Patch releases: the runtime's structs change even between those of one minor release.

Go 1.24.3 has no m.allpSnapshot, Go 1.24.11 has: 24 bytes that shift all that follows. Go 1.23's `work` grew likewise.
A table therefore holds the newest patch release that was measured, and for earlier ones the rows that differ.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Literal, cast

from gomem.tracer.errors import LayoutError
from gomem.tracer.layout.layout import RawEarlier, RawLayout

_SECTIONS: tuple[Literal["constants"], Literal["structs"], Literal["globals"]] = ("constants", "structs", "globals")
_PATCH = re.compile(r"(?:^|\b)(?:go)?\d+\.\d+(?:\.(\d{1,4}))?((?:rc|beta)\d+)?")

Rows = dict[str, Any]


def patch_of(go_version: str) -> int | None:
    """Return the patch number of a Go version, 0 for "go1.20"; None for a release candidate or no version at all."""
    match = _PATCH.search(go_version)
    if match is None or match[2]:
        return None
    return int(match[1] or 0)


def for_patch(raw: RawLayout, patch: int | None) -> tuple[RawLayout, bool]:
    """Return the table's rows for one patch release, and whether they are confirmed.

    They are when the patch was measured or lies between two measured ones that agree. Between two that do not agree,
    the fields on which they differ are left out: nobody knows which of the two the release has.
    """
    blocks: list[RawEarlier | None] = [None, *raw.get("earlier", [])]
    spans = [_span(raw["measured"] if block is None else block["measured"]) for block in blocks]
    if patch is None or patch > spans[0][1]:
        return raw, False
    for i, (first, last) in enumerate(spans):
        if first <= patch <= last:
            return _applied(raw, blocks[i]), True
        if patch > last:
            return _common(_applied(raw, blocks[i - 1]), _applied(raw, blocks[i])), False
    return _applied(raw, blocks[-1]), False


def neighbours(raw: RawLayout, patch: int | None) -> list[RawLayout]:
    """Return the whole tables of the measured releases around an unmeasured patch, the newer first; [] outside of them.

    One of the two may be the patch's own, which only the live process can tell.
    """
    blocks: list[RawEarlier | None] = [None, *raw.get("earlier", [])]
    spans = [_span(raw["measured"] if block is None else block["measured"]) for block in blocks]
    if patch is None or any(first <= patch <= last for first, last in spans):
        return []
    for i in range(1, len(spans)):
        if spans[i][1] < patch < spans[i - 1][0]:
            return [_applied(raw, blocks[i - 1]), _applied(raw, blocks[i])]
    return []


def add_measured(raw: RawLayout, other: RawLayout) -> None:
    """Enter the measured rows of an earlier patch release of the same minor into a table."""
    if raw["goarch"] != other["goarch"] or _minor(raw["go"]) != _minor(other["go"]):
        raise LayoutError(f"go{other['go']}/{other['goarch']} is no patch release of go{raw['go']}/{raw['goarch']}")
    different: dict[str, Rows] = {
        section: _differing(cast(Rows, raw[section]), cast(Rows, other[section])) for section in _SECTIONS
    }
    if not any(different.values()):
        raw["measured"] = sorted({*raw["measured"], other["go"]}, key=_number)
        return
    for block in raw.setdefault("earlier", []):
        if all(block[section] == different[section] for section in _SECTIONS):
            block["measured"] = sorted({*block["measured"], other["go"]}, key=_number)
            return
    raw["earlier"].append(cast(RawEarlier, {"measured": [other["go"]], **different}))
    raw["earlier"].sort(key=lambda block: _span(block["measured"]), reverse=True)


def _differing(rows: Rows, others: Rows) -> Rows:
    return {name: others.get(name) for name in sorted({*rows, *others}) if rows.get(name) != others.get(name)}


def _applied(raw: RawLayout, block: RawEarlier | None) -> RawLayout:
    if block is None:
        return raw
    result = dict(raw)
    for section in _SECTIONS:
        rows = {**raw[section], **block[section]}
        result[section] = {name: row for name, row in rows.items() if row is not None}
    return cast(RawLayout, result)


def _common(newer: RawLayout, older: RawLayout) -> RawLayout:
    """Keep what two tables agree on; a struct whose size differs keeps the fields that do not move."""
    result = dict(newer)
    for section in _SECTIONS:
        ours, theirs = cast(Rows, newer[section]), cast(Rows, older[section])
        rows: Rows = {}
        for name, row in ours.items():
            other = theirs.get(name)
            if row == other:
                rows[name] = row
            elif isinstance(row, dict) and isinstance(other, dict):
                rows[name] = _common_fields(row, other)
        result[section] = rows
    return cast(RawLayout, result)


def _common_fields(row: Rows, other: Rows) -> Rows:
    kept = copy.copy(row)
    if row["size"] != other["size"]:
        del kept["size"]
    if "fields" in row:
        theirs = other.get("fields", {})
        kept["fields"] = {name: field for name, field in row["fields"].items() if theirs.get(name) == field}
    return kept


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _number(version: str) -> int:
    return patch_of(version) or 0


def _span(measured: list[str]) -> tuple[int, int]:
    numbers = [_number(version) for version in measured]
    return min(numbers), max(numbers)
