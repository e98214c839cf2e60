"""The list of Go processes as `gomem ps` shows it: a table that fits the terminal, or one JSON object."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from msgspec import to_builtins

from gomem.exporters.json.report import plain_json
from gomem.exporters.units import UNKNOWN, clean, size
from gomem.tracer.discovery.listing import SCHEMA, GoProcess, Listing

_GAP = "  "
_NAME_AT_LEAST = 16  # columns; what is less needed goes before the name gets narrower
_CAN_GO = ("LIVE", "IN USE")
_NONE = "none"
_INDENTED = " " * 9
_NOTE_AT_LEAST = 40


def processes_json(listing: Listing) -> str:
    """Return the list as one JSON object (schema gomem.processes/1)."""
    return plain_json({"schema": SCHEMA, **to_builtins(listing)})


def processes_text(listing: Listing, width: int | None) -> str:
    """Return the table, at most `width` columns wide (None: as wide as its names); what was not seen follows."""
    text = _table(listing.processes, width) if listing.processes else "No Go process can be seen.\n"
    for limit in listing.limits:
        text += f"\n{clean(limit.what)}: {clean(limit.why)}\n" + (f"  {clean(limit.fix)}\n" if limit.fix else "")
    return text


def _table(processes: Sequence[GoProcess], width: int | None) -> str:
    cells = [_cells(process) for process in processes]
    names = list(cells[0])
    widths = {name: max(len(name), *(len(row[name]) for row in cells)) for name in names}
    room = 0
    if width is not None:
        dropped = iter(_CAN_GO)
        while (room := _left(width, names, widths)) < _NAME_AT_LEAST and (gone := next(dropped, None)):
            names.remove(gone)
        room = max(room, 4)
    lines = [_GAP.join([*(_set(name, name, widths[name]) for name in names), "PROGRAM"])]
    for process, row in zip(processes, cells, strict=True):
        title = clean(process.name, room)
        lines.append(_GAP.join([*(_set(name, row[name], widths[name]) for name in names), title]))
        for note in _notes(process):
            lines += [_INDENTED + line for line in _wrapped(note, width)]
    return "".join(line.rstrip() + "\n" for line in lines)


def _wrapped(note: str, width: int | None) -> list[str]:
    return [note] if width is None else textwrap.wrap(note, max(width, _NOTE_AT_LEAST) - len(_INDENTED))


def _left(width: int, names: Sequence[str], widths: Mapping[str, int]) -> int:
    return width - sum(widths[name] + len(_GAP) for name in names)


def _cells(process: GoProcess) -> dict[str, str]:
    heap_known = process.heap_in_use is not None
    return {
        "PID": str(process.pid),
        "GO": _release(process.go_version),
        "RSS": size(process.rss),
        "IN USE": size(process.heap_in_use),
        "LIVE": size(process.heap_live),
        "GOMEMLIMIT": size(process.memory_limit) if process.memory_limit is not None or not heap_known else _NONE,
        "CGROUP": size(process.cgroup_max) if process.cgroup_max is not None else _NONE if process.cgroup else UNKNOWN,
    }


def _release(version: str | None) -> str:
    """Return "1.28" for "go1.28" as well as for "devel go1.28-3a7f25cc01 Mon"."""
    found = re.search(r"go(\d[\w.]*)", version or "")
    return clean(found[1] if found else version or UNKNOWN, 12)


def _set(name: str, cell: str, width: int) -> str:
    return cell.ljust(width) if name == "GO" else cell.rjust(width)


def _notes(process: GoProcess) -> list[str]:
    said = []
    for limit in process.limits:
        said.append(clean(f"{limit.what}: {limit.why}" if limit.why else limit.what))
        if limit.fix:
            said.append(clean(f"-> {limit.fix}"))
    return said
