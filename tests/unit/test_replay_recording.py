"""Replaying: a recording gives the report of any of its moments, and a damaged one gives what is intact."""

from __future__ import annotations

import json
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard

from exporters.json_report import render_json
from exporters.schema import validate
from exporters.text import render_text
from tests.support import looks
from tests.support.recordings import CLOCK, OVERHEAD, SECOND, START, beginning, ending, events, recorded, used_again
from tests.support.runtime_image import PAGE
from tracer.errors import GomemError, UsageError
from tracer.events import EVENT, Kind
from tracer.model.sight import Sight
from tracer.recording.contents import FrameKind
from tracer.recording.event_codec import MOST_EVENTS, SCHEMA
from tracer.recording.frames import HEAD_BYTES, Frame, FrameReader, FrameWriter, RecordingError
from tracer.recording.recorder import Recorder
from tracer.recording.tape import Tape
from tracer.replay import replay_file
from tracer.report import Limit, Report

MB = 1 << 20
BY_HAND = 1 << 20  # bytes that the program of the recording maps itself at 3 s


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return recorded(tmp_path / "r")


def replay(path: Path, at: str | None = None) -> Report:
    report = replay_file(str(path), at)
    validate(json.loads(render_json(report)))
    assert render_text(report)
    return report


def test_the_end_is_the_report_of_the_last_look_with_all_events(recording: Path) -> None:
    report = replay(recording)
    assert (report.backend, report.duration_seconds) == ("replay", 10.0)
    assert report.overhead.tracer_rss == OVERHEAD.tracer_rss
    assert report.process.exe == "/srv/program"
    assert report.events is not None
    assert {name: count.count for name, count in report.events.items()} == {
        "mmap": 1, "munmap": 1, "madvise": 1, "used": 1, "gc_start": 1, "gc_done": 1,
    }  # fmt: skip
    assert report.transitions is not None
    assert [(row.event, row.function) for row in report.transitions] == [("used", "runtime.f0")]
    assert report.event_loss is not None
    assert report.event_loss.lost == 2
    assert report.memstats is not None
    assert report.memstats["HeapInuse"] == 3 * PAGE
    assert report.gc_cycles is not None
    assert len(report.gc_cycles) == 1
    assert [limit.what for limit in report.limits] == ["a thing", "b"]


def test_a_moment_has_the_events_until_then_and_the_memory_of_then(recording: Path) -> None:
    before, after, by_hand = (replay(recording, at) for at in ("1", "2.5", "3.5"))
    states = [report.virtual for report in (before, after, by_hand)]
    assert states[0] is not None
    assert states[1] is not None
    assert states[2] is not None
    assert before.events == {}
    assert before.memstats is not None
    # sysUsed of two scavenged pages: from Prepared to Ready, and in use.
    assert after.events is not None
    assert list(after.events) == ["used"]
    assert states[0].prepared - states[1].prepared == 2 * PAGE  # type: ignore[operator]
    assert states[1].ready - states[0].ready == 2 * PAGE  # type: ignore[operator]
    assert states[1].total == states[0].total
    assert before.heap is not None
    assert after.heap is not None
    assert after.heap.pages.scavenged == before.heap.pages.scavenged - 2 * PAGE
    assert after.heap.pages.in_use == before.heap.pages.in_use + 2 * PAGE
    assert after.memstats is None
    assert any("MemStats" in limit.what for limit in after.limits)
    # mmap by the program itself.
    assert states[2].total == states[1].total + BY_HAND
    assert states[2].unmanaged == states[1].unmanaged + BY_HAND  # type: ignore[operator]
    assert by_hand.kinds is not None
    assert sum(row.virtual for row in by_hand.kinds) == states[2].total


def test_a_moment_may_be_a_time_of_day(recording: Path) -> None:
    by_seconds, by_time = replay(recording, "2.5"), replay(recording, "2026-03-01T12:00:02.5Z")
    assert by_seconds == by_time
    assert by_time.taken_at == "2026-03-01T12:00:02.500Z"
    assert by_time == replay(recording, "2026-03-01T13:00:02.5+01:00") == replay(recording, "2026-03-01T12:00:02.500")


