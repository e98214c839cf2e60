"""Views of processes as exporters get them, made from the reports of tests.support.samples.reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gomem.exporters.prometheus import MetricOptions, Scrapes
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import CgroupView, FleetView, Health, TargetState, TargetView
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import (
    Drift,
    EventCount,
    MemoryPressure,
    QueuedCalls,
    Report,
    RuntimeStructure,
    Scheduler,
    Stalled,
    TimerFunction,
    Timers,
)
from tests.support.samples.reports import SAMPLES, grown_and_scavenged

ALL = MetricOptions(size_classes=True, go_collector=True)
HEALTH = Health(
    started_at=1_790_000_000.0, backend="bpf", backend_reason="the best that works here", cpu_seconds=12.5,
    resident_bytes=123_456_789, open_fds=42, rounds=7, round_seconds=0.25, interval_seconds=15.0, events=123_456,
    lost_events=3, paused_events=1, discovery="process connector", processes_seen=1_000, go_processes_seen=12,
    discovery_errors=2, targets_ended=4,
)  # fmt: skip
POD = Workload(
    pod_uid="11111111-2222-3333-4444-555555555555",
    pod="orders-7c9f",
    namespace="shop",
    container="app",
    node="node-1",
    labels={"app.kubernetes.io/name": "orders"},
)

CGROUPS = (
    CgroupView(
        "/kubepods/pod1", POD,
        CgroupMemory(1 << 30, 2 << 30, 3 << 29, {"anon": 1 << 29, "active_file": 4096, "inactive_file": 8192,
                                                 "shmem": 0, "sock": 4096}, {"high": 1, "max": 2, "oom": 3},
                     MemoryPressure(Stalled(0.0, 0.0, 0.0, 12.5), Stalled(0.0, 0.0, 0.0, 2.25))),
        oom_kills=4,
    ),
    CgroupView('/system.slice/"odd"\\name\n.service', Workload(), CgroupMemory(1 << 20, None, None), 0),
)  # fmt: skip


def target(report: Report | None, pid: int = 100, name: str = "orders", **parts: object) -> TargetView:
    """A process that is followed, `parts` of its view replaced."""
    made = TargetView(
        pid=pid,
        name=name,
        state=TargetState.FOLLOWED,
        why="",
        workload=POD,
        report=report,
        followed_since=1_790_000_100.0,
        looked_at=1_790_000_200.0,
        look_seconds=0.0125,
        looks=9,
        failed_looks=1,
        follows_events=True,
        spans_at=1_790_000_195.0,
        looked=200.0,
        found=100.0,
    )
    return replace(made, **parts)  # type: ignore[arg-type]


def view(*targets: TargetView) -> FleetView:
    return FleetView(targets, HEALTH, published_at=1_790_000_201.5, published=201.5)


def whole() -> Report:
    """A report in which nothing is missing."""
    return structs.replace(
        grown_and_scavenged(),
        structure=RuntimeStructure(
            metadata=[], fixed_allocs=None, arena_hints=None, current_arena=None, threads=13,
            scheduler=Scheduler(31, 8, {"waiting": 30, "runnable": 9}, ms=12, ps=4),
            timers=Timers(12, 1, 1_152, 12, [TimerFunction("net/http.(*Server).Serve.func1", 12)]),
            specials={"finalizers": 40, "cleanups": 3}, queued=QueuedCalls(2, 1),
        ),
        drift=Drift(looks=9, exact_looks=8, mappings=0, states=[], after_loss=0, unsure=0, stack_growth=0,
                    illegal_count=1, illegal=[]),
        scavenged_by={"background": EventCount(3, 65_536)},
    )  # fmt: skip


def all_samples() -> FleetView:
    made = view(
        *(
            target(make(), 100 + at, make().process.exe.rpartition("/")[2])
            for at, make in enumerate([*SAMPLES.values(), whole])
        )
    )
    return replace(made, cgroups=CGROUPS)


def series(report: Report | None, options: MetricOptions | None = None, **parts: object) -> dict[str, float]:
    """Return the series of one process as `name{label="value",...}`, without pid and process."""
    return told(view(replace(target(report), **parts)), options, own=False)  # type: ignore[arg-type]


def told(shown: FleetView | None, options: MetricOptions | None = None, own: bool = True) -> dict[str, float]:
    """Return all series that a scraper gets, those of the tracer itself only if `own`."""
    samples = scraped(Scrapes(lambda: shown, options))
    return {_written(sample): sample.value for sample in samples if own or "pid" in sample.labels}


def scraped(scrapes: Scrapes) -> list[Sample]:
    """Return the samples of one scrape, as prometheus_client reads them."""
    families = text_string_to_metric_families(scrapes.answer()[0].decode())
    return [sample for family in families for sample in family.samples]


def _written(sample: Sample) -> str:
    labels = [f'{name}="{value}"' for name, value in sample.labels.items() if value and name not in ("pid", "process")]
    return f"{sample.name}{{{','.join(labels)}}}" if labels else sample.name


def values(shown: dict[str, float], name: str, **labels: str) -> list[float]:
    """Return the values of the series of this name that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return [
        value for key, value in shown.items()
        if re.match(rf"{name}(\{{|$)", key) and all(pair in key for pair in wanted)
    ]  # fmt: skip


def names(samples: Iterable[str]) -> set[str]:
    return {sample.partition("{")[0] for sample in samples}
