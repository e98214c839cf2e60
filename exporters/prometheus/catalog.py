"""All metrics, by group, and which of them are switched on."""

from __future__ import annotations

from dataclasses import dataclass

from gomem.exporters.prometheus import activity, compat, heap, identity, memory, scheduler, spans, trust
from gomem.exporters.prometheus.metric import ProcessMetric

PROCESS_GROUPS: dict[str, tuple[ProcessMetric, ...]] = {
    "Which process it is": identity.METRICS,
    "Address space and RAM": memory.METRICS,
    "The Go heap and its collector": heap.METRICS,
    "Spans": spans.METRICS,
    "What happens": activity.METRICS,
    "Goroutines, threads, processors": scheduler.METRICS,
    "Findings, and how far to trust the figures": trust.METRICS,
}


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """What to export beside the rest: series by size class, and client_golang's names."""

    size_classes: bool = False
    go_collector: bool = False


def process_metrics(options: MetricOptions) -> tuple[ProcessMetric, ...]:
    """Return the metrics that each process has."""
    metrics = tuple(metric for group in PROCESS_GROUPS.values() for metric in group)
    if options.size_classes:
        metrics += spans.SIZE_CLASS_METRICS
    return metrics + compat.METRICS if options.go_collector else metrics