@pytest.mark.parametrize("at", ["11", "-1", "nan", "1e400", "soon", "2026-03-01T11:59:59Z", "2027-03-01T12:00:00Z", ""])
def test_a_moment_outside_is_refused_with_what_there_is(recording: Path, at: str) -> None:
    with pytest.raises(UsageError) as caught:
        replay_file(str(recording), at)
    assert caught.value.fix


def test_a_recording_without_an_end_says_so(tmp_path: Path) -> None:
    report = replay(recorded(tmp_path / "r", ended=False))
    assert any("breaks off" in limit.why for limit in report.limits)
    assert report.duration_seconds == pytest.approx(9.001)
    assert report.events is not None
    assert report.events["munmap"].count == 1
    assert report.overhead.tracer_rss == OVERHEAD.tracer_rss


def test_every_cut_gives_what_is_before_it(recording: Path) -> None:
    raw = recording.read_bytes()
    with Tape(str(recording)) as tape:
        assert len(list(tape.contents())) > 5
    reader = FrameReader(str(recording))
    found = [one for one in reader.frames() if isinstance(one, Frame)]
    reader.close()
    beginning_ends = found[0].offset + HEAD_BYTES + len(found[0].stored)
    seen = set()
    for size in range(0, len(raw), 211):
        recording.write_bytes(raw[:size])
        try:
            report = replay(recording)
        except GomemError:
            assert size < beginning_ends
            continue
        assert size >= beginning_ends
        assert report.limits
        seen.add(tuple(report.events or {}))
    assert () in seen
    assert any("munmap" in events for events in seen)


def test_what_a_damaged_frame_held_is_told(recording: Path) -> None:
    raw = bytearray(recording.read_bytes())
    reader = FrameReader(str(recording))
    found = [one for one in reader.frames() if isinstance(one, Frame)]
    reader.close()
    (used, *_) = [one for one in found if one.kind == FrameKind.EVENTS]
    raw[used.offset + HEAD_BYTES + 5] ^= 1
    recording.write_bytes(raw)
    report = replay(recording)
    assert report.events is not None
    assert "used" not in report.events
    assert report.events["mmap"].count == 1
    (why,) = [limit.why for limit in report.limits if limit.what == "a part of the recording"]
    assert f"frame {used.number} is damaged (checksum)" in why
    assert f"byte {used.offset}" in why


def reframed(raw: bytes, change: dict[int, bytes]) -> bytes:
    """Return the file with the payloads of some frames (by position) replaced, all checksums right."""
    at, out, number = _header_end(raw), bytearray(raw[: _header_end(raw)]), 0
    while at < len(raw):
        head = list(struct.unpack_from("<4sHHIIIIQI", raw, at))
        stored = raw[at + HEAD_BYTES : at + HEAD_BYTES + int(head[4])]
        at += HEAD_BYTES + len(stored)
        if number in change:
            stored = zstandard.ZstdCompressor().compress(change[number])
            head[4], head[5], head[6] = len(stored), len(change[number]), zlib.crc32(stored)
        packed = struct.pack("<4sHHIIIIQI", *head)
        out += packed + struct.pack("<I", zlib.crc32(packed)) + stored
        number += 1
    return bytes(out)


def _header_end(raw: bytes) -> int:
    return 20 + int(struct.unpack_from("<I", raw, 12)[0])


@pytest.mark.parametrize("seed", range(20))
def test_lies_with_good_checksums_end_in_our_errors_or_in_limits(recording: Path, seed: int) -> None:
    """Bytes inside of payloads change, and every checksum is made good again: what the checks behind them are for."""
    raw = recording.read_bytes()
    reader = FrameReader(str(recording))
    payloads = [one.payload() for one in reader.frames() if isinstance(one, Frame)]
    reader.close()
    chance = random.Random(seed)
    change = {}
    for number in chance.sample(range(len(payloads)), 2):
        payload = bytearray(payloads[number])
        for _ in range(chance.randint(1, 8)):
            payload[chance.randrange(len(payload))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        change[number] = bytes(payload)
    recording.write_bytes(reframed(raw, change))
    for at in (None, "2.5"):
        try:
            report = replay_file(str(recording), at)
        except GomemError:
            continue
        render_json(report)
        render_text(report)


def test_frames_of_the_future_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path))
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    recorder._writer.write(99, START, b"who knows")
    recorder.events(used_again(2000), START + 3 * SECOND, 0)
    recorder.end(ending())
    recorder.close()
    report = replay(path)
    assert report.events is not None
    assert report.events["used"].count == 1
    assert not any(limit.what == "a part of the recording" for limit in report.limits)


