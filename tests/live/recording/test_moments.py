"""Moments of a recording: at a look all is of it, and between two looks nothing is said that only a look can tell.

The target fills memory and gives it back to the kernel while it is recorded, and stands still before and after.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.errors import GomemError
from gomem.tracer.recording.reader import RecordingReader
from gomem.tracer.recording.watching import Beginning
from gomem.tracer.replay.file import replay_file
from tests.support.atlimit import AtLimit, at_limit
from tests.support.command import gomem, obeys_the_rules, outcome, started
from tests.support.processes import rss, wait_until

pytestmark = pytest.mark.bpf

MB = 1 << 20
FILLED, DROPPED = 160, 140  # MB
INEXACT = 64 * 4096 * (os.cpu_count() or 1)  # the kernel counts RSS in batches per CPU (tests/live/bpf)


def looks(path: Path) -> list[int]:
    """Return the times of the looks that a recording has by now."""
    try:
        with RecordingReader(str(path)) as reader:
            return reader.look_times()
    except (OSError, GomemError):
        return []


def covered(path: Path) -> int:
    """Return until when a recording has all events by now, CLOCK_MONOTONIC ns."""
    with RecordingReader(str(path)) as reader:
        return max((step.until for one in reader.contents() if isinstance(one, list) for step in one), default=0)


@contextmanager
def recording(target: AtLimit, path: Path, *words: str) -> Iterator[None]:
    """Record the target within the block; it is looked at when the block begins, and once more behind it."""
    with started("record", target.pid, "-o", path, *words) as process:
        wait_until(lambda: bool(looks(path)), "the first look")
        yield
        process.send_signal(signal.SIGINT)
        assert outcome(process).status == 0


def replayed(path: Path, at: object) -> dict[str, Any]:
    report = gomem("replay", path, "--at", at, "--format", "json").report()
    obeys_the_rules(report)
    return report


@pytest.mark.parametrize("with_rss", [False, True])
def test_what_was_in_ram_at_the_last_look_is_not_said_of_a_later_moment(with_rss: bool, tmp_path: Path) -> None:
    path = tmp_path / "r"
    with at_limit("1.25.5", "-buffers", FILLED) as target:
        full = target.say("gc")["MemStats"]
        rss_full = rss(target.pid)
        with recording(target, path, *(("--with", "rss") if with_rss else ())):
            target.say(f"drop {DROPPED}")
            freed = target.say("free")["MemStats"]
            assert freed["HeapReleased"] - full["HeapReleased"] > DROPPED * MB * 9 // 10
            rss_freed = rss(target.pid)
            time.sleep(0.5)  # the recorder hears of RSS a tenth of a second later
            moment, then = datetime.now(UTC), time.monotonic_ns()
            wait_until(lambda: covered(path) > then, "the events of that moment")
    assert rss_full - rss_freed > DROPPED * MB * 9 // 10

    first, between = replayed(path, 0), replayed(path, moment.isoformat())
    end = gomem("replay", path, "--format", "json").report()
    obeys_the_rules(end)
    # The first look, of a target that stood still.
    assert first["between_looks"] is None
    assert abs(first["resident"]["total"] - rss_full) <= rss_full / 100
    assert abs(first["memstats"]["HeapInuse"] - full["HeapInuse"]) < MB
    # Between the looks: what was given back is known from events, what is in RAM is not, or by the kernel's own count.
    rows = [row for report in (first, between) for row in report["kinds"] if row["kind"] == "heap_arena"]
    given_back = [row["prepared"] for row in rows]
    assert given_back[1] - given_back[0] > DROPPED * MB * 9 // 10
    told = between["between_looks"]
    assert told["resident_then"] == first["resident"]
    assert (between["heap"], between["memstats"], between["consistency"]) == (None, None, None)
    if with_rss:
        assert abs(between["resident"]["total"] - rss_freed) <= rss_freed / 100 + INEXACT
    else:
        assert between["resident"] is None
    assert [finding["id"] for finding in between["findings"] if "resident" in str(finding["evidence"])] == []
    # The last look.
    assert abs(end["resident"]["total"] - rss_freed) <= rss_freed / 100 + MB
    assert told["look_after"] is not None
    assert replayed(path, told["look_after"])["resident"] == end["resident"]


def test_a_recording_has_as_many_looks_as_were_asked_for_and_all_of_each(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with at_limit("1.25.5", "-buffers", FILLED) as target, recording(target, path, "--look-every", "100ms"):
        rss_full = rss(target.pid)
        wait_until(lambda: len(looks(path)) > 2, "looks at the full heap")
        target.say(f"drop {DROPPED}")
        target.say("free")
        rss_freed, by_then = rss(target.pid), time.monotonic_ns()
        wait_until(lambda: sum(look > by_then for look in looks(path)) > 2, "looks at the freed one")
    with RecordingReader(str(path)) as reader:
        began = next(one.started for one in reader.contents() if isinstance(one, Beginning))
    assert began is not None
    moments = [math.ceil((look - began) / 1e6) / 1e3 for look in looks(path)]
    seen = []
    for moment in moments:
        report = replay_file(str(path), f"{moment:.3f}")
        assert report.between_looks is None
        assert report.memstats is not None
        assert report.resident is not None
        seen.append(report.resident.total)
    assert abs(seen[0] - rss_full) <= rss_full / 100
    assert abs(seen[-1] - rss_freed) <= rss_freed / 100 + MB
    between = replay_file(str(path), f"{(moments[0] + moments[1]) / 2:.3f}")
    assert between.resident is None
    assert between.between_looks is not None
    assert [between.between_looks.look_before, between.between_looks.look_after] == moments[:2]


def test_a_recording_without_events_shows_the_look_before_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "looks.rec"
    words = ("--backend", "procfs", "--look-every", "0.3s")
    with at_limit("1.25.5", "-live", 4) as target, recording(target, path, *words):
        wait_until(lambda: len(looks(path)) >= 3, "three looks")
    with RecordingReader(str(path)) as reader:
        begun = next(one for one in reader.contents() if isinstance(one, Beginning))
    first, second = looks(path)[:2]
    at = ((first + second) // 2 - (begun.started or begun.monotonic)) / 1e9
    report = replayed(path, f"{at:.3f}")
    obeys_the_rules(report)
    assert report["heap"] is not None
    assert report["between_looks"] is None
    [limit] = [one for one in report["limits"] if one["id"] == "as-of-the-look-before"]
    assert "no events: all figures are of the look" in limit["why"]
    assert report["resident"]["total"] == replayed(path, 0)["resident"]["total"]
