"""Recordings with span events: the replay shows the same churn, and the same pauses in watching it."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.json_report import report_object
from exporters.schema import validate
from tests.live.bpf.span_rounds import rounds
from tests.live.recording.test_recording_live import both, differences
from tests.support.builds import build
from tests.support.command import obeys_the_rules
from tracer.cli.watching import Wish
from tracer.optional_roles import OptionalRole
from tracer.replay import replay_file
from tracer.report import Report, SpanEvents

pytestmark = pytest.mark.bpf

SPANS = frozenset({OptionalRole.SPANS})
NO_LIMIT = 1e6  # of the target's time: never used up


def churn_of(report: Report) -> SpanEvents:
    assert report.span_events is not None
    body = report_object(report)
    validate(body)
    obeys_the_rules(body)
    return report.span_events


def test_a_replay_shows_the_spans_that_the_trace_showed(tmp_path: Path) -> None:
    with rounds("1.27.3", "-rounds", -1) as target:
        wish = Wish(target.pid, (), 2.0, "bpf", True, optional=SPANS, budget=NO_LIMIT)
        traced, replayed = both(wish, tmp_path / "r")
    assert differences(traced, replayed) == {}
    churn = churn_of(replayed)
    assert (churn.windows, churn.stops, churn.budget) == (1, 0, NO_LIMIT)
    assert churn.allocated > 100 < churn.freed
    assert {row.use for row in churn.classes} == {"heap", "stacks", "work_bufs"}
    assert all(row.object_size is not None for row in churn.classes if row.use == "heap")
    assert any(row.mean_life_seconds for row in churn.classes)
    cycles = [cycle.spans for cycle in replayed.gc_cycles or () if cycle.started is not None]
    assert sum(spans.freed for spans in cycles if spans) > 100
    assert any(spans.watched_share == 1 for spans in cycles if spans)
    early = churn_of(replay_file(str(tmp_path / "r"), "1.0"))
    assert 0 < early.allocated < churn.allocated
    assert early.watched_share == 1.0
    assert early.watched_seconds < 1.01


def test_a_replay_shows_for_how_long_the_budget_let_them_be_watched(tmp_path: Path) -> None:
    with rounds("1.25.5", "-rounds", -1) as target:
        wish = Wish(target.pid, (), 3.0, "bpf", True, optional=SPANS, budget=1e-4)
        traced, replayed = both(wish, tmp_path / "r")
    assert differences(traced, replayed) == {}
    churn = churn_of(replayed)
    assert churn.stops > 0
    assert 0 < churn.watched_share < 1


def test_a_program_is_watched_for_spans_from_its_very_first_one(tmp_path: Path) -> None:
    command = (str(build("rounds", "1.27.3")), "-rounds", "3")
    wish = Wish(None, command, None, "bpf", True, optional=SPANS, budget=NO_LIMIT)
    traced, replayed = both(wish, tmp_path / "r")
    assert differences(traced, replayed) == {}
    churn = churn_of(replayed)
    assert churn.watched_share == 1.0
    # All that there is has been seen to come: more came than went, of each class.
    assert all(row.allocated >= row.freed for row in churn.classes)
    assert all(row.allocated_pages >= row.freed_pages for row in churn.classes)


def test_by_default_nobody_watches_for_spans(tmp_path: Path) -> None:
    traced, replayed = both(Wish(None, (str(build("tiny", "1.27.3")),), None, "bpf", True), tmp_path / "r")
    assert traced.span_events is None
    assert replayed.span_events is None
    assert "span_alloc" not in (traced.events or {})
