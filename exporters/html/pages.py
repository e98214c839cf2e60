"""The pages for people: all targets, and one of them. Here is what they say, as plain values; templates/ is how."""

from __future__ import annotations

from collections import Counter

from gomem.exporters.html.bars import address_space, in_ram
from gomem.exporters.html.rendering import render
from gomem.exporters.printing import up_to
from gomem.exporters.units import number, plural, seconds, size
from gomem.exporters.verdict import verdict
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import FleetView, Health, TargetState, TargetView
from gomem.tracer.report import Heap, Limit, Report

# A page of so many targets still opens on a phone; /metrics has all of them.
_MOST_LISTED = 500
_MOST_ROWS = 40
_MOST_LABELS = 20
_LONGEST_PATH = 160
_LONGEST_COMMAND = 2000

# How a state is called, and the class that colours it.
_STATE_WORDS = {
    TargetState.STARTING: ("starting", "soft"),
    TargetState.FOLLOWED: ("followed", "good"),
    TargetState.KERNEL_ONLY: ("kernel only", "warn"),
    TargetState.UNREADABLE: ("unreadable", "bad"),
    TargetState.WAITING: ("waiting", "warn"),
    TargetState.SHED: ("left alone", "warn"),
}
_SEVERITY_COLOURS = {"info": "soft", "warning": "warn", "critical": "bad"}

Facts = list[tuple[str, str]]


def index_page(view: FleetView | None) -> bytes:
    """Return the page of all targets, those with the most memory in RAM first."""
    if view is None:
        return render("waiting.html.j2", {})
    ordered = sorted(view.targets, key=lambda target: (-_rss(target), target.pid))
    return render(
        "index.html.j2",
        {
            "count": len(ordered),
            "summary": _summary(view),
            "own": _own_line(view.health, view.age()),
            "cards": [_card(target) for target in ordered[:_MOST_LISTED]],
            "left_out": len(ordered[_MOST_LISTED:]),
        },
    )


def target_page(target: TargetView, with_report: bool, with_profiles: bool = False) -> bytes:
    """Return the page of one process. Its command line is shown only `with_report`: it may hold secrets."""
    report = target.report
    return render(
        "target.html.j2",
        {
            **_figures(target),
            "with_report": with_report,
            "with_profiles": with_profiles,
            "who": _known(_who(target, with_report)),
            "findings": [
                (finding, _SEVERITY_COLOURS.get(finding.severity, "soft")) for finding in report.findings[:_MOST_ROWS]
            ] if report is not None else [],
            "kinds": _kinds(report) if report is not None else [],
            "collector": _collector(report, report.heap) if report is not None and report.heap is not None else [],
            "limits": _limits(report) if report is not None else [],
            "looked": _looked(target),
        },
    )  # fmt: skip


def profiles_page(target: TargetView, links: list[tuple[str, str]]) -> bytes:
    """Return the page that links to a process's profiles; `links`: the address of each, and what it shows."""
    return render("profiles.html.j2", {"target": target, "links": links})


def _card(target: TargetView) -> dict[str, object]:
    """Return what the page of all targets says of one."""
    report = target.report
    return {
        **_figures(target),
        "path": up_to(report.process.exe, _LONGEST_PATH) if report is not None else "",
        "workload": _workload(target.workload),
    }


def _figures(target: TargetView) -> dict[str, object]:
    """Return what both pages say of a target."""
    report = target.report
    return {
        "target": target,
        "state": _STATE_WORDS[target.state],
        "verdict": verdict(report) if report is not None else "",
        "ram": in_ram(report) if report is not None else None,
        "heap": report.heap if report is not None else None,
        "space": address_space(report) if report is not None else None,
    }


def _rss(target: TargetView) -> int:
    report = target.report
    return report.resident.total if report is not None and report.resident is not None else -1


def _summary(view: FleetView) -> str:
    states = Counter(target.state for target in view.targets)
    told = [f"{number(states[state])} {_STATE_WORDS[state][0]}" for state in TargetState if states[state]]
    return plural(len(view.targets), "Go process", "Go processes") + (": " + ", ".join(told) if told else "")


