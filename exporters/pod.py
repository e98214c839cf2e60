"""The bill of a memory cgroup, as `gomem pod` shows it: a page, or one JSON object."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import to_builtins
from rich.console import RenderableType

from gomem.exporters.json.report import plain_json
from gomem.exporters.text.activity import said_of, unseen
from gomem.exporters.text.bill import COLUMNS, bill_rows, bounds, headline, pressure
from gomem.exporters.text.console import Sheet, set_page
from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Cell, Column, table
from gomem.exporters.units import UNKNOWN, number, plural, size
from gomem.tracer.report import CgroupBill
from gomem.tracer.report.pod import PodProcess, PodReport

_WIDTHS = (60, 200)  # of a terminal
_PIPE = 120
_MOST_NAME = 40
_PROCESSES = (
    Column("pid"),
    Column("RSS"),
    Column("anonymous", worth=6),
    Column("file", worth=4),
    Column("shmem", worth=3),
    Column("swap", worth=5),
    Column("written", worth=2),
    Column("", left=True, worth=7),
    Column("process", left=True),
    Column("cgroup", left=True, worth=1, wraps=20),
)
_CGROUPS = (
    Column("charged"),
    Column("working set"),
    Column("anonymous", worth=4),
    Column("file pages", worth=3),
    Column("limit", worth=5),
    Column("kills", worth=2),
    Column("cgroup", left=True, worth=6, wraps=24),
)


def pod_json(report: PodReport) -> str:
    """Return the report as one JSON object (schema gomem.pod/1)."""
    return plain_json(to_builtins(report))


def pod_text(report: PodReport, most: int, sheet: Sheet) -> str:
    """Return the page, with the `most` largest processes."""
    width = sheet.columns(*_WIDTHS, _PIPE)
    return set_page(_parts(report, most, PageStyle(width, sheet.blocks)), width, terminal=sheet.terminal)


def _parts(report: PodReport, most: int, look: PageStyle) -> Iterator[RenderableType]:
    bill = report.bill
    kind = "pod " + report.pod if report.pod else "container" if report.container_id else "cgroup"
    yield words((bill.path, "heading"), f"  {kind}, cgroup v{bill.version}")
    yield words(headline(bill))
    yield words(bounds(bill))
    waited = pressure(bill)
    if waited is not None:
        yield words(waited)
    yield section("What it is charged for", table(COLUMNS, _bill_rows(report), look, headed=False))
    yield section(_title(report, most), table(_PROCESSES, _process_rows(report, most), look))
    for title, bills in (("In it", report.below), ("Above it, with a limit", report.above)):
        if bills:
            yield section(title, table(_CGROUPS, [_cgroup_cells(one) for one in bills], look))
    yield said_of(report.findings)
    not_seen = unseen(report.limits)
    if not_seen is not None:
        yield not_seen


def _bill_rows(report: PodReport) -> Iterator[list[Cell]]:
    yield from bill_rows(report.bill)
    maps = report.bpf_maps
    if maps is not None and maps.maps:
        yield ["BPF maps", size(maps.bytes), "", words((f"{number(maps.maps)} that its processes hold open", "dim"))]


def _title(report: PodReport, most: int) -> str:
    sums = report.sums
    go = f", {number(sums.go)} of them Go ({size(sums.go_rss)})" if sums.go else ""
    first = f"; the first {number(most)}" if len(report.processes) > most else ""
    return f"{plural(sums.processes, 'process', 'processes')}, RSS {size(sums.rss)} in all{go}{first}"


def _process_rows(report: PodReport, most: int) -> Iterator[list[Cell]]:
    for one in report.processes[:most]:
        yield [
            str(one.pid),
            size(one.rss),
            size(one.anonymous),
            size(one.file),
            size(one.shmem) if one.shmem else "",
            size(one.swap) if one.swap else "",
            UNKNOWN if one.io is None else size(one.io.written),
            _kind(one),
            words(one.name[:_MOST_NAME]),
            words((one.cgroup, "dim")),
        ]


def _kind(one: PodProcess) -> str:
    return UNKNOWN if one.go is None else "Go" if one.go else ""


def _cgroup_cells(bill: CgroupBill) -> list[Cell]:
    files = bill.parts.get("active_file", 0) + bill.parts.get("inactive_file", 0)
    return [
        size(bill.memory_current),
        size(bill.working_set),
        size(bill.parts.get("anon")),
        size(files),
        size(bill.memory_max) if bill.memory_max is not None else "",
        number(bill.events["oom_kill"]) if bill.events.get("oom_kill") else "",
        words(bill.path),
    ]
