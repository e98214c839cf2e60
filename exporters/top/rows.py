"""What the table says of each process, as plain values, out of a view. No terminal, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gomem.exporters.top.histories import Histories, History, Key, key_of, sum_of
from gomem.exporters.units import clean
from gomem.tracer.fleet.view import CgroupView, FleetView, TargetState, TargetView
from gomem.tracer.report import RUNTIME_NONE, Finding, Report

_LONGEST_NAME = 60
_LONGEST_WHY = 300
_OUTSIDE = ("c_heap", "other")
_SEVERITIES = ("critical", "warning")
_WORDS = {
    TargetState.STARTING: "starting",
    TargetState.KERNEL_ONLY: "kernel only",
    TargetState.UNREADABLE: "unreadable",
    TargetState.WAITING: "waiting",
    TargetState.SHED: "left alone",
}
_BOUNDS = {"RLIMIT_AS": "as", "RLIMIT_DATA": "data"}


@dataclass(frozen=True, slots=True)
class Nearest:
    """The limit of which the greatest share is used: bytes that are left of it, that share, and what it is called.

    "go": GOMEMLIMIT; "cg": the memory limit of a cgroup; "as", "data": RLIMIT_AS, RLIMIT_DATA.
    """

    left: int
    share: float
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """One process, or all of one pod; bytes, None where that cannot be had.

    `firm`: RSS without what is lazily freed. `free`: free heap pages that are in RAM. `c`: in RAM, of C's heap and of
    mappings that are not the runtime's. `slope`: bytes a second. `spark`: RSS from view to view. `members`: of a pod.
    """

    key: Key | str
    pid: int | None
    name: str
    group: str
    state: TargetState
    why: str = ""
    rss: int | None = None
    firm: int | None = None
    live: int | None = None
    garbage: int | None = None
    free: int | None = None
    stacks: int | None = None
    c: int | None = None
    file: int | None = None
    nearest: Nearest | None = None
    cycles_per_second: float | None = None
    mark_share: float | None = None
    slope: float | None = None
    verdict: str = ""
    severity: str = "info"
    spark: Sequence[int] = ()
    members: int = 0
    depth: int = 0
    unfolded: bool = False
    unseen: tuple[str, ...] = field(default_factory=tuple)


SUMMED = ("rss", "firm", "live", "garbage", "free", "stacks", "c", "file", "cycles_per_second", "slope")


def rows_of(view: FleetView, histories: Histories) -> list[Row]:
    """Return a row for each process, in the order of the view."""
    cgroups = {one.path: one for one in view.cgroups}
    return [row_of(target, histories.of(target), cgroups) for target in view.targets]


def row_of(target: TargetView, history: History, cgroups: Mapping[str, CgroupView]) -> Row:
    """Return the row of one process; `cgroups` by path."""
    report = target.report
    row = Row(
        key=key_of(target), pid=target.pid, name=clean(target.name, _LONGEST_NAME), group=_group(target),
        state=target.state, why=clean(target.why, _LONGEST_WHY), slope=history.slope(), spark=history.rss(),
        rss=_rss(target), cycles_per_second=history.cycles_per_second(),
        verdict=_WORDS.get(target.state, ""), severity="warning" if target.state in _WORDS else "info",
    )  # fmt: skip
    return row if report is None else _with_report(row, target, report, cgroups.get(target.cgroup))


def _with_report(row: Row, target: TargetView, report: Report, cgroup: CgroupView | None) -> Row:
    resident, heap, seen = report.resident, report.heap, target.glance
    use = (seen.use if seen is not None else None) or (heap.limit_use if heap is not None else None)
    lazy = resident.lazy_free if resident is not None else None
    work = heap.collector if heap is not None else None
    known = {name: getattr(row, name) for name in ("key", "pid", "name", "group", "state", "why", "rss", "spark")}
    rate = row.cycles_per_second
    verdict, severity = _verdict(row, report.findings)
    return Row(
        **known,
        firm=max(row.rss - lazy, 0) if row.rss is not None and lazy is not None else None,
        live=use.live if use is not None else heap.live if heap is not None else None,
        garbage=use.garbage if use is not None else None,
        free=heap.resident.free if heap is not None else None,
        stacks=heap.resident.stacks if heap is not None else None,
        c=sum(kind.resident or 0 for kind in report.kinds if kind.kind in _OUTSIDE) if report.kinds else None,
        file=resident.file if resident is not None else None,
        nearest=nearest_limit(report, cgroup, use.total if use is not None else None),
        cycles_per_second=rate if rate is not None else work.cycles_per_second if work is not None else None,
        mark_share=work.mark_share if work is not None else None,
        slope=row.slope,
        verdict=verdict,
        severity=severity,
        unseen=tuple(_unseen(report)),
    )


def _rss(target: TargetView) -> int | None:
    if target.glance is not None:
        return target.glance.rss
    resident = target.report.resident if target.report is not None else None
    return resident.total if resident is not None else None


def nearest_limit(report: Report, cgroup: CgroupView | None, go_total: int | None) -> Nearest | None:
    """Return the limit of which most is used; None where there is none. `go_total`: what GOMEMLIMIT is held against."""
    found = [*_go_limit(report, go_total), *_cgroup_limit(report, cgroup), *_bounds(report)]
    return max(found, key=lambda one: one.share, default=None)


def _go_limit(report: Report, total: int | None) -> Iterable[Nearest]:
    limit = report.heap.memory_limit if report.heap is not None else None
    if limit and limit < RUNTIME_NONE and total is not None:
        yield Nearest(max(limit - total, 0), total / limit, "go")


def _cgroup_limit(report: Report, cgroup: CgroupView | None) -> Iterable[Nearest]:
    """Yield the limit against what the kernel cannot take back: page cache goes before anybody is killed."""
    memory = cgroup.memory if cgroup is not None else None
    if memory is not None and memory.max and memory.current is not None:
        held = memory.unreclaimable if memory.unreclaimable is not None else memory.current
        yield Nearest(max(memory.max - held, 0), held / memory.max, "cg")
        return
    for bill in report.cgroup_bills or ():
        if bill.limit:
            held = max(bill.memory_current - (bill.reclaimable or 0), 0)
            yield Nearest(max(bill.limit - held, 0), held / bill.limit, "cg")
            return


def _bounds(report: Report) -> Iterable[Nearest]:
    for bound in report.bounds or ():
        if bound.name in _BOUNDS and bound.limit and bound.used is not None and bound.left is not None:
            yield Nearest(bound.left, bound.used / bound.limit, _BOUNDS[bound.name])


def _verdict(row: Row, findings: Sequence[Finding]) -> tuple[str, str]:
    """Return the id of the finding that matters most and its severity, the state of who is not followed, or "fine"."""
    for severity in _SEVERITIES:
        for finding in findings:
            if finding.severity == severity:
                return finding.id, severity
    return (_WORDS[row.state], "warning") if row.state in _WORDS else ("fine", "info")


def _unseen(report: Report) -> Iterable[str]:
    for limit in report.limits:
        if limit.kind == "gap":
            fix = f" -> {limit.fix}" if limit.fix else ""
            yield clean(f"{limit.what}: {limit.why}{fix}", _LONGEST_WHY)


def _group(target: TargetView) -> str:
    """Return what a process belongs to: its pod, else its container, else its cgroup."""
    workload = target.workload
    pod = workload.pod or workload.pod_uid
    if pod:
        return clean(f"{workload.namespace}/{pod}" if workload.namespace else pod, _LONGEST_NAME)
    name = workload.container or (workload.container_id or "")[:12]
    report = target.report
    own = report.process.cgroup.path if report is not None and report.process.cgroup is not None else ""
    return clean(name or target.cgroup or own or "no cgroup", _LONGEST_NAME)


def grouped(rows: Sequence[Row], unfolded: frozenset[str]) -> list[tuple[Row, list[Row]]]:
    """Return a row for each pod, with those of its processes where it is unfolded."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [
        (_group_row(name, members, name in unfolded), members if name in unfolded else [])
        for name, members in groups.items()
    ]


def _group_row(name: str, members: Sequence[Row], unfolded: bool) -> Row:
    order = (*_SEVERITIES, "info")
    worst = min(members, key=lambda row: order.index(row.severity) if row.severity in order else len(order))
    nearest = max((row.nearest for row in members if row.nearest), key=lambda one: one.share, default=None)
    made = Row(
        key=name, pid=None, name=name, group=name, state=TargetState.FOLLOWED, nearest=nearest,
        mark_share=max((row.mark_share for row in members if row.mark_share is not None), default=None),
        verdict=worst.verdict, severity=worst.severity, spark=sum_of(row.spark for row in members),
        members=len(members), unfolded=unfolded,
    )  # fmt: skip
    sums: dict[str, Any] = {column: _sum(getattr(row, column) for row in members) for column in SUMMED}
    return replace(made, **sums)


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