def test_a_launched_program_counts_from_its_first_event(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path))
    recorder.begin(beginning(started=None), lambda address: None, lambda: OVERHEAD)
    recorder.events(np.zeros(0, EVENT), START + SECOND, 0)
    recorder.events(events((1500, Kind.BRK, (0,), 4096), (2500, Kind.BRK, (8192,), 8192)), START + 3 * SECOND, 0)
    recorder.end(ending(1.0))
    recorder.close()
    first = replay(path, "0.5")
    assert first.events is not None
    assert first.events["brk"].count == 1
    assert first.virtual is None
    assert any("no look was recorded" in limit.why for limit in first.limits)
    assert first.taken_at == "2026-03-01T12:00:01.999Z"


def test_a_look_that_is_damaged_is_replaced_by_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path))
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    for second in (1, 2):
        seen = looks.look(f"2026-03-01T12:00:0{second}.000Z", START + second * SECOND)
        recorder._kept = 0.0  # keep both
        recorder.look(seen, Sight.of(seen), START + second * SECOND)
    recorder.end(ending())
    recorder.close()
    assert replay(path).taken_at == "2026-03-01T12:00:02.000Z"
    reader = FrameReader(str(path))
    kinds = [one.kind for one in reader.frames() if isinstance(one, Frame)]
    reader.close()
    last = max(at for at, kind in enumerate(kinds) if kind == FrameKind.LOOK)
    path.write_bytes(reframed(path.read_bytes(), {last: b"no look"}))
    report = replay(path)
    assert report.taken_at == "2026-03-01T12:00:01.000Z"
    assert any(isinstance(limit, Limit) and "(LOOK)" in limit.why for limit in report.limits)


def test_a_batch_that_no_frame_holds_is_cut_and_a_look_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path))
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    many = np.repeat(used_again(2000), MOST_EVENTS + 5)
    recorder.events(many, START + 3 * SECOND, 0)
    recorder.flush()
    monkeypatch.setattr("tracer.recording.frames.MAX_PLAIN", 2000)
    seen = looks.look(at=START + 4 * SECOND)
    recorder.look(seen, Sight.of(seen), START + 4 * SECOND)
    monkeypatch.undo()
    recorder.end(ending())
    recorder.close()
    report = replay(path)
    assert report.events is not None
    assert report.events["used"].count == MOST_EVENTS + 5
    assert [limit.why for limit in report.limits if limit.what == "some of the looks in the recording"]
    assert report.virtual is None


def test_without_its_beginning_a_recording_is_of_nobody(recording: Path) -> None:
    recording.write_bytes(reframed(recording.read_bytes(), {0: b"nobody"}))
    with pytest.raises(RecordingError, match="whom"):
        replay_file(str(recording))


def test_an_empty_recording_is_none(tmp_path: Path) -> None:
    writer = FrameWriter(str(tmp_path / "r"))
    writer.begin({"gomem": "0", "events": SCHEMA})
    writer.close()
    with pytest.raises(RecordingError, match="whom"):
        replay_file(str(tmp_path / "r"))
    with pytest.raises(GomemError, match="cannot read"):
        replay_file(str(tmp_path / "none"))


def test_events_are_in_the_file_soon_after_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path))
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    now = [0.0]
    monkeypatch.setattr("tracer.recording.recorder.time.monotonic", lambda: now[0])
    recorder._flushed = 0.0
    sizes = []
    for tenth in range(30):
        now[0] = tenth / 10
        batch = used_again(tenth) if tenth == 3 else np.zeros(0, EVENT)
        recorder.events(batch, START, 0)
        sizes.append(path.stat().st_size)
    recorder.close()
    grown = [tenth for tenth in range(1, 30) if sizes[tenth] > sizes[tenth - 1]]
    assert grown == [5], "half a second, and no write for nothing"
    assert CLOCK > 0
