"""The last lines: what the tracing cost, and how far the figures can be trusted."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from gomem.exporters.text.page import PageStyle, words
from gomem.exporters.units import plural, seconds, size
from gomem.tracer.report import Report

_LEAST_SLOWDOWN = 0.001  # below, a person needs to know no more than that it is below


def trust(report: Report, look: PageStyle) -> RenderableType | None:
    """Show what the tracing cost, and whether anything is missing or does not add up; the rest is in the JSON."""
    if report.rebuilt is not None:  # from a log that others made
        return None
    said = " ".join(part for part in (_cost(report), _events(report), _state(report)) if part)
    return Group(Text(""), words((f"gomem: {said}", "dim")))


def _cost(report: Report) -> str:
    cost = report.overhead
    said = f"used {seconds(cost.tracer_cpu_seconds)} of CPU time and {size(cost.tracer_rss)} of RAM"
    if cost.frozen_seconds is not None:
        said += f", stopped the process for {seconds(cost.frozen_seconds)}"
    slowdown = cost.target_slowdown_estimate
    if slowdown is not None:
        least = f"less than {100 * _LEAST_SLOWDOWN:g}%"
        said += f", slowed the process by {least if slowdown < _LEAST_SLOWDOWN else f'about {100 * slowdown:.1f}%'}"
    elif report.backend == "bpf":
        said += "; by how much it slowed the process cannot be told"
    return said + "."


def _events(report: Report) -> str:
    loss = report.event_loss
    if loss is None:
        return ""
    if loss.lost:
        said = f"{plural(loss.lost, 'event was', 'events were')} lost: counts of events are too low."
    elif loss.drift_bytes == 0:
        said = "No event was lost, and what the events tell agrees with what was read."
    else:
        said = "No event was lost."
    if loss.drift_bytes:
        said += f" What the events tell differs from what was read by {size(loss.drift_bytes)}."
    if report.drift is not None and report.drift.illegal_count:
        changes = plural(report.drift.illegal_count, "change of state", "changes of state")
        said += f" {changes} broke the Go runtime's rules."
    return said


def _state(report: Report) -> str:
    said = []
    if report.consistency is not None and report.consistency.exact:
        said.append("The figures agree with each other to the byte.")
    elif report.consistency is not None:
        skew = size(report.consistency.skew_bytes)
        said.append(f"The process moved while it was read: figures may be off by {skew}.")
    if report.accounting is not None and report.accounting.unexplained:
        said.append(f"The Go runtime counts {size(abs(report.accounting.unexplained))} of Ready memory otherwise.")
    return " ".join(said)
