"""The report as a page that a person reads in ten seconds: rich on a terminal, plain text in a pipe."""

from __future__ import annotations

import io
import os
import shutil
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from exporters import text_activity, text_cycles, text_memory, text_rebuilt, text_residency, text_spans
from exporters.page import Look, words
from exporters.units import clean, seconds
from exporters.verdict import verdict
from tracer.report import Report

PIPE_WIDTH = 100
_WIDTHS = (60, 160)  # narrower than the first is unreadable, wider than the second is harder to read

_SECTIONS = (
    text_memory.address_space,
    text_rebuilt.rebuilt,
    text_memory.rss,
    text_memory.heap_pages,
    text_memory.memstats,
    text_memory.fragmentation,
    text_residency.live,
    text_activity.activity,
    text_cycles.cycles,
    text_spans.spans,
    text_activity.event_log,
    text_memory.cgroup,
    text_activity.findings,
    text_activity.limits,
    text_activity.overhead,
)


def render_text(report: Report, *, width: int = PIPE_WIDTH, terminal: bool = False, blocks: bool | None = None) -> str:
    """Return the page, at most `width` columns wide, with a final newline.

    With `terminal` it has colours (unless NO_COLOR is set); `blocks` allows Unicode block characters
    (default: on a terminal). Without, it is plain text: no escape code, the same layout everywhere.
    """
    width = max(_WIDTHS[0], min(width, _WIDTHS[1]))
    look = Look(width=width, blocks=terminal if blocks is None else blocks)
    out = io.StringIO()
    console = _console(out, width, terminal)
    console.print(_header(report, width))
    console.print(_verdict(report))
    for section in _SECTIONS:
        body: RenderableType | None = section(report, look)
        if body is not None:
            console.print(body)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def render_for(report: Report, stream: TextIO) -> str:
    """Return the page as it fits `stream`: coloured and as wide as the terminal, or plain."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return render_text(report)
    columns = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    blocks = (stream.encoding or "").lower().replace("-", "") == "utf8"
    return render_text(report, width=columns, terminal=True, blocks=blocks)


def _console(out: io.StringIO, width: int, terminal: bool) -> Console:
    return Console(
        file=out,
        width=width,
        force_terminal=terminal,
        # Never guessed from the environment: FORCE_COLOR and the like must not colour a file.
        color_system="standard" if terminal else None,
        no_color=bool(os.environ.get("NO_COLOR")) if terminal else True,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _header(report: Report, width: int) -> Text:
    """Return who the target is in one line, as far as the width goes; less telling parts go first."""
    process = report.process
    name = clean(os.path.basename(process.exe) or (process.cmdline[0] if process.cmdline else "?"), 40)
    pid = f"pid {process.pid}" + (f" (inside {process.ns_pid})" if process.ns_pid != process.pid else "")
    release = clean(process.go_version, 30) if process.go_version else "no Go"
    watched = f"watched {seconds(report.duration_seconds)}" if report.duration_seconds else "snapshot"
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
