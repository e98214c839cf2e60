"""Goroutines by what they have in common, as `gomem goroutines` shows them: a page with a table, or one JSON object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from msgspec import to_builtins
from msgspec.structs import replace
from rich.console import RenderableType

from gomem.exporters.json.report import plain_json
from gomem.exporters.text.console import Sheet, set_page
from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Cell, Column, table
from gomem.exporters.units import UNKNOWN, number, plural, seconds, size
from gomem.tracer.report.goroutines import GoroutineGroup, GoroutineReport, Place

Sort = Literal["count", "stack", "resident", "wait", "growth"]
SORTS: dict[Sort, str] = {
    "count": "goroutines",
    "stack": "bytes of their stacks",
    "resident": "bytes of these in RAM",
    "wait": "the longest wait",
    "growth": "how many more than at the first look",
}
_VALUES: dict[Sort, Callable[[GoroutineGroup], float]] = {
    "count": lambda group: group.goroutines,
    "stack": lambda group: group.stack_bytes,
    "resident": lambda group: group.stack_resident or 0,
    "wait": lambda group: group.longest_wait or 0,
    "growth": lambda group: _growth(group),
}
_WIDTHS = (60, 240)  # of a terminal
_PIPE = 1 << 20  # columns: a name is in one piece, for grep
_MOST_FRAMES = 12  # of a stack
_MOST_SUSPECTS = 10
_HEADS = {
    "creator": "created by",
    "start": "began with",
    "reason": "wait for, or do",
    "stack": "calls, the innermost first",
}


def in_order(report: GoroutineReport, sort: Sort) -> GoroutineReport:
    """Return the report with its groups in order, the largest first."""
    value = _VALUES[sort]
    return replace(report, groups=sorted(report.groups, key=lambda one: (-value(one), -one.goroutines, _label(one))))


def goroutines_json(report: GoroutineReport) -> str:
    """Return the report as one JSON object (schema gomem.goroutines/1)."""
    return plain_json(to_builtins(report))


def goroutines_text(report: GoroutineReport, most: int, sheet: Sheet) -> str:
    """Return the page with the first `most` groups: as wide as the terminal, or with lines as long as their names."""
    width = sheet.columns(*_WIDTHS, _PIPE)
    return set_page(_parts(report, most, PageStyle(width, sheet.blocks)), width, terminal=sheet.terminal)


def _parts(report: GoroutineReport, most: int, look: PageStyle) -> Iterator[RenderableType]:
    process = report.process
    name = process.exe.rpartition("/")[2] or process.exe
    where = f" in {process.module.rpartition('/')[2]}" if process.module else ""
    yield words((name, "heading"), f"  {process.go_version or 'Go'}{where}, pid {process.pid}")
    yield from (words(line) for line in _summary(report))
    if report.groups:
        yield section(_title(report, most), table(_columns(report), _rows(report, most), look))
    suspects = [group for group in report.groups if group.only_grows]
    if len(report.looks) > 1:
        yield section("Groups that only grow", *(words(line) for line in _suspects(report, suspects)))
    for limit in report.limits:
        yield words(f"{limit.what}: {limit.why}", (f"  {limit.fix}" if limit.fix else "", "dim"))


def _summary(report: GoroutineReport) -> Iterator[str]:
    stacks = f"stacks {size(report.stack_bytes)}, {size(report.stack_resident)} of that in RAM"
    yield f"{plural(report.goroutines, 'goroutine')}; {stacks}; StackInuse {size(report.stack_inuse)}"
    yield f"{number(report.system_goroutines)} more of the runtime's own; stacks {size(report.system_stack_bytes)}"
    ended = report.ended
    if ended.gs:
        kept = f"{size(ended.g_bytes)}, never freed; with them stacks of {size(ended.stack_bytes)}"
        yield f"{number(ended.gs)} have ended and are kept for new ones: g structs {kept}"
    if report.longest_wait is not None:
        yield f"longest wait at most {seconds(report.longest_wait)}, by what collections have seen"
    if len(report.looks) > 1:
        yield f"{plural(len(report.looks), 'look')} in {seconds(report.looks[-1].seconds)}{_collections(report)}"


def _collections(report: GoroutineReport) -> str:
    first, last = report.looks[0].gc_cycles, report.looks[-1].gc_cycles
    return "" if first is None or last is None else f", {plural(max(last - first, 0), 'collection')} meanwhile"


def _title(report: GoroutineReport, most: int) -> str:
    left_out = len(report.groups) - most
    first = f", the first {number(most)} of {plural(len(report.groups), 'group')}" if left_out > 0 else ""
    return f"Goroutines by {report.by}{first}"


def _columns(report: GoroutineReport) -> Sequence[Column]:
    return (
        Column("goroutines"),
        *([Column("grown")] if len(report.looks) > 1 else []),
        Column("stacks", worth=4),
        Column("in RAM", worth=3),
        Column("longest wait", worth=5),
        *([] if report.by == "reason" else [Column("mostly", left=True, worth=2)]),
        Column(_HEADS[report.by], left=True, worth=1, wraps=24),
    )


def _rows(report: GoroutineReport, most: int) -> Iterator[list[Cell]]:
    for group in report.groups[:most]:
        yield [
            number(group.goroutines),
            *([f"{_growth(group):+,}"] if len(report.looks) > 1 else []),
            size(group.stack_bytes),
            size(group.stack_resident),
            UNKNOWN if group.longest_wait is None else seconds(group.longest_wait),
            *([] if report.by == "reason" else [_mostly(group)]),
            words(_label(group)),
        ]


def _growth(group: GoroutineGroup) -> int:
    return group.at_looks[-1] - group.at_looks[0]


def _mostly(group: GoroutineGroup) -> str:
    reason = next(iter(group.reasons), "")
    count = group.reasons.get(reason, 0)
    return reason if count == group.goroutines else f"{reason} {min(100 * count // group.goroutines, 99)}%"


def _label(group: GoroutineGroup) -> str:
    if group.creator is not None:
        return _told(group.creator) or "no go statement"
    if group.start is not None:
        return _told(group.start)
    if group.stack is not None:
        functions = [place.function for place in group.stack]
        # How the runtime parks a goroutine tells no more than what it waits for.
        first = next((at for at, name in enumerate(functions) if not name.startswith("runtime.")), 0)
        more = len(functions) - first - _MOST_FRAMES
        calls = functions[first : first + _MOST_FRAMES] + ([f"{more} more"] if more > 0 else [])
        return " < ".join(calls) or "no stack that can be read"
    return "all others" if group.reason is None else group.reason


def _told(place: Place) -> str:
    base = place.file.rpartition("/")[2]
    return place.function + (f"  {base}:{place.line}" if base else "")


def _suspects(report: GoroutineReport, suspects: Sequence[GoroutineGroup]) -> Iterator[str]:
    if all(group.only_grows is None for group in report.groups):
        yield "Not known: it takes three looks, and the runtime's count of collections."
        return
    if not suspects:
        yield "None has grown at each look while a collection went by and its goroutines stayed."
    for group in suspects[:_MOST_SUSPECTS]:
        kept = f"{number(group.stayed[0])} of the first {number(group.at_looks[0])} are still there"
        yield f"{_label(group)}: {_growth(group):+,} in {plural(len(report.looks), 'look')}, at each; {kept}"
    if len(suspects) > _MOST_SUSPECTS:
        yield f"and {number(len(suspects) - _MOST_SUSPECTS)} more"
