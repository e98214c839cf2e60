"""Sections on what happened while watching, what it means, and what was not seen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from gomem.exporters.text.page import PageStyle, flowing, hanging, lines, section, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import clean, number, plural, seconds, size
from gomem.tracer.report import EventCount, Finding, Limit, Report, Transition

SYSCALLS = ("mmap", "munmap", "mremap", "mprotect", "madvise", "process_madvise", "brk")
_QUIET_ROLES = {"gc_start", "gc_done", "mallocgc", "span_alloc", "span_free"}  # told elsewhere
_LOG_LINES = 15
_TOP_TRANSITIONS = 10
_LONGEST_NAME = 100  # columns of a function's name
_SYSCALLS = (Column("system calls", left=True), Column("count"), Column("bytes"), Column("failed"))
_TRANSITIONS = (
    Column("runtime transitions", left=True),
    Column("count"),
    Column("bytes"),
    Column("by", left=True, worth=1, wraps=30, below="by "),
)
_LOG = (
    Column("ms"),
    Column("event", left=True),
    Column("bytes"),
    Column("address", left=True, worth=2),
    Column("by", left=True, worth=1, wraps=24, below="by "),
)


def activity(report: Report, look: PageStyle) -> RenderableType | None:
    """Show system calls and transitions while watching."""
    if report.events is None:
        return None
    heading = f"In {seconds(report.duration_seconds)} of watching{_collections(report.events)}"
    body = [_syscalls(report, look), _transitions(report, look), _other_events(report, look)]
    if not any(body):
        return section(heading, words("no system call or runtime event changed the address space"))
    return section(heading, *body)


def _collections(events: dict[str, EventCount]) -> str:
    started, done = events.get("gc_start"), events.get("gc_done")
    if started is None and done is None:
        return ""
    cycles = max(row.count for row in (started, done) if row is not None)
    return f", {plural(cycles, 'GC cycle')}"


def _syscalls(report: Report, look: PageStyle) -> RenderableType | None:
    rows: list[tuple[str, ...]] = []
    for name in SYSCALLS:
        row = (report.events or {}).get(name)
        if row is None or not (row.count or row.failed):
            continue
        rows.append(_event_cells(name, row))
        if name == "madvise":
            parts = sorted((report.madvise or {}).items(), key=lambda item: -item[1].bytes)
            rows += [_event_cells(f"  {advice}", part) for advice, part in parts if part.count or part.failed]
    return table(_SYSCALLS, rows, look) if rows else None


def _event_cells(name: str, row: EventCount) -> tuple[str, ...]:
    return (clean(name, 40), number(row.count), size(row.bytes), number(row.failed) if row.failed else "")


def _transitions(report: Report, look: PageStyle) -> RenderableType | None:
    if not report.transitions:
        return None
    shown = sorted(report.transitions, key=lambda row: (-row.bytes, -row.count))
    rows = [_transition_cells(row) for row in shown[:_TOP_TRANSITIONS]]
    rest = shown[_TOP_TRANSITIONS:]
    if rest:
        count, moved = sum(row.count for row in rest), sum(row.bytes for row in rest)
        rows.append((f"{len(rest)} more", number(count), size(moved), ""))
    return table(_TRANSITIONS, rows, look)


def _transition_cells(row: Transition) -> tuple[str, ...]:
    return (
        f"{row.event}: {row.from_state} to {row.to_state}",
        number(row.count),
        size(row.bytes),
        _function(row.function),
    )


def _function(name: str | None) -> str:
    return clean(name or "?", _LONGEST_NAME)


def _other_events(report: Report, look: PageStyle) -> RenderableType | None:
    """Runtime events that no transition row tells: grow, arena, what was scavenged by whom, ..."""
    told = {row.event for row in report.transitions or ()} | set(SYSCALLS) | _QUIET_ROLES
    if report.scavenged_by:
        told.add("scavenge")  # their sum
    pairs = [
        (clean(name, 40), f"{number(row.count)} ({size(row.bytes)})" if row.bytes else number(row.count))
        for name, row in (report.events or {}).items()
        if name not in told and row.count
    ]
    pairs += [
        (f"scavenged by {clean(source, 20)}", f"{number(row.count)} ({size(row.bytes)})")
        for source, row in (report.scavenged_by or {}).items()
    ]
    return flowing(pairs, look) if pairs else None


def event_log(report: Report, look: PageStyle) -> RenderableType | None:
    """Show the first rare events of a launched program, in the order of time."""
    log = report.event_log
    if not log:
        return None
    rows = [
        (
            f"{event.seconds * 1000:.3f}",
            clean(event.event, 20),
            size(event.bytes),
            "?" if event.address is None else f"{event.address:#x}",
            _function(event.function or (event.callers[0] if event.callers else None)),
        )
        for event in log[:_LOG_LINES]
    ]
    more = len(log) - len(rows) + report.event_log_dropped
    tail = words((f"and {number(more)} more (--format json has the whole log)", "dim")) if more else None
    if more and report.event_log_dropped:
        tail = words((f"and {number(more)} more, of which {number(report.event_log_dropped)} were not kept", "dim"))
    return section("First events", table(_LOG, rows, look), tail)


def findings(report: Report, look: PageStyle) -> RenderableType | None:
    """Show what the figures mean: what is harmless, and what is not."""
    return said_of(report.findings)


def said_of(findings: Sequence[Finding]) -> RenderableType:
    """Show findings, of whatever they are."""
    if not findings:
        return section("Findings: nothing to report")
    blocks: list[RenderableType] = []
    for finding in findings:
        label = {"info": "info", "warning": "warn", "critical": "CRIT"}.get(finding.severity, finding.severity)
        said = [words((finding.title, "heading")), words(finding.explanation)]
        if finding.action:
            said.append(words(f"-> {finding.action}"))
        blocks.append(hanging(words((label, finding.severity)), lines(*said)))
    return section("Findings", *blocks)


def limits(report: Report, look: PageStyle) -> RenderableType | None:
    """Show what could not be seen, why, and what would fix it; then what is only good to know."""
    return unseen(report.limits)


def unseen(limits: Sequence[Limit]) -> RenderableType | None:
    """Show limits, of whatever they are."""
    gaps = [limit for limit in limits if limit.kind == "gap"]
    notes = [limit for limit in limits if limit.kind == "note"]
    parts = [section(title, *map(_limit, some)) for title, some in (("Not seen", gaps), ("Notes", notes)) if some]
    return Group(*parts) if parts else None


def _limit(limit: Limit) -> RenderableType:
    said = [words((limit.what, "heading"), f": {limit.why}" if limit.why else "")]
    if limit.fix:
        said.append(words(f"-> {limit.fix}"))
    return hanging(words((limit.kind, "dim")), lines(*said))
