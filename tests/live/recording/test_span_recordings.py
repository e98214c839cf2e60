"""Recordings with span events: the replay shows the same churn, and the same pauses in watching it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gomem.exporters.json.report import report_object
from gomem.exporters.json.schema import validate
from gomem.tracer.events.optional_roles import OptionalRole
from gomem.tracer.events.record import EventKind
from gomem.tracer.recording.reader import RecordingReader
from gomem.tracer.recording.watching import Beginning
from gomem.tracer.replay.file import replay_file
from gomem.tracer.report import Report, SpanEvents
from gomem.tracer.watch.backend import TraceRequest
from tests.live.recording.test_recording_live import both, differences
from tests.support.bpf.span_rounds import rounds
from tests.support.builds import build
from tests.support.command import obeys_the_rules
from tests.support.recording_until import LIMIT, Until

pytestmark = pytest.mark.bpf

SPANS = frozenset({OptionalRole.SPANS})
NO_LIMIT = 1e6  # of the target's time: never spent


def watched_rounds(release: str, budget: float, path: Path) -> tuple[Report, Report]:
    """Return the reports, of the watch and of its replay, of a target's very first rounds and nothing else."""
    left = 4

    def made(_: Until) -> bool:
        """Begin one round after the other."""
        nonlocal left
        if not target.rests():
            return False
        left -= 1
        if left >= 0:
            target.begin()
        return left < 0

    with rounds(release, warm=False) as target:
        request = TraceRequest(target.pid, (), LIMIT, "bpf", True, optional=SPANS, budget=budget)
        traced, replayed = both(request, Until(path, made))
    assert traced.duration_seconds < LIMIT, "the rounds did not end"
    assert target.process.returncode in (0, -9), "it did not end by itself"
    assert not [limit for limit in traced.limits if limit.what == "the rest of the time"]
    return traced, replayed


def churn_of(report: Report) -> SpanEvents:
    assert report.span_events is not None
    body = report_object(report)
    validate(body)
    obeys_the_rules(body)
    return report.span_events


def test_a_replay_shows_the_spans_that_the_trace_showed(tmp_path: Path) -> None:
    traced, replayed = watched_rounds("1.27.3", NO_LIMIT, tmp_path / "r")
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


def test_a_replay_of_a_moment_shows_the_spans_until_then(tmp_path: Path) -> None:
    path = tmp_path / "r"
    _, replayed = watched_rounds("1.27.3", NO_LIMIT, path)
    with RecordingReader(str(path)) as reader:
        contents = list(reader.contents())
    (started,) = (content.started for content in contents if isinstance(content, Beginning))
    assert started is not None
    events = np.concatenate([step.batch for content in contents if isinstance(content, list) for step in content])
    allocations = events["time"][events["kind"] == EventKind.SPAN_ALLOC]
    assert len(allocations) == churn_of(replayed).allocated
    for share in (0.1, 0.5, 0.9):
        seconds = f"{(allocations[int(share * len(allocations))] - started) / 1e9:.6f}"
        early = churn_of(replay_file(str(path), seconds))
        until = started + round(float(seconds) * 1e9)
        assert early.allocated == np.count_nonzero(allocations <= until)
        assert early.watched_share == 1.0
        (on,) = events["time"][events["kind"] == EventKind.SPAN_PROBES_ON]
        assert early.watched_seconds == pytest.approx((until - max(on, started)) / 1e9, abs=1e-3)


def test_a_replay_shows_for_how_long_the_budget_let_them_be_watched(tmp_path: Path) -> None:
    # Less than one round costs: the probes are off before the last one, and longer than it takes.
    traced, replayed = watched_rounds("1.25.5", 1e-6, tmp_path / "r")
    assert differences(traced, replayed) == {}
    churn = churn_of(replayed)
    assert churn.stops > 0
    assert 0 < churn.watched_share < 1


def test_a_program_is_watched_for_spans_from_its_very_first_one(tmp_path: Path) -> None:
    command = (str(build("rounds", "1.27.3")), "-rounds", "3")
    request = TraceRequest(None, command, None, "bpf", True, optional=SPANS, budget=NO_LIMIT)
    traced, replayed = both(request, tmp_path / "r")
    assert differences(traced, replayed) == {}
    churn = churn_of(replayed)
    assert churn.watched_share == 1.0
    # All that there is has been seen to come: more came than went, of each class.
    assert all(row.allocated >= row.freed for row in churn.classes)
    assert all(row.allocated_pages >= row.freed_pages for row in churn.classes)


def test_by_default_nobody_watches_for_spans(tmp_path: Path) -> None:
    traced, replayed = both(TraceRequest(None, (str(build("tiny", "1.27.3")),), None, "bpf", True), tmp_path / "r")
    assert traced.span_events is None
    assert replayed.span_events is None
    assert "span_alloc" not in (traced.events or {})
