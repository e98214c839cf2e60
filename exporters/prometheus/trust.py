"""How far a process's figures can be trusted, what they say, and what the following costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from gomem.exporters.prometheus.metric import ProcessMetric, Sample, Value, figure, of_report, of_view
from gomem.tracer.report import EventLoss, Report


def _loss(read: Callable[[EventLoss], int | None]) -> Callable[[Report], Value | None]:
    return lambda report: None if report.event_loss is None else read(report.event_loss)


def _hits(report: Report) -> Iterator[Sample]:
    hits: dict[str, int] = {}
    for probe in report.overhead.probes:
        hits[probe.role] = hits.get(probe.role, 0) + probe.hits
    for role, count in hits.items():
        if count:
            yield (role,), count


def _findings(report: Report) -> Iterator[Sample]:
    for name, severity in {finding.id: finding.severity for finding in report.findings}.items():
        yield (name, severity), 1


def started_at(report: Report) -> float | None:
    """Return when the process started, in seconds since the epoch."""
    try:
        return datetime.fromisoformat(report.process.start_time).timestamp()
    except ValueError:
        return None


METRICS: tuple[ProcessMetric, ...] = (
    of_report(
        "gomem_finding_active",
        "1 for each finding that the newest report has, by its id and severity; the JSON report explains it and says "
        "what to do.",
        _findings,
        ("id", "severity"),
    ),
    figure(
        "gomem_drift_bytes_total",
        "Bytes by which the state rebuilt from events differed from a fresh look, summed over all looks; any increase "
        "without lost events is a fault of gomem's.",
        _loss(lambda loss: loss.drift_bytes),
    ),
    figure(
        "gomem_lost_events_total",
        "Events of the process that were lost; its event counters are too low by as many.",
        _loss(lambda loss: loss.lost),
    ),
    figure(
        "gomem_resyncs_total",
        "Times that the rebuilt state was replaced by a fresh look because events were lost.",
        _loss(lambda loss: loss.resyncs),
    ),
    figure(
        "gomem_illegal_transitions_total",
        "Changes of a region's state that the Go runtime's rules do not allow; any increase means a runtime that gomem "
        "does not understand, or memory that something else tampers with.",
        lambda report: None if report.drift is None else report.drift.illegal_count,
    ),
    figure(
        "gomem_drift_comparisons_total",
        "Looks that the rebuilt state was compared with; drift means nothing while this does not rise.",
        lambda report: None if report.drift is None else report.drift.looks,
    ),
    figure(
        "gomem_consistency_skew_bytes",
        "By how much the figures of the newest look disagree because the process went on while it was read; 0: exact.",
        lambda report: None if report.consistency is None else report.consistency.skew_bytes,
    ),
    figure(
        "gomem_accounting_unexplained_bytes",
        "Ready bytes that the runtime counts and gomem did not find, negative the other way round; far from 0 means "
        "that gomem reads this runtime wrongly.",
        lambda report: None if report.accounting is None else report.accounting.unexplained,
    ),
    of_report(
        "gomem_probe_hits_total",
        "Times that gomem's probes fired in the process, by role, those that did not left out; each costs the process "
        "two to five microseconds.",
        _hits,
        ("role",),
    ),
    figure(
        "gomem_target_slowdown_ratio",
        "Estimated share of the process's time that the probes take; the one that may fire most, of role used, is "
        "taken off beyond serve's --budget.",
        lambda report: report.overhead.target_slowdown_estimate,
    ),
    figure(
        "gomem_process_start_time_seconds",
        "When the process started, in seconds since 1970; a change under the same pid is another process.",
        started_at,
    ),
    of_view(
        "gomem_report_timestamp_seconds",
        "When the process was last looked at, in seconds since 1970; time() minus this is the age of its figures.",
        lambda target: None if target.report is None else target.looked_at,
    ),
    of_view(
        "gomem_spans_timestamp_seconds",
        "When the process's spans were last read, in seconds since 1970; that is done less often than the rest.",
        lambda target: None if target.report is None else target.spans_at,
    ),
    of_view(
        "gomem_followed_since_timestamp_seconds",
        "Since when the process is followed, in seconds since 1970; its event counters started at 0 then.",
        lambda target: target.followed_since,
    ),
    of_view(
        "gomem_look_duration_seconds",
        "How long the last look that succeeded took; large heaps take longer, and hundreds of milliseconds are dear.",
        lambda target: target.look_seconds,
    ),
    of_view("gomem_looks_total", "Looks at the process that succeeded.", lambda target: target.looks),
    of_view(
        "gomem_failed_looks_total",
        "Looks at the process that failed; while this rises the figures are those of the last look that succeeded.",
        lambda target: target.failed_looks,
    ),
    of_view(
        "gomem_follows_events",
        "1 if the process's events are watched now, else 0 (no BPF here, or they came too fast).",
        lambda target: int(target.follows_events),
    ),
)
