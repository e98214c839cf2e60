"""The table of all processes as plain values: what is shown of each, sums, and which of them in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from gomem.exporters.html.bars import Part, parts_of_ram
from gomem.exporters.printing import up_to
from gomem.exporters.verdict import verdict
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.figures import FIGURES
from gomem.tracer.fleet.history import History
from gomem.tracer.fleet.nearness import nearness
from gomem.tracer.fleet.view import FleetView, TargetState, TargetView
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import Report

SPARKS = 40  # points of the picture of the last hour
_LONGEST_NAME = 120
_LONGEST_FILTER = 200
_MOST_FIELDS = 16
_HOUR = 3600.0
_SHORTEST_COURSE = 120.0  # seconds: what is seen in less says nothing of an hour
_SEVERITIES = ("info", "warning", "critical")
SEVERITY_TONES = {"info": "soft", "warning": "warn", "critical": "bad"}

# How a state is called, and the class that colours it.
STATE_WORDS = {
    TargetState.STARTING: ("starting", "soft"),
    TargetState.FOLLOWED: ("followed", "good"),
    TargetState.KERNEL_ONLY: ("kernel only", "warn"),
    TargetState.UNREADABLE: ("unreadable", "bad"),
    TargetState.WAITING: ("waiting", "warn"),
    TargetState.SHED: ("left alone", "warn"),
}

Value = int | float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `unit` is text, bytes, share, rate or slope (bytes an hour); `means` is for who wonders."""

    name: str
    title: str
    unit: str
    means: str


COLUMNS = (
    Column("name", "process", "text", "the program's name; below it what was found"),
    Column("rss", "RSS", "bytes", "in RAM, as the kernel counts it"),
    Column("live", "live heap", "bytes", "marked by the last collection"),
    Column("free", "kept free", "bytes", "heap in RAM that holds nothing, kept for the next allocation"),
    Column("stacks", "stacks", "bytes", "of goroutines, in RAM"),
    Column("outside", "outside Go", "bytes", "in RAM: C's heap, and mappings that are not the Go runtime's"),
    Column("file", "of files", "bytes", "in RAM: pages of files"),
    Column("near", "of limit", "share", "used of the nearest limit: the cgroup's, or GOMEMLIMIT; a dash: none is set"),
    Column("gc_rate", "GC/s", "rate", "collections a second"),
    Column("slope", "change", "slope", "how RSS changes, in an hour as it went lately"),
)
_SUMS = ("rss", "live", "free", "stacks", "outside", "file")


@dataclass(frozen=True, slots=True)
class Row:
    """What the table has of one process. `parts` sum to its RSS; `search` is what a filter is looked for in.

    `said`: why it is not followed, or else the worst finding, or else the verdict.
    """

    pid: int
    name: str
    state: str
    tone: str  # the class that colours the state
    place: str
    said: str
    said_tone: str
    figures: Mapping[str, int | float | None]
    parts: Sequence[Part]
    spark: Sequence[float | None]
    search: str

    def value(self, column: str) -> Value:
        """Return what a column has of it."""
        return self.name if column == "name" else self.figures.get(column)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to see: `sort` is a column's name, `filter` words that all have to be there."""

    sort: str = "rss"
    descending: bool = True
    filter: str = ""

    @classmethod
    def of(cls, query: str) -> Wish:
        """Return what the query of an address asks for; what makes no sense is left out."""
        try:
            pairs = dict(parse_qsl(query, max_num_fields=_MOST_FIELDS))
        except ValueError:
            return cls()
        sort = pairs.get("sort", "-rss")
        name = sort.removeprefix("-")
        known = any(column.name == name for column in COLUMNS)
        words = pairs.get("filter", "")[:_LONGEST_FILTER]
        return cls(name, sort.startswith("-"), words) if known else cls(filter=words)

    def query(self) -> str:
        """Return it as the query of an address."""
        sort = ("-" if self.descending else "") + self.sort
        return urlencode({"sort": sort, **({"filter": self.filter} if self.filter else {})})

    def by(self, column: Column) -> Wish:
        """Return what a click on the head of a column asks for: the most first, words from A on; again, the reverse."""
        if column.name == self.sort:
            return Wish(self.sort, not self.descending, self.filter)
        return Wish(column.name, column.unit != "text", self.filter)


