"""Views of a fleet, made of the sample reports."""

from __future__ import annotations

import time
from dataclasses import replace

from msgspec import structs

from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import FleetView, Health, TargetState, TargetView
from gomem.tracer.report import Report
from tests.support.samples.reports import busy_and_inexact, grown_and_scavenged, kernel_only, lazily_freed

HEALTH = Health(
    started_at=1_700_000_000.0, backend="bpf", backend_reason="works here", cpu_seconds=3.2,
    resident_bytes=90 << 20, open_fds=40, rounds=7, round_seconds=0.4, interval_seconds=15.0, events=1000,
    lost_events=0, paused_events=0, discovery="scan", processes_seen=80, go_processes_seen=4, discovery_errors=0,
    targets_ended=1,
)  # fmt: skip


def target(pid: int, report: Report | None, state: TargetState = TargetState.FOLLOWED, **other: object) -> TargetView:
    """A target whose report says the same pid."""
    if report is not None:
        report = structs.replace(report, process=structs.replace(report.process, pid=pid, ns_pid=pid))
    name = report.process.exe.rpartition("/")[2] if report is not None else "unknown"
    plain = TargetView(pid, name, state, "", Workload(), report, followed_since=1_700_000_000.0, looks=3)
    return replace(plain, **other)  # type: ignore[arg-type]


def view(*targets: TargetView, age: float = 0.0, **health: object) -> FleetView:
    """A view that was published `age` seconds ago, when all that have a report were looked at."""
    now, clock = time.time() - age, time.monotonic() - age
    looked = tuple(
        one if one.report is None or one.looked is not None else replace(one, looked_at=now, looked=clock)
        for one in targets
    )
    return FleetView(looked, replace(HEALTH, **health), now, published=clock)  # type: ignore[arg-type]


def several() -> FleetView:
    """One target of each kind."""
    pod = Workload(container_id="0123456789abcdef" * 4, pod="ingest-7d9f", namespace="shop", container="ingest",
                    node="worker-1", labels={"app": "ingest"})  # fmt: skip
    return view(
        target(11, grown_and_scavenged()),
        target(22, lazily_freed(), workload=pod),
        target(33, busy_and_inexact()),
        target(44, kernel_only(), TargetState.KERNEL_ONLY, why="its Go release is not known"),
        target(55, None, TargetState.UNREADABLE, why="needs CAP_SYS_PTRACE in its user namespace"),
        target(66, None, TargetState.STARTING, why="found a moment ago"),
    )
