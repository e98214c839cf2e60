"""Who holds what is in RAM, by name, and who created the goroutines: only where it was asked for (--holders)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count

if TYPE_CHECKING:  # a report does not wait for what a map takes to import
    from gomem.tracer.report.goroutines import GoroutineGroup, GoroutineReport
    from gomem.tracer.report.memory_map import HeldBytes

MOST_ROWS: Final = 400
MOST_CREATORS: Final = 100
SMALLER: Final = "all that is smaller"


class HeldRow(Struct, frozen=True):
    """What one holder has in RAM. `path` leads from the whole to it: "Go heap", ..., a function or a size.

    `estimated`: by counts of slots, or by samples of the heap profile, within what was counted by page.
    """

    path: Annotated[list[str], Meta(min_length=1)]
    resident: Bytes
    estimated: bool


class CreatedRow(Struct, frozen=True):
    """Goroutines of one go statement: its function, "" for those that the runtime started, with file and line."""

    function: str
    file: str
    line: Count
    goroutines: Count
    stack_bytes: Bytes
    stack_resident: Bytes | None


class Holders(Struct, frozen=True):
    """Who holds what is in RAM. `rows` sum to `resident.total`; the rarest of one place are one row of it.

    `creators`: the go statements of the program's goroutines, most goroutines first; `more_creators` are not among
    them. None: they could not be told.
    """

    rows: list[HeldRow]
    creators: list[CreatedRow] | None
    more_creators: Count = 0


def holders_of(held: Sequence[HeldBytes], goroutines: GoroutineReport | None) -> Holders:
    """Return the section of a report for what a look and its goroutines told."""
    if goroutines is None:
        return Holders(_rows(held), None)
    groups = sorted(goroutines.groups, key=lambda one: (-one.goroutines, -one.stack_bytes))
    return Holders(_rows(held), list(_creators(groups[:MOST_CREATORS])), max(len(groups) - MOST_CREATORS, 0))


def _rows(held: Sequence[HeldBytes]) -> list[HeldRow]:
    ordered = sorted(held, key=lambda one: (-one.resident, one.path))
    rows = [HeldRow(list(one.path), one.resident, one.estimated) for one in ordered[:MOST_ROWS]]
    smaller: dict[tuple[str, ...], tuple[int, bool]] = {}
    for one in ordered[MOST_ROWS:]:
        place = (*one.path[:-1], SMALLER)
        resident, estimated = smaller.get(place, (0, False))
        smaller[place] = resident + one.resident, estimated or one.estimated
    return [*rows, *(HeldRow(list(place), *sizes) for place, sizes in smaller.items())]


def _creators(groups: Iterable[GoroutineGroup]) -> Iterable[CreatedRow]:
    for group in groups:
        place = group.creator
        function, file, line = (place.function, place.file, place.line) if place is not None else ("", "", 0)
        yield CreatedRow(function, file, max(line, 0), group.goroutines, group.stack_bytes, group.stack_resident)
