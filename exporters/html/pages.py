"""The pages for people: all targets, and one of them. Here is what they say, as plain values; templates/ is how."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from gomem.exporters.html.bars import address_space, in_ram
from gomem.exporters.html.rendering import render
from gomem.exporters.html.table import (
    COLUMNS,
    SEVERITY_TONES,
    SPARKS,
    STATE_WORDS,
    Row,
    Wish,
    chosen,
    place_of,
    sums,
    table_object,
)
from gomem.exporters.printing import up_to
from gomem.exporters.units import number, plural, seconds, size
from gomem.exporters.verdict import verdict
from gomem.tracer.fleet.figures import FIGURES
from gomem.tracer.fleet.history import Course
from gomem.tracer.fleet.view import FleetView, Health, TargetState, TargetView
from gomem.tracer.report import Heap, Limit, Report

# A page of so many targets still opens on a phone; /metrics has all of them.
_MOST_LISTED = 500
_MOST_ROWS = 40
_MOST_MOMENTS = 30
_MOST_LABELS = 20
_LONGEST_PATH = 160
_LONGEST_COMMAND = 2000
_OFTENEST, _SELDOMEST = 2, 10  # seconds between two times that a page asks for what is new

_COURSE_COLUMNS = (
    ("rss", "RSS"), ("in_use", "heap in use"), ("live", "live heap"), ("goal", "goal"), ("free", "kept free"),
    ("stacks", "stacks"), ("outside", "outside Go"), ("file", "of files"), ("swap", "swapped out"), ("ready", "ready"),
    ("prepared", "prepared"), ("reserved", "reserved"), ("cycles", "collections"), ("goroutines", "goroutines"),
    ("threads", "threads"),
)  # fmt: skip
_NO_COURSE = "Two looks make a line: the second one comes soon."
_NO_ROOM = "There is no history of this process: others fill the memory that there is for it."

Facts = list[tuple[str, str]]


def index_page(view: FleetView | None, rows: Sequence[Row] = (), wish: Wish | None = None) -> bytes:
    """Return the page of all targets, of which `rows` are made: those that are wished, in that order."""
    if view is None:
        return render("waiting.html.j2", {})
    wish = wish or Wish()
    listed = rows[:_MOST_LISTED]
    shown = chosen(listed, wish)
    titles = {column.name: column.title for column in COLUMNS}
    return render(
        "index.html.j2",
        {
            **_about(view, rows),
            "count": len(listed),
            "shown": _of(len(shown), len(listed)),
            "sort": ("-" if wish.descending else "") + wish.sort,
            "filter": wish.filter,
            "refresh": _refresh(view),
            "sums": [(name, titles[name], bytes) for name, bytes in sums(shown).items()],
            "heads": [
                (
                    column, f"/?{wish.by(column).query()}",
                    ("descending" if wish.descending else "ascending") if column.name == wish.sort else "",
                )
                for column in COLUMNS
            ],
            "columns": COLUMNS[1:],
            "rows": shown,
        },
    )  # fmt: skip


def table_json(view: FleetView, rows: Sequence[Row]) -> dict[str, object]:
    """Return what the page of all targets asks for again and again."""
    return table_object(rows[:_MOST_LISTED], _about(view, rows))


def _of(some: int, whole: int) -> str:
    return number(some) if some == whole else f"{number(some)} of {number(whole)}"


def _about(view: FleetView, rows: Sequence[Row]) -> dict[str, object]:
    return {
        "summary": _summary(view),
        "own": _own_line(view.health, view.age()),
        "scale": max([row.figures.get("rss") or 0 for row in rows[:_MOST_LISTED]], default=0) or 1,
        "sparks": SPARKS,
        "left_out": len(rows[_MOST_LISTED:]),
    }


def _refresh(view: FleetView) -> int:
    return max(_OFTENEST, min(_SELDOMEST, round(view.health.interval_seconds)))


def target_page(
    target: TargetView,
    with_report: bool,
    with_profiles: bool = False,
    course: Course | None = None,
    refresh: int = _SELDOMEST,
) -> bytes:
    """Return the page of one process. Its command line is shown only `with_report`: it may hold secrets."""
    return render(
        "target.html.j2",
        {
            **_target_values(target, with_report),
            "with_report": with_report,
            "with_profiles": with_profiles,
            "refresh": refresh,
            "course": _course_rows(course) if course is not None and len(course.times) > 1 else [],
            "course_columns": _COURSE_COLUMNS,
            "no_course": _NO_ROOM if course is None and target.looks > 1 else _NO_COURSE,
        },
    )


def figures_page(target: TargetView, with_report: bool) -> bytes:
    """Return what changes in the page of a process, for that page to take over."""
    return render("figures.html.j2", _target_values(target, with_report))


def refresh_of(view: FleetView | None) -> int:
    """Return how many seconds a page waits before it asks again."""
    return _refresh(view) if view is not None else _OFTENEST


def _target_values(target: TargetView, with_report: bool) -> dict[str, object]:
    report = target.report
    return {
        "target": target,
        "state": STATE_WORDS[target.state],
        "verdict": verdict(report) if report is not None else "",
        "tiles": _tiles(report) if report is not None else [],
        "ram": in_ram(report) if report is not None else None,
        "heap": report.heap if report is not None else None,
        "space": address_space(report) if report is not None else None,
        "who": _known(_who(target, with_report)),
        "findings": [
            (finding, SEVERITY_TONES.get(finding.severity, "soft")) for finding in report.findings[:_MOST_ROWS]
        ] if report is not None else [],
        "kinds": _kinds(report) if report is not None else [],
        "collector": _collector(report, report.heap) if report is not None and report.heap is not None else [],
        "limits": _limits(report) if report is not None else [],
        "looked": _looked(target),
    }  # fmt: skip


def _tiles(report: Report) -> list[tuple[str, str, int, str]]:
    """Return the figures on top: name, path in the report, bytes, and what they mean; those that are known."""
    ram, heap, group = report.resident, report.heap, report.process.cgroup
    rows = [
        ("RSS", "resident.total", ram and ram.total, "in RAM"),
        ("live heap", "heap.live", heap and heap.live, "marked by the last collection"),
        ("in use", "heap.resident.in_use", heap and heap.resident.in_use, "in RAM, in spans of objects"),
        ("kept free", "heap.resident.free", heap and heap.resident.free, "in RAM, holds nothing"),
        ("stacks", "heap.resident.stacks", heap and heap.resident.stacks, "in RAM, of goroutines"),
        ("GOMEMLIMIT", "heap.memory_limit", heap and heap.memory_limit, "the runtime's own limit"),
        ("container", "process.cgroup.memory_max", group and group.memory_max, "the cgroup's limit"),
        ("VSZ", "virtual.total", report.virtual and report.virtual.total, "address space"),
    ]
    return [(name, path, bytes, means) for name, path, bytes, means in rows if isinstance(bytes, int)]


def _course_rows(course: Course) -> list[tuple[str, list[str]]]:
    """Return the moments that a table has room for, the newest first, and the figures of each as words."""
    count = len(course.times)
    some = sorted({round(at * (count - 1) / max(_MOST_MOMENTS - 1, 1)) for at in range(_MOST_MOMENTS)}, reverse=True)
    return [
        (
            time.strftime("%H:%M:%S", time.gmtime(course.times[at])),
            [_worded(name, course.figures[name][at]) for name, _ in _COURSE_COLUMNS],
        )
        for at in some
    ]


def _worded(name: str, value: float | None) -> str:
    return size(value) if FIGURES[name][0] == "bytes" else number(None if value is None else int(value))


def profiles_page(target: TargetView, links: list[tuple[str, str]]) -> bytes:
    """Return the page that links to a process's profiles; `links`: the address of each, and what it shows."""
    return render("profiles.html.j2", {"target": target, "links": links})


def _summary(view: FleetView) -> str:
    states = Counter(target.state for target in view.targets)
    told = [f"{number(states[state])} {STATE_WORDS[state][0]}" for state in TargetState if states[state]]
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
    rows += place_of(target.workload)
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