class Rows:
    """Makes the rows of views; what has not changed since the one before is not made anew. For one thread at a time."""

    def __init__(self, history: History | None) -> None:
        self._history = history
        self._made: dict[int, tuple[TargetView, CgroupMemory | None, Row]] = {}

    def of(self, view: FleetView) -> list[Row]:
        """Return a row for each process, those with the most RAM first."""
        cgroups = {one.path: one.memory for one in view.cgroups}
        made = {}
        for target in view.targets:
            cgroup, known = cgroups.get(target.cgroup), self._made.get(target.pid)
            same = known is not None and known[0] is target and known[1] == cgroup
            made[target.pid] = known if same and known is not None else (target, cgroup, self._row(target, cgroup))
        self._made = made
        return chosen([row for _, _, row in made.values()], Wish())

    def _row(self, target: TargetView, cgroup: CgroupMemory | None) -> Row:
        report = target.report
        state, tone = STATE_WORDS[target.state]
        findings = sorted(report.findings if report else (), key=lambda one: -_SEVERITIES.index(one.severity))
        name, place = up_to(target.name, _LONGEST_NAME), ", ".join(words for _, words in place_of(target.workload))
        finding = up_to(findings[0].title, 300) if findings else ""
        said, said_tone = str(up_to(target.why, 400)), tone
        if not said:
            said = finding or (up_to(verdict(report), 400) if report else "")
            said_tone = SEVERITY_TONES.get(findings[0].severity, "soft") if findings else "soft"
        path = report.process.exe if report else ""
        return Row(
            target.pid, name, state, tone, up_to(place, 300), said, said_tone,
            _figures(report, cgroup) if report else {}, parts_of_ram(report) or () if report else (),
            self._history.highest(target.pid, "rss", SPARKS) if self._history is not None else (),
            " ".join([name, str(target.pid), state, place, up_to(path, 300), finding, said]).lower(),
        )  # fmt: skip


def _figures(report: Report, cgroup: CgroupMemory | None) -> dict[str, int | float | None]:
    found = {name: take(report) for name, (_, take) in FIGURES.items()}
    course = (report.courses or {}).get("rss")
    near = nearness(report, cgroup, None)
    found["near"] = round(near, 4) if near is not None else None
    long_enough = course is not None and course.seconds >= _SHORTEST_COURSE
    found["slope"] = round(course.per_second * _HOUR) if course is not None and long_enough else None
    return found


def place_of(workload: Workload) -> list[tuple[str, str]]:
    """Return what a process belongs to, as far as it is known."""
    rows = (
        ("namespace", workload.namespace),
        ("pod", workload.pod or workload.pod_uid),
        ("container", workload.container or (workload.container_id or "")[:12]),
        ("node", workload.node),
    )
    return [(name, words) for name, words in rows if words]


def chosen(rows: Sequence[Row], wish: Wish) -> list[Row]:
    """Return the rows that have the wished words, in the wished order; what is not known comes last."""
    words = wish.filter.lower().split()
    found = [row for row in rows if all(word in row.search for word in words)]
    known = [row for row in found if row.value(wish.sort) is not None]
    known.sort(key=lambda row: row.pid)
    known.sort(key=lambda row: _key(row.value(wish.sort)), reverse=wish.descending)
    unknown = [row for row in found if row.value(wish.sort) is None]
    return known + sorted(unknown, key=lambda row: row.pid)


def _key(value: Value) -> tuple[float, str]:
    return (0.0, value.lower()) if isinstance(value, str) else (float(value or 0), "")


def sums(rows: Sequence[Row]) -> dict[str, int | None]:
    """Return the sums of figures in bytes, of those that are known; None where none is."""
    found: dict[str, int | None] = {}
    for name in _SUMS:
        known = [value for row in rows if isinstance(value := row.figures.get(name), int)]
        found[name] = sum(known) if known else None
    return found


def table_object(rows: Sequence[Row], more: Mapping[str, object]) -> dict[str, object]:
    """Return the table for scripts; figures are those of the pages, in bytes and shares."""
    return {
        **more,
        "columns": [[one.name, one.unit] for one in COLUMNS],
        "rows": [
            {
                "pid": row.pid, "name": row.name, "state": row.state, "tone": row.tone, "place": row.place,
                "said": row.said, "said_tone": row.said_tone, "figures": row.figures,
                "parts": [[part.colour, part.name, part.bytes] for part in row.parts if part.bytes],
                "spark": row.spark, "search": row.search,
            }
            for row in rows
        ],
    }  # fmt: skip