def _own_line(health: Health, age: float) -> str:
    told = [
        f"looked {seconds(age)} ago, every {seconds(health.interval_seconds)}",
        f"events by {health.backend}",
        f"discovery: {health.discovery}",
        f"own memory {size(health.resident_bytes)}"
        + (f" of {size(health.memory_budget)}" if health.memory_budget else ""),
        f"own CPU time {seconds(health.cpu_seconds)}",
    ]
    if health.lost_events:
        told.append(f"{number(health.lost_events)} events lost")
    return "; ".join(told)


def _known(rows: Facts) -> Facts:
    """Return the names that have something to show."""
    return [(name, words) for name, words in rows if words]


def _workload(workload: Workload) -> Facts:
    return _known([
        ("namespace", workload.namespace or ""),
        ("pod", workload.pod or workload.pod_uid or ""),
        ("container", workload.container or (workload.container_id or "")[:12]),
        ("node", workload.node or ""),
    ])  # fmt: skip


def _who(target: TargetView, with_report: bool) -> Facts:
    rows: Facts = []
    process = target.report.process if target.report is not None else None
    if process is not None:
        stripped = {True: ", stripped", False: ", with symbols", None: ""}[process.stripped]
        rows += [
            ("executable", up_to(process.exe, _LONGEST_PATH)),
            ("command line", up_to(" ".join(process.cmdline), _LONGEST_COMMAND) if with_report else ""),
            ("Go release", f"{process.go_version} {process.goarch or ''}{stripped}" if process.go_version else ""),
            ("main module", process.main_module or ""),
            ("build id", process.build_id or ""),
            ("started", process.start_time or ""),
        ]
    rows += _workload(target.workload)
    labels = sorted(target.workload.labels.items())[:_MOST_LABELS]
    rows += [("pod labels", ", ".join(f"{name}={words}" for name, words in labels))]
    if process is not None and process.cgroup is not None:
        group = process.cgroup
        rows += [
            ("cgroup", up_to(group.path, _LONGEST_PATH)),
            ("cgroup memory", f"{size(group.memory_current)} of {size(group.memory_max)}" if group.memory_max else
             f"{size(group.memory_current)}, no limit"),
        ]  # fmt: skip
    return rows


def _kinds(report: Report) -> list[tuple[str, int, list[int | None]]]:
    """Return the kinds of memory: name, mappings, and bytes for each column; the most RAM first."""
    return [
        (
            row.kind.replace("_", " "), row.mappings,
            [row.resident, row.swap, row.virtual, row.ready, row.prepared, row.reserved],
        )
        for row in sorted(report.kinds or [], key=lambda row: -(row.resident or 0))
        if row.virtual
    ]  # fmt: skip


def _collector(report: Report, heap: Heap) -> Facts:
    cycles = (report.memstats or {}).get("NumGC")
    return _known([
        ("live heap", size(heap.live)),
        ("heap goal", size(heap.goal)),
        ("GOGC", {None: "", -1: "off"}.get(heap.gc_percent, str(heap.gc_percent))),
        ("memory limit", size(heap.memory_limit) if heap.memory_limit is not None else "none"),
        ("collections", number(cycles) if isinstance(cycles, int) else ""),
    ])  # fmt: skip


def _limits(report: Report) -> list[tuple[str, list[Limit]]]:
    titles = {"gap": "What could not be seen", "note": "Notes"}
    rows = [
        (title, [limit for limit in report.limits[:_MOST_ROWS] if limit.kind == kind]) for kind, title in titles.items()
    ]
    return [(title, limits) for title, limits in rows if limits]


def _looked(target: TargetView) -> str:
    told = [plural(target.looks, "look"), f"{number(target.failed_looks)} failed"]
    if target.look_seconds is not None:
        told.append(f"the last took {seconds(target.look_seconds)}")
    if target.report is not None:
        told.append(f"figures of {target.report.taken_at}")
    told.append("events are followed" if target.follows_events else "events are not followed")
    return "; ".join(told)
