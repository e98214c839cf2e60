"""The rows of the table: each figure is the report's, or the glance's where that is newer."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from msgspec import structs

from gomem.exporters.top.columns import ALL, BY_ID, COLUMNS, GAP, in_order, placed
from gomem.exporters.top.histories import Histories, History, Point, sparkline, sum_of
from gomem.exporters.top.once import table_once
from gomem.exporters.top.rows import Row, grouped, nearest_limit, row_of, rows_of
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import CgroupView, TargetState
from gomem.tracer.kernel.cgroup_memory import CgroupMemory
from gomem.tracer.report import Bound, Report
from gomem.tracer.snapshot.glance import Glance
from tests.support.samples.reports import SAMPLES, busy_and_inexact, kernel_only, lazily_freed
from tests.support.samples.top import MIB, START, course, glanced
from tests.support.samples.views import several, target, view


def row(report: Report | None, **other: object) -> Row:
    return row_of(target(7, report, **other), History(), {})  # type: ignore[arg-type]


def test_figures_are_those_of_the_report() -> None:
    report = lazily_freed()
    heap, resident = report.heap, report.resident
    assert heap is not None
    assert resident is not None
    found = row(report)
    assert (found.rss, found.firm) == (resident.total, resident.total - (resident.lazy_free or 0))
    assert found.firm is not None
    assert found.firm < resident.total
    assert (found.free, found.stacks, found.file) == (heap.resident.free, heap.resident.stacks, resident.file)
    outside = {kind.kind: kind.resident or 0 for kind in report.kinds or ()}
    assert found.c == outside.get("c_heap", 0) + outside.get("other", 0)


def test_a_glance_is_newer_than_the_report() -> None:
    report = busy_and_inexact()
    assert report.heap is not None
    use = report.heap.limit_use
    assert use is not None
    newer = structs.replace(use, live=use.live + 5, garbage=3)
    one = replace(target(7, report), glance=Glance(123 * MIB, use=newer, cycles=9), glanced=START)
    found = row_of(one, History(), {})
    assert (found.rss, found.live, found.garbage) == (123 * MIB, use.live + 5, 3)
    assert row(report).live == use.live


def test_of_what_is_not_go_only_the_kernels_figures_are_known() -> None:
    found = row(kernel_only(), state=TargetState.KERNEL_ONLY, why="no runtime was found")
    assert found.rss
    assert (found.live, found.garbage, found.free, found.stacks, found.mark_share) == (None,) * 5
    assert found.why == "no runtime was found"


def test_what_cannot_be_looked_at_says_why_and_has_no_figure() -> None:
    found = row(None, state=TargetState.UNREADABLE, why="needs CAP_SYS_PTRACE")
    assert (found.rss, found.live, found.c, found.nearest) == (None,) * 4
    assert (found.verdict, found.why, found.severity) == ("unreadable", "needs CAP_SYS_PTRACE", "warning")


@pytest.mark.parametrize("name", SAMPLES)
def test_the_word_of_verdict_is_the_finding_that_matters_most(name: str) -> None:
    report = SAMPLES[name]()
    severities = [finding.severity for finding in report.findings]
    found = row(report)
    worst = next((one for one in ("critical", "warning") if one in severities), None)
    if worst is None:
        assert (found.verdict, found.severity) == ("fine", "info")
    else:
        assert found.verdict in [one.id for one in report.findings if one.severity == worst]


def test_the_nearest_limit_is_the_one_of_which_most_is_used() -> None:
    report = structs.replace(busy_and_inexact(), cgroup_bills=None, bounds=None)
    assert report.heap is not None
    report = structs.replace(report, heap=structs.replace(report.heap, memory_limit=100 * MIB))
    go = nearest_limit(report, None, 60 * MIB)
    assert go is not None
    assert (go.left, go.name) == (40 * MIB, "go")
    # 90 of 100 MiB are charged, but 40 of them are page cache, which the kernel takes back first.
    kinds = {"anon": 50 * MIB, "active_file": 20 * MIB, "inactive_file": 20 * MIB, "slab_reclaimable": 0}
    cgroup = CgroupView("/a", Workload(), CgroupMemory(90 * MIB, 100 * MIB, None, kinds), 0)
    assert nearest_limit(report, cgroup, 60 * MIB) == go
    full = replace(cgroup, memory=CgroupMemory(90 * MIB, 100 * MIB, None, {}))
    nearer = nearest_limit(report, full, 60 * MIB)
    assert nearer is not None
    assert (nearer.left, nearer.name) == (10 * MIB, "cg")
    bound = Bound("RLIMIT_AS", "bytes", 100 * MIB, 95 * MIB, 5 * MIB)
    nearest = nearest_limit(structs.replace(report, bounds=[bound]), full, 60 * MIB)
    assert nearest is not None
    assert (nearest.left, nearest.name) == (5 * MIB, "as")


def test_without_a_limit_there_is_no_distance() -> None:
    report = structs.replace(lazily_freed(), cgroup_bills=None, bounds=None)
    assert report.heap is not None
    report = structs.replace(report, heap=structs.replace(report.heap, memory_limit=None))
    assert nearest_limit(report, None, 1) is None


def test_slope_and_collections_come_from_what_was_seen() -> None:
    histories = Histories()
    for one in course(20):
        histories.note(one)
    rows = rows_of(one, histories)
    assert rows[0].slope == pytest.approx(2 * MIB)
    assert rows[1].slope == pytest.approx(0, abs=1)
    assert rows[1].cycles_per_second == pytest.approx(2.0)
    assert rows[0].cycles_per_second == 0
    assert len(rows[0].spark) == 20


def test_a_process_that_is_gone_is_forgotten_and_a_successor_begins_anew() -> None:
    histories = Histories()
    views = course(12)
    for one in views:
        histories.note(one)
    successor = replace(views[-1].targets[0], start_ticks=99)
    histories.note(replace(views[-1], targets=(successor,)))
    assert len(histories.of(successor).points) == 1
    assert not histories.of(views[-1].targets[1]).points


def test_of_little_time_no_slope_is_told() -> None:
    history = History()
    for second in range(8):
        history.note(Point(START + second, 100 + second))
    assert history.slope() is None
    assert History().cycles_per_second() is None


def test_sparklines() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([100_000, 100_001], 8) == "▁▁"
    assert sparkline([], 8) == ""
    assert sparkline([5, 1, 9], 2) == "▁█"
    assert sum_of([[1, 2, 3], [10, 20], []]) == [12, 23]


def test_pods_have_the_sums_of_their_processes() -> None:
    pod = Workload(pod="a-1", namespace="shop")
    rows = rows_of(
        view(
            glanced(target(1, lazily_freed(), workload=pod), START, 10 * MIB),
            glanced(target(2, busy_and_inexact(), workload=pod), START, 20 * MIB),
            glanced(target(3, lazily_freed()), START, 5 * MIB),
        ),
        Histories(),
    )
    groups = dict((group.name, (group, members)) for group, members in grouped(rows, frozenset({"shop/a-1"})))
    head, members = groups["shop/a-1"]
    assert (head.rss, head.members, len(members), head.pid) == (30 * MIB, 2, 2, None)
    assert head.live == sum(one.live or 0 for one in rows[:2])
    assert head.severity == min((one.severity for one in rows[:2]), key=("critical", "warning", "info").index)
    assert sum(len(shown) for _, shown in groups.values()) == 2  # the others are folded


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_columns_fit_and_keep_apart(width: int) -> None:
    for skip in (0, 1, 5, len(COLUMNS) - 1):
        found = placed(width, skip)
        assert [one.column.id for one in found[:2]] == ["pid", "name"]
        assert found[-1].x + found[-1].width <= width
        assert all(b.x == a.x + a.width + GAP for a, b in pairwise(found))


def test_every_column_can_be_reached_at_50_columns() -> None:
    seen = {one.column.id for skip in range(len(COLUMNS)) for one in placed(50, skip)}
    assert seen == {column.id for column in ALL}


def test_wide_terminals_have_all_columns() -> None:
    assert {one.column.id for one in placed(140)} == {column.id for column in ALL}


@pytest.mark.parametrize("column", ALL, ids=lambda column: column.id)
@pytest.mark.parametrize("ascending", [True, False])
def test_what_is_not_known_comes_last_however_it_is_sorted(column: object, ascending: bool) -> None:
    by = BY_ID[column.id]  # type: ignore[attr-defined]
    rows = in_order(rows_of(several(), Histories()), by, ascending)
    values = [by.value(one) for one in rows]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known
    assert known == sorted(known, reverse=not ascending)


def test_the_table_once_says_what_the_reports_say() -> None:
    text = table_once(several(), "3 processes may not be looked at: not root")
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["PID", "PROGRAM", "RSS"]
    assert any("unknown" in line for line in lines)
    assert "needs CAP_SYS_PTRACE in its user namespace" in text
    assert lines[-1] == "3 processes may not be looked at: not root"
