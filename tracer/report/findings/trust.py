"""Rules on how far the report's own figures can be trusted: findings about gomem and its reading."""

from __future__ import annotations

from typing import Final

from gomem.tracer.report import Finding, Report
from gomem.tracer.report.findings.base import MIB, NOTEWORTHY, mib

UNEXPLAINED_READY: Final = 1 * MIB  # page rounding stays far below


def inexact_snapshot(report: Report) -> Finding | None:
    """Say that the snapshot was torn by a target that moved on."""
    consistency = report.consistency
    if consistency is None or consistency.exact:
        return None
    skewed = report.heap.pages.in_use if report.heap else 0
    much = consistency.skew_bytes > max(NOTEWORTHY, skewed // 10)
    return Finding(
        id="inexact-snapshot",
        severity="warning" if much else "info",
        title=f"The figures are inexact by {mib(consistency.skew_bytes)}",
        explanation=f"The process changed its memory faster than it could be read ({consistency.attempts} attempts).",
        evidence={"skew_bytes": consistency.skew_bytes, "attempts": consistency.attempts},
        action="If a figure looks odd, take the report again at a quieter moment"
        + (", or with --freeze." if report.overhead.frozen_seconds is None else "."),
    )


def lost_events(report: Report) -> Finding | None:
    """Events were lost, so counts of what happened are too low."""
    loss = report.event_loss
    if loss is None or not loss.lost:
        return None
    return Finding(
        id="lost-events",
        severity="warning",
        title=f"{loss.lost} events were lost",
        explanation="Counts and bytes of events and transitions are too low."
        + (" The state that is shown was read, and misses nothing." if report.resident is not None else ""),
        evidence={"lost": loss.lost, "resyncs": loss.resyncs, "drift_bytes": loss.drift_bytes},
        action="Give gomem more CPU time (nice, a cgroup's cpu.weight), or leave the --with options out.",
    )


def drift(report: Report) -> Finding | None:
    """Say that the state rebuilt from events differs from the snapshot: a finding about gomem, not the target."""
    loss = report.event_loss
    if loss is None or loss.lost or loss.drift_bytes is None:
        return None
    skew = report.consistency.skew_bytes if report.consistency else 0
    if abs(loss.drift_bytes) <= max(UNEXPLAINED_READY, skew):
        return None
    return Finding(
        id="drift",
        severity="warning",
        title=f"Events and snapshot disagree by {mib(abs(loss.drift_bytes))}",
        explanation="The state rebuilt from events is not the state that was read, though no event was lost. "
        "This is gomem's error, not the target's; the figures shown are those that were read.",
        evidence={"drift_bytes": loss.drift_bytes, "resyncs": loss.resyncs, "skew_bytes": skew},
        action="Please report it, with `--format json` of this run.",
    )


def unexplained_ready(report: Report) -> Finding | None:
    """Say that the runtime's own counters do not explain the Ready bytes: a finding about gomem."""
    accounting, skew = report.accounting, report.consistency.skew_bytes if report.consistency else 0
    if accounting is None or abs(accounting.unexplained) <= UNEXPLAINED_READY + skew:
        return None
    return Finding(
        id="unexplained-ready",
        severity="warning",
        title=f"gomem and the runtime count Ready bytes differently, by {mib(abs(accounting.unexplained))}",
        explanation="The runtime's counters do not add up to what gomem calls Ready. "
        "This is gomem's error, not the target's.",
        evidence={
            "ready": report.virtual.ready if report.virtual else None,
            "mapped_ready": accounting.mapped_ready,
            "heap_index": accounting.heap_index,
            "page_rounding": accounting.page_rounding,
            "unexplained": accounting.unexplained,
        },
        action="Please report it, with `--format json` of this run.",
    )
