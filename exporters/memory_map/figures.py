"""Which figures of the report the page has where: each by its path in the report, so that it is the report's own."""

from __future__ import annotations

from dataclasses import dataclass

from gomem.exporters.units import seconds
from gomem.tracer.report import JsonObject, Report
from gomem.tracer.report.memory_map import PAGE, CoursePoint, Picture

_MOST_ROWS = 60
_STATES = (
    ("in use", "in_use", "in_use"),
    ("goroutine stacks", "stacks", "stack"),
    ("work buffers", "work_bufs", "work_buf"),
    ("free, retained", "free", "free"),
    ("scavenged", "scavenged", "scavenged"),
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure: its name, where it is in the report, and what it is."""

    name: str
    path: str
    means: str


def tiles(report: Report) -> list[Tile]:
    """Return the figures on top of the page, those that could be had."""
    found = []
    if report.resident is not None:
        found.append(Tile("RSS", "resident.total", "in RAM"))
    if report.heap is not None:
        found += [
            Tile("live heap", "heap.live", "marked by the last collection"),
            Tile("in use", "heap.resident.in_use", "in RAM, in spans of objects"),
            Tile("kept free", "heap.resident.free", "in RAM, holds nothing"),
            Tile("stacks", "heap.resident.stacks", "in RAM, of goroutines"),
        ]
        if report.heap.memory_limit is not None:
            found.append(Tile("GOMEMLIMIT", "heap.memory_limit", "the runtime's own limit"))
    if report.process.cgroup is not None and report.process.cgroup.memory_max is not None:
        found.append(Tile("container", "process.cgroup.memory_max", "the cgroup's limit"))
    if report.virtual is not None:
        found.append(Tile("VSZ", "virtual.total", "address space"))
    return found


def page_rows(report: Report) -> list[tuple[str, str, str]]:
    """Return the states of heap pages: name, the field of the report, and the class that colours it."""
    return list(_STATES) if report.heap is not None else []


def facts(report: Report) -> str:
    """Return who the process is, and how it was looked at, in one line."""
    process = report.process
    parts = [process.go_version or "no Go runtime", f"pid {process.pid}"]
    parts += [process.pod or ""]
    watched = report.duration_seconds
    parts.append(f"watched for {seconds(watched)} by {report.backend}" if watched else "looked at once")
    parts.append(report.taken_at.replace("T", " ").replace("Z", " UTC"))
    return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One span class: its name, where it is in the report, and what follows from its figures; bytes."""

    name: str
    path: str
    object_size: int
    bytes: int
    objects: int
    capacity: int
    holes: int


def class_rows(report: Report) -> list[ClassRow]:
    """Return the span classes, those with the largest holes first."""
    rows = [
        ClassRow(
            f"{row.size_class} {'noscan' if row.noscan else 'scan'}", f"spans.{at}", row.object_size,
            row.pages * PAGE, row.objects, row.capacity, row.free_slots * row.object_size,
        )
        for at, row in enumerate(report.spans or ())
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row.holes, -row.bytes))


def course_rows(picture: Picture) -> list[tuple[float, CoursePoint]]:
    """Return the moments of the course that a table has room for, the first and the last among them."""
    course = picture.course
    count = min(len(course), _MOST_ROWS)
    return [course[round(at * (len(course) - 1) / max(count - 1, 1))] for at in range(count)]


def figure(body: JsonObject, path: str) -> object:
    """Return a figure of the report's JSON object by its path, such as kinds.0.resident; None where it is null."""
    value: object = body
    for step in path.split("."):
        if isinstance(value, list):
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value[step]
        else:
            return None
    return value
