"""The pages for people: all targets, and one of them. Pure functions of the view; no script, no outside request."""

from __future__ import annotations

import time
from collections import Counter

from exporters.units import number, plural, seconds, size
from exporters.verdict import verdict
from exporters.web.markup import Markup, Part, bar, document, element, facts, join, link, table, text
from tracer.fleet.view import Belonging, FleetView, Health, TargetState, TargetView
from tracer.report import Heap, Report

# A page of so many targets still opens on a phone; /metrics has all of them.
_MOST_LISTED = 500
_MOST_ROWS = 40
_MOST_LABELS = 20
_LONGEST_PATH = 160
_LONGEST_COMMAND = 2000

_STATE_WORDS = {
    TargetState.STARTING: ("starting", "soft"),
    TargetState.FOLLOWED: ("followed", "good"),
    TargetState.KERNEL_ONLY: ("kernel only", "warn"),
    TargetState.UNREADABLE: ("unreadable", "bad"),
    TargetState.WAITING: ("waiting", "warn"),
}


def index_page(view: FleetView | None, now: float | None = None) -> bytes:
    """Return the page of all targets, those with the most memory in RAM first. `now`: seconds since the epoch."""
    links = element("nav", link("/metrics", "metrics"), link("/healthz", "health"), link("/readyz", "ready"))
    if view is None:
        body = element("p", "The first round over all targets is not done yet. Look again in a moment.")
        return document("gomem", element("h1", "gomem"), links, body)
    ordered = sorted(view.targets, key=lambda target: (-_rss(target), target.pid))
    cards = [_card(target) for target in ordered[:_MOST_LISTED]]
    left_out = len(ordered) - len(cards)
    return document(
        f"gomem: {plural(len(ordered), 'Go process', 'Go processes')}",
        element("h1", "gomem"),
        element("p", _summary(view)),
        _own_line(view.health, view.published_at, now),
        links,
        element("main", *cards, class_="cards") if cards else element("p", "No Go process was found so far."),
        element("p", f"and {number(left_out)} more, which /metrics has", class_="soft") if left_out else "",
    )


def target_page(target: TargetView, with_report: bool) -> bytes:
    """Return the page of one process. Its command line is shown only `with_report`: it may hold secrets."""
    report = target.report
    parts: list[object] = [
        element("nav", link("/", "all targets"), _report_link(target) if with_report else ""),
        element("h1", target.name, " ", element("span", f"pid {target.pid}", class_="soft")),
        element("p", _state(target), " ", target.why),
    ]
    if report is not None:
        parts += [element("p", verdict(report)), _address_space(report), _ram(report)]
    parts += [element("h2", "Who it is"), _who(target, with_report)]
    if report is not None:
        parts += [_findings(report), _kinds(report), _heap(report), _collector(report), _limits(report)]
    parts.append(element("p", _looked(target), class_="soft"))
    return document(f"{target.name} ({target.pid}) - gomem", *parts)


def _rss(target: TargetView) -> int:
    report = target.report
    return report.resident.total if report is not None and report.resident is not None else -1


def _state(target: TargetView) -> Markup:
    words, colour = _STATE_WORDS[target.state]
    return element("span", words, class_=f"state {colour}")


def _summary(view: FleetView) -> str:
    states = Counter(target.state for target in view.targets)
    told = [f"{number(states[state])} {_STATE_WORDS[state][0]}" for state in TargetState if states[state]]
    return plural(len(view.targets), "Go process", "Go processes") + (": " + ", ".join(told) if told else "")


def _own_line(health: Health, published_at: float, now: float | None) -> Markup:
    age = max(0.0, (time.time() if now is None else now) - published_at)
    told = [
        f"looked {seconds(age)} ago, every {seconds(health.interval_seconds)}",
        f"events by {health.backend}",
        f"discovery: {health.discovery}",
        f"own memory {size(health.resident_bytes)}",
        f"own CPU time {seconds(health.cpu_seconds)}",
    ]
    if health.lost_events:
        told.append(f"{number(health.lost_events)} events lost")
    return element("p", "; ".join(told), class_="soft")


def _card(target: TargetView) -> Markup:
    report = target.report
    head = element(
        "h2",
        link(f"/targets/{target.pid}", text(target.name, 60)),
        element("span", f"pid {target.pid}", class_="soft"),
        _state(target),
    )
    parts: list[object] = [head]
    if target.why:
        parts.append(element("p", target.why, class_="soft"))
    if report is not None:
        parts.append(element("p", text(report.process.exe, _LONGEST_PATH), class_="path soft"))
    belonging = _belonging(target.belonging)
    if belonging:
        parts.append(element("p", ", ".join(f"{name} {words}" for name, words in belonging), class_="soft"))
    if report is not None:
        parts += [element("p", verdict(report)), _address_space(report), _ram(report), _go_heap(report.heap)]
    return element("article", *parts, class_="card")


def _belonging(belonging: Belonging) -> list[tuple[str, str]]:
    rows = [
        ("namespace", belonging.namespace),
        ("pod", belonging.pod or belonging.pod_uid),
        ("container", belonging.container or (belonging.container_id or "")[:12]),
        ("node", belonging.node),
    ]
    return [(name, words) for name, words in rows if words]


def _address_space(report: Report) -> Markup | str:
    virtual = report.virtual
    if virtual is None:
        return ""
    return bar(
        "Address space", virtual.total,
        [
            Part(virtual.ready, "Ready", "ready"),
            Part(virtual.prepared, "Prepared", "prepared"),
            Part(virtual.reserved, "Reserved", "reserved"),
            Part(virtual.unmanaged, "not the Go runtime's", "unmanaged"),
        ],
    )  # fmt: skip


