"""The layout tables that come with gomem: one JSON file per Go minor release and architecture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import cast

from gomem.tracer.errors import LayoutError
from gomem.tracer.layout.layout import Layout, RawLayout
from gomem.tracer.layout.patches import for_patch, neighbours, patch_of

Minor = tuple[int, int]

_RELEASE = re.compile(r"(?:^|\b)go(\d{1,3})\.(\d{1,4})(?!\d)")
# Not a fork ("go1.24.3-fips"), and built with no experiment ("go1.25.5 X:staticlockranking", which grows structs).
_UPSTREAM = re.compile(r"go\d+\.\d+(\.\d+)?")
_TABLE = re.compile(r"go(\d+)\.(\d+)-([a-z0-9]+)\.json")


def minor_of(go_version: str) -> Minor | None:
    """Return (major, minor) of what the build info calls the Go version, or None if it names no release.

    Knows "go1.23.9", "go1.24.3-fips", "go1.25.5 X:nocoverageredesign", "go1.27rc1", "devel go1.28-abc123 ...".
    """
    match = _RELEASE.search(go_version)
    return (int(match[1]), int(match[2])) if match else None


# From which release on, and until before which, a version of the function table was written.
_WRITES: Mapping[str, tuple[Minor, Minor]] = {
    "1.2": ((1, 2), (1, 16)), "1.16": ((1, 16), (1, 18)), "1.18": ((1, 18), (1, 20)), "1.20": ((1, 20), (2, 0)),
}  # fmt: skip


def table_for(go_version: str, goarch: str) -> Layout | None:
    """Return the layout of the release's own minor, source "table"; None when there is no table for it.

    The rows are those of the patch release as far as it was measured (see gomem.tracer.layout.patches and
    Layout.confirmed); of a vendor's fork nobody knows. A development version may be anything: None.
    """
    minor = minor_of(go_version)
    if minor is None or _is_development(go_version) or minor not in known_minors(goarch):
        return None
    raw, confirmed = for_patch(_load(minor, goarch), patch_of(go_version))
    return Layout(raw, "table", go_version, confirmed and is_upstream(go_version))


def tables_around(go_version: str, goarch: str) -> list[Layout]:
    """Return the layouts of the measured releases around an unmeasured patch, to be tried on the live process."""
    minor = minor_of(go_version)
    if minor is None or _is_development(go_version) or minor not in known_minors(goarch):
        return []
    found = neighbours(_load(minor, goarch), patch_of(go_version))
    return [Layout(raw, "table", go_version, confirmed=False) for raw in found]


def is_upstream(go_version: str) -> bool:
    """Tell whether this names a release of the Go project itself, built with no experiment: "go1.26.8"."""
    return _UPSTREAM.fullmatch(go_version) is not None


def nearest_table(go_version: str, goarch: str) -> Layout:
    """Return the layout of the closest release that has a table, source "nearest": a guess, to be checked.

    A release newer than all tables gets the newest one. Raises LayoutError when the architecture has no table at all,
    or the version cannot be read.
    """
    minor = minor_of(go_version)
    known = sorted(known_minors(goarch))
    if not known:
        raise LayoutError(f"no layout table for {goarch}", "")
    if minor is None:
        raise LayoutError(f"{go_version!r} names no Go release", "a program that keeps its DWARF needs no table")
    clamped = min(max(minor, known[0]), known[-1])
    closest = min(known, key=lambda other: (abs(other[0] - clamped[0]), abs(other[1] - clamped[1]), other))
    return Layout(_load(closest, goarch), "nearest", go_version, confirmed=False)


def tables_of_format(pclntab: str, goarch: str) -> list[Layout]:
    """Return the layouts of the releases that write this version of function table, the newest first: guesses.

    For programs that do not say their release.
    """
    since, until = _WRITES[pclntab]
    minors = [minor for minor in sorted(known_minors(goarch), reverse=True) if since <= minor < until]
    return [Layout(_load(minor, goarch), "nearest", f"go{minor[0]}.{minor[1]}", confirmed=False) for minor in minors]


@lru_cache(maxsize=1)
def _available() -> Mapping[str, frozenset[Minor]]:
    found: dict[str, set[Minor]] = {}
    for entry in files("gomem.tracer.layout").joinpath("tables").iterdir():
        match = _TABLE.fullmatch(entry.name)
        if match:
            found.setdefault(match[3], set()).add((int(match[1]), int(match[2])))
    return {goarch: frozenset(minors) for goarch, minors in found.items()}


def known_minors(goarch: str) -> frozenset[Minor]:
    """Return the releases that have a table for this architecture, as (major, minor)."""
    return _available().get(goarch, frozenset())


@lru_cache(maxsize=4)
def _load(minor: Minor, goarch: str) -> RawLayout:
    name = f"go{minor[0]}.{minor[1]}-{goarch}.json"
    text = files("gomem.tracer.layout").joinpath("tables", name).read_text(encoding="utf-8")
    return cast(RawLayout, json.loads(text))


def _is_development(go_version: str) -> bool:
    return go_version.startswith("devel") or re.search(r"go\d+\.\d+-(?:devel|[0-9a-f]{6,})", go_version) is not None
