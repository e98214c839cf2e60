"""The sections on GC cycles and on spans that came and went."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gomem.exporters.text.report import render_text
from gomem.tracer.report import GcCycleRow, SpanEvents
from tests.support.samples.reports import churning, grown_and_scavenged
from tests.unit.exporters.test_text import section


def churn(**figures: object) -> str:
    report = churning()
    assert report.span_events is not None
    changed: SpanEvents = replace(report.span_events, **figures)
    return section(render_text(replace(report, span_events=changed)), "Spans that came")


def cycles(*rows: GcCycleRow) -> str:
    return section(render_text(replace(churning(), gc_cycles=list(rows))), r"\d+ GC cycle")


def test_rates_are_of_the_time_that_was_watched_and_the_page_says_which_that_is() -> None:
    page = churn()
    assert "watched for 4.00 s, 40% of the time; stopped 2 times by the budget of 1%\n" in page
    (line,) = [line for line in page.splitlines() if "10 scan" in line]
    assert line.split()[:9] == ["10", "scan", "144", "B", "40,112", "38,804", "10,028", "313", "MiB"]
    assert line.endswith("610 ms")


def test_the_largest_classes_come_first_and_the_rest_is_summed_up() -> None:
    lines = churn().splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["0", "10"]
    assert lines[-2].strip().startswith("6 more")
    assert lines[-1].split()[:3] == ["sum", "41,705", "40,041"]


def test_large_objects_stacks_and_work_buffers_have_no_object_size() -> None:
    page = churn()
    first_words = {tuple(line.split()[:3]) for line in page.splitlines()}
    assert ("0", "noscan", "large") in first_words
    assert ("work", "bufs", "16") in first_words
    assert ("stacks", "420", "431") in first_words


def test_spans_of_which_no_end_was_seen_have_no_life() -> None:
    (line,) = [line for line in churn().splitlines() if "work bufs" in line]
    assert line.endswith("KiB")


def test_where_no_life_was_seen_there_is_no_column_for_it() -> None:
    report = churning()
    assert report.span_events is not None
    classes = [replace(row, lives=0, mean_life_seconds=None) for row in report.span_events.classes]
    assert "lived" in churn()
    assert "lived" not in churn(classes=classes)


@pytest.mark.parametrize(("stops", "said"), [(0, "40% of the time\n"), (1, "; stopped once by the budget of 0.25%\n")])
def test_stops_are_told_where_there_were_some(stops: int, said: str) -> None:
    assert said in churn(stops=stops, budget=0.0025)


def test_nothing_watched_is_no_section_and_nothing_seen_is_no_table() -> None:
    assert "Spans that came" not in render_text(grown_and_scavenged())
    assert len(churn(allocated=0, freed=0, classes=[], watched_seconds=0.0).splitlines()) == 2


def test_the_last_cycles_are_shown_with_what_is_not_known() -> None:
    lines = render_text(churning()).splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("13 GC cycles marked for 220 ms"))
    page = lines[begin:]
    assert "median 20.0 ms, longest 20.0 ms" in page[0]
    assert page[1].split() == ["at", "mark", "heap", "marked", "goal", "scavenged", "spans"]
    assert page[3].split() == [
        "3.00", "s", "20.0", "ms", "58.0", "MiB", "31.0", "MiB", "64.0", "MiB", "6.00", "MiB",
        "+3,006", "-2,900", "(40%)",
    ]  # fmt: skip
    assert page[9].split() == ["6.20", "s", "going", "on", "59.0", "MiB", "?", "?", "0", "B", "not", "watched"]
    assert "the last 8 of 13" in page[10]


def test_a_cycle_that_began_before_the_watching_says_so() -> None:
    page = cycles(GcCycleRow(None, 0.1, None, None, None, scavenged_after=8192))
    assert page.splitlines()[0] == "1 GC cycle"
    assert page.splitlines()[2].split() == ["before", "?", "?", "?", "?", "8.00", "KiB"]


def test_without_span_events_cycles_have_no_column_for_them() -> None:
    page = cycles(GcCycleRow(0.5, 0.6, 10, 20, 30, 0.1, 0, 0))
    assert "spans" not in page
    assert "1 GC cycle marked for 100 ms\n" in page


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_page_leaves_columns_out_and_wraps_none(width: int) -> None:
    page = render_text(churning(), width=width)
    of_cycles, of_spans = section(page, "13 GC cycles"), section(page, "Spans that came")
    assert ("scavenged" in of_cycles, "goal" in of_cycles) == (width > 60, width > 60)
    assert ("object" in of_spans, "pages went" in of_spans) == (width > 60, width > 60)
    assert "(40%)\n" in of_cycles
    assert "610 ms\n" in of_spans
    assert of_spans.partition("  class")[2].count("\n") == 10
