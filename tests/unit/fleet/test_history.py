"""The last hour of each process: what is kept of its looks, for how long, and how much that may be."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from msgspec import structs

from gomem.tracer.fleet import history as module
from gomem.tracer.fleet.figures import FIGURES
from gomem.tracer.fleet.history import SPAN, History, Ring
from gomem.tracer.fleet.view import FleetView, TargetView
from gomem.tracer.report import Report
from tests.support.samples.reports import SAMPLES, grown_and_scavenged, kernel_only
from tests.support.samples.views import target, view

GAP = 10.0


def with_rss(total: int) -> Report:
    report = grown_and_scavenged()
    assert report.resident is not None
    return structs.replace(report, resident=structs.replace(report.resident, total=total))


def looked(report: Report, at: float, pid: int = 11, start_ticks: int = 0) -> TargetView:
    return target(pid, report, looked=at, start_ticks=start_ticks)


def at(moment: float, *targets: TargetView) -> FleetView:
    return replace(view(*targets), published=moment)


def rss(history: History, pid: int = 11) -> list[float | None]:
    course = history.course(pid)
    return course.figures["rss"] if course is not None else []


@pytest.mark.parametrize("name", SAMPLES)
def test_every_figure_is_that_of_the_report(name: str) -> None:
    report = SAMPLES[name]()
    history = History(GAP)
    history.take(at(100.0, looked(report, 100.0)))
    course = history.course(11)
    assert course is not None
    for figure, (unit, take) in FIGURES.items():
        told = take(report)
        assert course.figures[figure] == [told if told is None or unit in ("bytes", "count") else round(told, 4)]
    if report.resident is not None:
        assert course.figures["rss"] == [report.resident.total]
    if report.heap is not None:
        assert course.figures["live"] == [report.heap.live]


def test_what_is_not_known_is_none_and_not_0() -> None:
    history = History(GAP)
    history.take(at(100.0, looked(kernel_only(), 100.0)))
    course = history.course(11)
    assert course is not None
    assert course.figures["live"] == course.figures["outside"] == [None]


def test_looks_that_are_closer_than_the_gap_leave_one_point_and_the_newest_is_always_there() -> None:
    history, begin = History(GAP), time.monotonic()
    for second in range(0, 41, 2):
        history.take(at(begin + second, looked(with_rss(second), begin + second)))
        assert rss(history)[-1] == second
    assert rss(history) == [0, 10, 20, 30, 40]


def test_a_view_without_a_new_look_adds_nothing() -> None:
    history, one = History(GAP), looked(with_rss(1), 100.0)
    history.take(at(100.0, one))
    version = history.version(11)
    history.take(at(103.0, one))
    assert rss(history) == [1]
    assert history.version(11) == version
    history.take(at(200.0, looked(with_rss(2), 200.0)))
    assert history.version(11) != version


def test_it_goes_back_an_hour_and_no_further_and_its_size_is_bounded() -> None:
    history, begin = History(GAP), time.monotonic()
    for look in range(1000):
        history.take(at(begin + GAP * look, looked(with_rss(look), begin + GAP * look)))
    points = rss(history)
    assert points == list(range(999 - int(SPAN / GAP), 1000))
    most = (1 + len(FIGURES)) * 8 * (SPAN / GAP / 0.9 + 1)
    assert 0 < history.bytes <= most


def test_times_are_those_of_the_looks() -> None:
    history, now = History(GAP), time.monotonic()
    for ago in (50.0, 20.0, 0.0):
        history.take(at(now - ago, looked(with_rss(1), now - ago)))
    course = history.course(11)
    assert course is not None
    newest = course.times[-1]
    assert [round(newest - at) for at in course.times] == [50, 20, 0]
    assert newest == pytest.approx(time.time(), abs=30)


def test_all_processes_together_take_no_more_than_they_may() -> None:
    each = Ring(1000).bytes
    history = History(GAP, most_bytes=10 * each)
    for look in range(200):
        moment = 1000.0 + GAP * look
        history.take(at(moment, *(looked(with_rss(look), moment, pid) for pid in range(1, 31))))
    assert history.bytes <= 10 * each
    with_points = [pid for pid in range(1, 31) if history.course(pid) is not None]
    assert 1 <= len(with_points) <= 10
    assert all(rss(history, pid)[-1] == 199 for pid in with_points)


def test_a_process_is_kept_for_a_while_after_its_end_and_its_memory_is_then_given_back() -> None:
    history, now = History(GAP), time.monotonic()
    history.take(at(now, looked(with_rss(1), now)))
    history.take(at(now + 1, looked(with_rss(1), now, pid=12)))
    course = history.course(11)
    assert course is not None
    assert course.ended
    history.take(at(now + 2 + module._KEPT_AFTER_THE_END, looked(with_rss(1), now, pid=12)))
    assert history.course(11) is None
    assert history.bytes == Ring(1000).bytes


def test_another_process_with_the_same_pid_begins_anew() -> None:
    history = History(GAP)
    history.take(at(100.0, looked(with_rss(1), 100.0, start_ticks=5)))
    history.take(at(200.0, looked(with_rss(2), 200.0, start_ticks=6)))
    assert rss(history) == [2]


def test_the_picture_has_the_highest_of_each_part() -> None:
    history, begin = History(GAP), time.monotonic()
    for second in range(0, 3600, 10):
        history.take(at(begin + second, looked(with_rss(9 if second == 1810 else 3), begin + second)))
    found = history.highest(11, "rss", 40)
    assert len(found) == 40
    peak = {index for index, value in enumerate(found) if value == 9}
    assert peak
    assert peak <= {19, 20, 21}
    assert found[-1] == 3
    assert history.highest(12, "rss", 40) == []
