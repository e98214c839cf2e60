"""Sections on what happened while watching, what it means, and what was not seen."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exporters.page import Look, lines, section, table, words
from exporters.text_memory import flowing
from exporters.units import clean, number, plural, seconds, size
from tracer.report import EventCount, Report, Transition

SYSCALLS = ("mmap", "munmap", "mremap", "mprotect", "madvise", "process_madvise", "brk")
_QUIET_ROLES = {"gc_start", "gc_done", "mallocgc", "span_alloc", "span_free"}  # told elsewhere
_LOG_LINES = 15
_TOP_TRANSITIONS = 10
_TOP_PROBES = 3
_BEFORE_NAME = 54  # columns that the widest table has before the name of a function


def activity(report: Report, look: Look) -> RenderableType | None:
    """Show system calls and transitions while watching."""
    if report.events is None:
        return None
    heading = f"In {seconds(report.duration_seconds)} of watching{_collections(report.events)}"
    body = [_syscalls(report), _transitions(report, look), _other_events(report)]
    if not any(body):
        return section(heading, words("no system call or runtime event changed the address space"))
    return section(heading, *body)


def _collections(events: dict[str, EventCount]) -> str:
    started, done = events.get("gc_start"), events.get("gc_done")
    if started is None and done is None:
        return ""
    cycles = max(row.count for row in (started, done) if row is not None)
    return f", {plural(cycles, 'GC cycle')}"


def _syscalls(report: Report) -> RenderableType | None:
    rows: list[tuple[str, ...]] = []
    for name in SYSCALLS:
        row = (report.events or {}).get(name)
        if row is None or not (row.count or row.failed):
            continue
        rows.append(_event_cells(name, row))
        if name == "madvise":
            parts = sorted((report.madvise or {}).items(), key=lambda item: -item[1].bytes)
            rows += [_event_cells(f"  {advice}", part) for advice, part in parts if part.count or part.failed]
    return table(("system calls", "count", "bytes", "failed"), rows) if rows else None


def _event_cells(name: str, row: EventCount) -> tuple[str, ...]:
    return (clean(name, 40), number(row.count), size(row.bytes), number(row.failed) if row.failed else "")


def _transitions(report: Report, look: Look) -> RenderableType | None:
    if not report.transitions:
        return None
    shown = sorted(report.transitions, key=lambda row: (-row.bytes, -row.count))
    rows = [_transition_cells(row, look) for row in shown[:_TOP_TRANSITIONS]]
    rest = shown[_TOP_TRANSITIONS:]
    if rest:
        count, moved = sum(row.count for row in rest), sum(row.bytes for row in rest)
        rows.append((f"{len(rest)} more", number(count), size(moved), ""))
    return table(("runtime transitions", "count", "bytes", "<by"), rows)


def _transition_cells(row: Transition, look: Look) -> tuple[str, ...]:
    return (
        f"{row.event}: {row.from_state} to {row.to_state}",
        number(row.count),
        size(row.bytes),
        _function(row.function, look),
    )


def _function(name: str | None, look: Look) -> str:
    """Return a function's name as it fits behind the columns of a table; a narrow page leaves "runtime." out."""
    room = look.width - _BEFORE_NAME
    if name is not None and len(name) > room:
        name = name.removeprefix("runtime.")
    return clean(name or "?", max(room, 20))


def _other_events(report: Report) -> RenderableType | None:
    """Runtime events that no transition row tells: grow, scavenge, arena, ..."""
    told = {row.event for row in report.transitions or ()} | set(SYSCALLS) | _QUIET_ROLES
    pairs = [
        (clean(name, 40), f"{number(row.count)} ({size(row.bytes)})" if row.bytes else number(row.count))
        for name, row in (report.events or {}).items()
        if name not in told and row.count
    ]
    pairs += [
        (f"scavenged by {clean(source, 20)}", f"{number(row.count)} ({size(row.bytes)})")
        for source, row in (report.scavenged_by or {}).items()
    ]
    return flowing(pairs, 96) if pairs else None


def event_log(report: Report, look: Look) -> RenderableType | None:
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
            _function(event.function or (event.callers[0] if event.callers else None), look),
        )
        for event in log[:_LOG_LINES]
    ]
    more = len(log) - len(rows) + report.event_log_dropped
    tail = words((f"and {number(more)} more (--format json has the whole log)", "dim")) if more else None
    if more and report.event_log_dropped:
        tail = words((f"and {number(more)} more, of which {number(report.event_log_dropped)} were not kept", "dim"))
    columns = ("ms", "<event", "bytes", "<address", "<by")
    return section("First events", table(columns, rows, left=0), tail)


def findings(report: Report, look: Look) -> RenderableType | None:
    """Show what the figures mean: what is harmless, and what is not."""
    if not report.findings:
        return section("Findings: nothing to report")
    blocks: list[RenderableType] = []
    for finding in report.findings:
        label = {"info": "info", "warning": "warn", "critical": "CRIT"}.get(finding.severity, finding.severity)
        said = [words((finding.title, "heading")), words(finding.explanation)]
        if finding.action:
            said.append(words(f"-> {finding.action}"))
        blocks.append(_hanging(words((label, finding.severity)), lines(*said)))
    return section("Findings", *blocks)


def _hanging(label: Text, text: Text) -> Table:
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(width=4, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(label, text)
    return grid


def limits(report: Report, look: Look) -> RenderableType | None:
    """Show what could not be seen, why, and what would fix it."""
    if not report.limits:
        return None
    blocks: list[RenderableType] = []
    for limit in report.limits:
        said = [words((limit.what, "heading"), f": {limit.why}" if limit.why else "")]
        if limit.fix:
            said.append(words(f"-> {limit.fix}"))
        blocks.append(_hanging(words(("gap", "dim")), lines(*said)))
    return section("Not seen", *blocks)


def overhead(report: Report, look: Look) -> RenderableType | None:
    """Show what the tracing cost and how far its figures can be trusted."""
    cost, loss = report.overhead, report.event_loss
    parts = [f"{seconds(cost.tracer_cpu_seconds)} CPU", f"{size(cost.tracer_rss)} RSS"]
    if cost.target_slowdown_estimate is not None:
        parts.append(f"target slowed by about {100 * cost.target_slowdown_estimate:.2f}%")
    if cost.frozen_seconds is not None:
        parts.append(f"target stopped for {seconds(cost.frozen_seconds)}")
    if cost.probes:
        hits = sum(probe.hits for probe in cost.probes)
        parts.append(f"{plural(len(cost.probes), 'probe')} with {plural(hits, 'hit')}")
    if loss is not None:
        parts.append(f"{plural(loss.lost, 'event')} lost")
        if loss.resyncs:
            parts.append(plural(loss.resyncs, "resync"))
        parts.append("drift not checked" if loss.drift_bytes is None else f"drift {size(loss.drift_bytes)}")
    if report.drift is not None and report.drift.illegal_count:
        parts.append(plural(report.drift.illegal_count, "illegal transition"))
    if report.consistency is not None:
        state = report.consistency
        parts.append("snapshot exact" if state.exact else f"snapshot inexact by {size(state.skew_bytes)}")
    if report.accounting is not None:
        parts.append(f"Ready unexplained {size(report.accounting.unexplained)}")
    return Group(Text(""), words((f"gomem: {', '.join(parts)}", "dim")))