def _ram(report: Report) -> Markup | str:
    resident = report.resident
    if resident is None:
        return ""
    if report.heap is None:
        parts = [Part(resident.anonymous, "anonymous", "in_use"), Part(resident.file, "of files", "rest")]
        return bar("In RAM", resident.total, parts)
    pages = report.heap.resident
    heap = pages.in_use + pages.stacks + pages.free + pages.scavenged
    return bar(
        "In RAM", resident.total,
        [
            Part(pages.in_use, "heap in use", "in_use"),
            Part(pages.stacks, "goroutine stacks", "stacks"),
            Part(pages.free, "heap kept free", "free"),
            Part(pages.scavenged, "heap given back, still here", "scavenged"),
            Part(max(0, resident.total - heap), "other", "rest"),
        ],
    )  # fmt: skip


def _go_heap(heap: Heap | None) -> Markup | str:
    """Return the runtime's own word on its heap, which says nothing of RAM."""
    if heap is None:
        return ""
    pages = heap.pages
    rows = [("Go heap in use", pages.in_use), ("retained", pages.free), ("scavenged", pages.scavenged)]
    return element("ul", *(element("li", name, " ", element("b", size(count))) for name, count in rows), class_="key")


def _amount(count: int) -> Markup:
    return text(size(count)) if count else element("span", "0", class_="soft")


def _who(target: TargetView, with_report: bool) -> Markup:
    rows: list[tuple[str, object]] = []
    process = target.report.process if target.report is not None else None
    if process is not None:
        stripped = {True: ", stripped", False: ", with symbols", None: ""}[process.stripped]
        rows += [
            ("executable", text(process.exe, _LONGEST_PATH)),
            ("command line", text(" ".join(process.cmdline), _LONGEST_COMMAND) if with_report else ""),
            ("Go release", f"{process.go_version} {process.goarch or ''}{stripped}" if process.go_version else ""),
            ("main module", process.main_module or ""),
            ("build id", process.build_id or ""),
            ("started", process.start_time),
        ]
    rows += _belonging(target.belonging)
    labels = sorted(target.belonging.labels.items())[:_MOST_LABELS]
    rows += [("pod labels", ", ".join(f"{name}={words}" for name, words in labels))]
    if process is not None and process.cgroup is not None:
        group = process.cgroup
        rows += [
            ("cgroup", text(group.path, _LONGEST_PATH)),
            ("cgroup memory", f"{size(group.memory_current)} of {size(group.memory_max)}" if group.memory_max else
             f"{size(group.memory_current)}, no limit"),
        ]  # fmt: skip
    return facts(rows)


def _kinds(report: Report) -> Markup | str:
    if not report.kinds:
        return ""
    rows = [
        (row.kind.replace("_", " "), number(row.mappings), *map(_amount, (
            row.virtual, row.ready, row.prepared, row.reserved, row.resident, row.swap)))
        for row in report.kinds
        if row.virtual
    ]  # fmt: skip
    heads = ("kind", "mappings", "address space", "Ready", "Prepared", "Reserved", "in RAM", "swapped")
    return join((element("h2", "Address space by kind"), table(heads, rows)))


def _heap(report: Report) -> Markup | str:
    heap = report.heap
    if heap is None:
        return ""
    pages, resident = heap.pages, heap.resident
    rows = [
        ("in use", _amount(pages.in_use), _amount(resident.in_use)),
        ("stacks", _amount(pages.stacks), _amount(resident.stacks)),
        ("work buffers", _amount(pages.work_bufs), _amount(resident.work_bufs)),
        ("free, retained", _amount(pages.free), _amount(resident.free)),
        ("scavenged", _amount(pages.scavenged), _amount(resident.scavenged)),
    ]
    return join((element("h2", "Heap pages"), table(("runtime's state", "bytes", "in RAM"), rows)))


def _collector(report: Report) -> Markup | str:
    heap = report.heap
    if heap is None:
        return ""
    percent = {None: "", -1: "off"}.get(heap.gc_percent, str(heap.gc_percent))
    cycles = (report.memstats or {}).get("NumGC")
    rows: list[tuple[str, object]] = [
        ("live heap", size(heap.live)),
        ("heap goal", size(heap.goal)),
        ("GOGC", percent),
        ("memory limit", size(heap.memory_limit) if heap.memory_limit is not None else "none"),
        ("collections", number(cycles) if isinstance(cycles, int) else ""),
    ]
    return join((element("h2", "Garbage collector"), facts(rows)))


def _findings(report: Report) -> Markup | str:
    colours = {"info": "soft", "warning": "warn", "critical": "bad"}
    rows = [
        element(
            "p",
            element("b", finding.title, class_=colours.get(finding.severity, "soft")),
            " ", text(finding.explanation, 1000), " ", text(finding.action, 1000),
        )
        for finding in report.findings[:_MOST_ROWS]
    ]  # fmt: skip
    return join((element("h2", "Findings"), *rows)) if rows else ""


def _limits(report: Report) -> Markup | str:
    rows = [
        element("p", element("b", limit.what), ": ", text(limit.why, 1000), ". ", text(limit.fix, 1000))
        for limit in report.limits[:_MOST_ROWS]
    ]
    return join((element("h2", "What could not be seen"), *rows)) if rows else ""


def _looked(target: TargetView) -> str:
    told = [plural(target.looks, "look"), f"{number(target.failed_looks)} failed"]
    if target.look_seconds is not None:
        told.append(f"the last took {seconds(target.look_seconds)}")
    if target.report is not None:
        told.append(f"figures of {target.report.taken_at}")
    told.append("events are followed" if target.follows_events else "events are not followed")
    return "; ".join(told)


def _report_link(target: TargetView) -> Markup:
    return link(f"/targets/{target.pid}/report.json", "report as JSON")
