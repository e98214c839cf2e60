"""The report as a page that a person reads in ten seconds: rich on a terminal, plain text in a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TextIO

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.text import activity as text_activity
from gomem.exporters.text import allocations as text_allocations
from gomem.exporters.text import bounds as text_bounds
from gomem.exporters.text import c_heap as text_c_heap
from gomem.exporters.text import collector as text_collector
from gomem.exporters.text import cycles as text_cycles
from gomem.exporters.text import ending as text_ending
from gomem.exporters.text import files as text_files
from gomem.exporters.text import goroutine_growth as text_goroutine_growth
from gomem.exporters.text import holders as text_holders
from gomem.exporters.text import memory as text_memory
from gomem.exporters.text import rebuilt as text_rebuilt
from gomem.exporters.text import residency as text_residency
from gomem.exporters.text import runtimes as text_runtimes
from gomem.exporters.text import spans as text_spans
from gomem.exporters.text import thread_stacks as text_thread_stacks
from gomem.exporters.text import trust as text_trust
from gomem.exporters.text import user_mappings as text_user_mappings
from gomem.exporters.text.console import PIPE_WIDTH, set_page, sheet_of
from gomem.exporters.text.ending import release_of
from gomem.exporters.text.page import PageStyle, words
from gomem.exporters.units import clean, seconds
from gomem.exporters.verdict import verdict
from gomem.tracer.report import Report

_WIDTHS = (40, 160)  # narrower than the first is unreadable, wider than the second is harder to read

_SECTIONS = (
    text_runtimes.runtimes,
    text_memory.rss,
    text_memory.heap_pages,
    text_c_heap.c_heap,
    text_thread_stacks.thread_stacks,
    text_files.files,
    text_memory.address_space,
    text_user_mappings.user_mappings,
    text_rebuilt.rebuilt,
    text_memory.memstats,
    text_collector.collector,
    text_holders.span_classes,
    text_holders.large_objects,
    text_goroutine_growth.goroutine_growth,
    text_holders.timers,
    text_residency.live,
    text_activity.activity,
    text_bounds.failed_calls,
    text_cycles.cycles,
    text_spans.spans,
    text_allocations.allocations,
    text_activity.event_log,
    text_memory.cgroup,
    text_bounds.bounds,
    text_bounds.settings,
    text_ending.children,
    text_activity.findings,
    text_activity.limits,
    text_trust.trust,
)


def render_text(report: Report, *, width: int = PIPE_WIDTH, terminal: bool = False, blocks: bool | None = None) -> str:
    """Return the page, at most `width` columns wide, with a final newline.

    With `terminal` it has colours (unless NO_COLOR is set or CLICOLOR is 0); `blocks` allows Unicode block characters
    (default: on a terminal). Without, it is plain text: no escape code, the same layout everywhere.
    """
    width = max(_WIDTHS[0], min(width, _WIDTHS[1]))
    look = PageStyle(width=width, blocks=terminal if blocks is None else blocks)
    return set_page(_parts(report, width, look), width, terminal=terminal)


def render_for(report: Report, stream: TextIO) -> str:
    """Return the page as it fits `stream`: coloured and as wide as the terminal, or plain."""
    sheet = sheet_of(stream)
    return render_text(report, width=sheet.width, terminal=sheet.terminal, blocks=sheet.blocks)


def _parts(report: Report, width: int, look: PageStyle) -> Iterator[RenderableType]:
    yield _header(report, width)
    if (end := text_ending.ending(report, look)) is not None:
        yield end
    yield _verdict(report)
    for section in _SECTIONS:
        body: RenderableType | None = section(report, look)
        if body is not None:
            yield body


def _header(report: Report, width: int) -> Text:
    """Return who the target is in one line, as far as the width goes; less telling parts go first."""
    process = report.process
    name = clean(os.path.basename(process.exe) or (process.cmdline[0] if process.cmdline else "?"), 40)
    pid = f"pid {process.pid}" + (f" (inside {process.ns_pid})" if process.ns_pid != process.pid else "")
    other = any(limit.id == "other-go-compiler" for limit in report.limits)
    release = "Go of another compiler" if other else release_of(process)
    release += f" in {clean(os.path.basename(process.module), 40)}" if process.module else ""
    at_once = "ended unseen" if report.ending is not None else "snapshot"
    watched = f"watched {seconds(report.duration_seconds)}" if report.duration_seconds else at_once
    backend = f"{watched} by {report.backend}" + (f" ({clean(report.backend_reason)})" if report.backend_reason else "")
    parts = [release, pid, backend]
    container = process.pod or (process.container_id or "")[:12]
    module = process.main_module if process.main_module and os.path.basename(process.main_module) != name else None
    for extra in (container, module):
        if extra and len(name) + 2 + len(", ".join([*parts, clean(extra, 50)])) <= width:
            parts.append(clean(extra, 50))
    return words((name, "heading"), "  " + ", ".join(parts))


def _verdict(report: Report) -> Text:
    return words((verdict(report), "bold"))
