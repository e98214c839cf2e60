"""What the panel of an opened process shows, one renderable a page. Pure: views in, rich's renderables out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from gomem.exporters.goroutines import goroutines_text, in_order
from gomem.exporters.profile.functions import by_function
from gomem.exporters.text.activity import findings, limits
from gomem.exporters.text.collector import collector
from gomem.exporters.text.console import Sheet, set_page
from gomem.exporters.text.cycles import cycles
from gomem.exporters.text.memory import rss
from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.report import render_text
from gomem.exporters.text.table import Column, table
from gomem.exporters.top.arena_map import arena_lines
from gomem.exporters.units import clean, percent, seconds, size
from gomem.exporters.verdict import verdict
from gomem.tracer.fleet.close_up import CloseUp, Part
from gomem.tracer.fleet.view import TargetView
from gomem.tracer.report import LoggedEvent, Report
from gomem.tracer.report.profile import Profile

_MOST_GROUPS, _MOST_SITES = 40, 40
_LEAST_WIDTH = 40
_SITES = (
    Column("in use", worth=100),
    Column("of all", worth=2),
    Column("with callees", worth=1),
    Column("function", left=True, worth=3, wraps=24),
)
_LOG = (
    Column("at"),
    Column("event", left=True),
    Column("bytes"),
    Column("address", left=True, worth=2),
    Column("by", left=True, worth=1, wraps=24, below="by "),
)


@dataclass(frozen=True, slots=True)
class Room:
    """How much room a page has, in characters; `dots`: the map is drawn in braille; `blocks`: bars may have blocks."""

    width: int
    height: int
    dots: bool = False

    @property
    def style(self) -> PageStyle:
        """The same, for sections of reports."""
        return PageStyle(max(self.width, _LEAST_WIDTH), blocks=True)


Page = Callable[[TargetView, Report, Room], RenderableType]


def page_of(name: str, target: TargetView, room: Room) -> RenderableType:
    """Return one of PAGES; what cannot be shown is said."""
    if target.report is None:
        return _set([words(f"Nothing is known of its memory: {target.why or 'it has not been looked at yet'}")], room)
    return PAGES[name](target, target.report, room)


def _set(parts: Iterable[RenderableType | None], room: Room) -> Text:
    """Return parts of reports as they are set on a page of a terminal, an empty line on top left out."""
    page = set_page((part for part in parts if part is not None), room.style.width, terminal=True)
    return Text.from_ansi(page.strip("\n"), no_wrap=True)


def _map(target: TargetView, report: Report, room: Room) -> RenderableType:
    part = _close_up(target).map
    said = _set([words((verdict(report), "bold"))], room)
    if part.what is None:
        return Group(said, _set([words(part.why or _waiting(target))], room))
    if not len(part.what.arenas.base):
        drawn = [Text("There is no Go heap to draw.")]
    else:
        drawn = arena_lines(part.what, room.width, room.height - 1 - len(said.plain.splitlines()), dots=room.dots)
        if not part.what.page_residency:
            drawn.insert(0, Text("Which pages are in RAM is not told here, only how many of each arena."))
    return Group(said, *drawn, _set([Text(""), rss(report, room.style)], room))


def _findings(target: TargetView, report: Report, room: Room) -> RenderableType:
    said = words((verdict(report), "bold"))
    return _set([said, findings(report, room.style), limits(report, room.style)], room)


def _cycles(target: TargetView, report: Report, room: Room) -> RenderableType:
    parts = [cycles(report, room.style), collector(report, room.style)]
    if not any(part is not None for part in parts):
        parts = [words("No collection has been seen, and nothing is known of the collector.")]
    return _set(parts, room)


def _events(target: TargetView, report: Report, room: Room) -> RenderableType:
    """Show the rare events, the last one on top."""
    log = report.event_log
    if log is None:
        return _set([words(f"Events are not followed: {report.backend_reason}")], room)
    if not log:
        return _set([words("Since it is followed, nothing has moved its address space.")], room)
    rows = [_event(event, report.duration_seconds) for event in reversed(log)]
    heading = f"{len(log) + report.event_log_dropped:,} events since it is followed, the last ones first"
    return _set([section(heading, table(_LOG, rows, room.style))], room)


def _event(event: LoggedEvent, watched: float) -> Sequence[str]:
    by = event.function or (event.callers[0] if event.callers else None)
    where = "?" if event.address is None else f"{event.address:#x}"
    return f"{seconds(max(watched - event.seconds, 0))} ago", event.event, size(event.bytes), where, by or "?"


def _sites(target: TargetView, report: Report, room: Room) -> RenderableType:
    part = _close_up(target).heap
    if part.what is None:
        return _set([words(part.why or _waiting(target))], room)
    found = by_function(part.what, _inuse(part.what))
    rows = [
        (size(row.flat), percent(row.flat, found.total), size(row.cumulative), row.name)
        for row in found.rows[:_MOST_SITES]
        if row.flat
    ]
    heading = f"Heap in use by who allocated it, by the runtime's own profile{_age(part)}"
    notes = [words((f"{limit.what}: {limit.why}", "dim")) for limit in part.what.limits]
    if not rows:
        return _set([words("The runtime's heap profile holds no sample."), *notes], room)
    return _set([section(heading, table(_SITES, rows, room.style)), *notes], room)


def _inuse(profile: Profile) -> int:
    names = [each.type for each in profile.sample_types]
    return names.index("inuse_space") if "inuse_space" in names else len(names) - 1


def _goroutines(target: TargetView, report: Report, room: Room) -> RenderableType:
    part = _close_up(target).goroutines
    if part.what is None:
        return _set([words(part.why or _waiting(target))], room)
    shown = in_order(part.what, "count")
    text = goroutines_text(shown, _MOST_GROUPS, Sheet(room.width, terminal=True, blocks=True))
    return Text.from_ansi(text, no_wrap=True)


def _report(target: TargetView, report: Report, room: Room) -> RenderableType:
    return Text.from_ansi(render_text(report, width=room.width, terminal=True, blocks=True), no_wrap=True)


def _close_up(target: TargetView) -> CloseUp:
    return target.close_up or CloseUp()


def _waiting(target: TargetView) -> str:
    return target.why or "It is being looked at."


def _age(part: Part[Profile]) -> str:
    return f", read {seconds(max(time.monotonic() - part.at, 0))} ago" if part.at is not None else ""


PAGES: dict[str, Page] = {
    "Map": _map,
    "Findings": _findings,
    "Cycles": _cycles,
    "Events": _events,
    "Sites": _sites,
    "Goroutines": _goroutines,
    "Report": _report,
}


def heading(target: TargetView, room: Room) -> Text:
    """Return the line above the pages: who it is."""
    report = target.report
    said: Iterator[str] = iter(())
    if report is not None:
        process = report.process
        said = iter([process.go_version or "", process.exe, " ".join(process.cmdline[1:])])
    rest = "  ".join(part for part in said if part)
    line = Text.assemble((f"{target.pid} {clean(target.name)}", "bold"), "  ", (clean(rest), "dim"))
    line.truncate(room.width, overflow="ellipsis")
    return line
