"""How gomem itself is doing."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator

from gomem.exporters.prometheus.metric import Metric, MetricType, Sample, Value, of_view
from gomem.tracer import __version__
from gomem.tracer.fleet.view import STALE_AFTER, FleetView, Health, TargetState

FleetMetric = Metric[FleetView]


def _health(read: Callable[[Health], Value]) -> Callable[[FleetView], Value]:
    return lambda view: read(view.health)


def _targets(view: FleetView) -> Iterator[Sample]:
    for state in TargetState:
        yield (state.value,), sum(target.state == state for target in view.targets)


BUILD: Metric[None] = Metric(
    "gomem_build_info",
    MetricType.INFO,
    "",
    "The version of gomem and of the Python that it runs on.",
    ("version", "python_version"),
    lambda nothing: (((__version__, platform.python_version()), 1),),
)

ERRORS: Metric[int] = of_view(
    "gomem_metric_errors_total",
    "Times that the metrics of a process could not be written; any increase is a fault of gomem's.",
    lambda errors: errors,
)

METRICS: tuple[FleetMetric, ...] = (
    Metric(
        "gomem_tracer_info",
        MetricType.INFO,
        "",
        "Where gomem gets events from (backend bpf, or procfs for none), why, and how it finds processes.",
        ("backend", "reason", "discovery"),
        lambda view: (((view.health.backend, view.health.backend_reason, view.health.discovery), 1),),
    ),
    Metric(
        "gomem_targets",
        MetricType.GAUGE,
        "",
        "Processes by how far they can be followed; any but followed lack figures, and gomem_process_state names them.",
        ("state",),
        _targets,
    ),
    of_view(
        "gomem_stale_targets",
        f"Processes that no look has succeeded at for {STALE_AFTER} of their intervals, those that cannot be looked at "
        "included: their figures are old, or there are none.",
        lambda view: len(view.stale()),
    ),
    of_view(
        "gomem_view_timestamp_seconds",
        "When the figures were last published, in seconds since 1970; an age of several intervals means that gomem is "
        "stuck or short of CPU.",
        lambda view: view.published_at,
    ),
    of_view(
        "gomem_tracer_start_time_seconds",
        "When gomem started, in seconds since 1970.",
        _health(lambda health: health.started_at),
    ),
    of_view(
        "gomem_tracer_cpu_seconds_total",
        "CPU time of gomem itself; a rate above 0.05 is more than it should take for 100 processes.",
        _health(lambda health: health.cpu_seconds),
    ),
    of_view(
        "gomem_tracer_resident_bytes",
        "RAM of gomem itself; it should be flat.",
        _health(lambda health: health.resident_bytes),
    ),
    of_view(
        "gomem_tracer_memory_budget_bytes",
        "What gomem_tracer_resident_bytes may come to; beyond it the processes that take most are left alone.",
        _health(lambda health: health.memory_budget),
    ),
    of_view(
        "gomem_tracer_shed_targets_total",
        "Times that a process was left alone because gomem's memory budget was used up and it took most of it; "
        "gomem_process_state with state shed names it.",
        _health(lambda health: health.shed),
    ),
    of_view(
        "gomem_tracer_open_fds",
        "Open file descriptors of gomem itself; a few for each process followed, and flat.",
        _health(lambda health: health.open_fds),
    ),
    of_view(
        "gomem_tracer_rounds_total",
        "Times that all processes were visited.",
        _health(lambda health: health.rounds),
    ),
    of_view(
        "gomem_tracer_round_duration_seconds",
        "How long the last round over all processes took; above the interval the figures get older than meant.",
        _health(lambda health: health.round_seconds),
    ),
    of_view(
        "gomem_tracer_round_interval_seconds",
        "How often a round is meant to happen.",
        _health(lambda health: health.interval_seconds),
    ),
    of_view(
        "gomem_tracer_events_total",
        "Events taken from the kernel; the rate is gomem's load.",
        _health(lambda health: health.events),
    ),
    of_view(
        "gomem_tracer_lost_events_total",
        "Events lost on the way from the kernel; any increase means that gomem gets too little CPU or too many events.",
        _health(lambda health: health.lost_events),
    ),
    of_view(
        "gomem_tracer_event_pauses_total",
        "Times that a process's events were switched off because they came too fast.",
        _health(lambda health: health.paused_events),
    ),
    of_view(
        "gomem_discovery_processes_total",
        "Processes that discovery has seen; a high rate means many short-lived processes.",
        _health(lambda health: health.processes_seen),
    ),
    of_view(
        "gomem_discovery_go_processes_total",
        "Go processes among them.",
        _health(lambda health: health.go_processes_seen),
    ),
    of_view(
        "gomem_discovery_errors_total",
        "Processes that could not be examined, most often because they were gone already.",
        _health(lambda health: health.discovery_errors),
    ),
    of_view(
        "gomem_discovery_ended_targets_total",
        "Followed processes that have ended; a high rate with a steady number of targets is a crash loop.",
        _health(lambda health: health.targets_ended),
    ),
)
