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
from msgspec import structs

from gomem.exporters.json.report import render_json
from gomem.exporters.json.schema import validate
from gomem.exporters.text.report import render_text
from gomem.tracer.errors import GomemError, UsageError
from gomem.tracer.events.record import EVENT, EventKind
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording.contents import FrameKind
from gomem.tracer.recording.event_codec import MOST_EVENTS, SCHEMA
from gomem.tracer.recording.frames import HEAD_BYTES, Frame, FrameReader, FrameWriter, RecordingError
from gomem.tracer.recording.reader import RecordingReader
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.replay.file import replay_file
from gomem.tracer.report import Limit, Report
from tests.support import looks
from tests.support.recordings import CLOCK, OVERHEAD, SECOND, START, beginning, ending, events, recorded, used_again
from tests.support.rules import broken_rules
from tests.support.runtime_image import PAGE
from tests.support.samples.reports import growth

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
    before, after, by_hand = (replay(recording, at) for at in ("0.001", "2.5", "3.5"))
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
    arenas = [next(row for row in report.kinds or () if row.kind == "heap_arena") for report in (before, after)]
    assert arenas[1].prepared == arenas[0].prepared - 2 * PAGE
    assert arenas[1].ready == arenas[0].ready + 2 * PAGE
    assert after.memstats is None
    assert any("MemStats" in limit.what for limit in after.limits)
    # mmap by the program itself.
    assert states[2].total == states[1].total + BY_HAND
    assert states[2].unmanaged == states[1].unmanaged + BY_HAND  # type: ignore[operator]
    assert by_hand.kinds is not None
    assert sum(row.virtual for row in by_hand.kinds) == states[2].total


def test_between_two_looks_nothing_is_joined_with_what_a_look_saw(recording: Path) -> None:
    looked, between = replay(recording, "0.001"), replay(recording, "2.5")
    for report in (looked, between):
        assert broken_rules(json.loads(render_json(report))) == []
    assert looked.between_looks is None
    assert looked.resident is not None
    assert looked.heap is not None
    told = between.between_looks
    assert told is not None
    assert (told.looked_at, told.seconds_before) == ("2026-03-01T12:00:00.001Z", 2.499)
    assert (told.look_before, told.look_after) == (0.001, None)
    assert told.resident_then == looked.resident
    assert (between.resident, between.heap, told.resident_age) == (None, None, None)
    (limit,) = [limit for limit in between.limits if limit.id == "between-looks"]
    assert "--at 0.001" in limit.fix


def test_from_the_beginning_to_the_first_look_it_is_the_first_look(recording: Path) -> None:
    at_look = replay(recording, "0.001")
    assert at_look.resident is not None
    assert at_look == replay(recording, "0") == replay(recording, "0.0004")
    # A look is done between two milliseconds, and people give moments in them.
    assert replay(recording, "0.0019") == at_look
    assert replay(recording, "0.0021").between_looks is not None


def test_growth_of_goroutines_is_of_the_end_and_of_no_moment_before(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path), look_seconds=0.0)
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    for second in (1, 5):
        seen = looks.look(f"2026-03-01T12:00:0{second}.000Z", START + second * SECOND)
        recorder.look(seen, ModelInput.of(seen), START + second * SECOND)
    recorder.end(structs.replace(ending(), goroutine_growth=growth(4.0)))
    recorder.close()
    assert replay(path).goroutine_growth == growth(4.0)
    assert [replay(path, at).goroutine_growth for at in ("0", "5", "7")] == [None, None, None]
    assert replay(recorded(tmp_path / "without")).goroutine_growth is None


def test_a_look_names_the_looks_around_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path), look_seconds=0.0)
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    for second in (1, 3, 5):
        seen = looks.look(f"2026-03-01T12:00:0{second}.000Z", START + second * SECOND)
        recorder.look(seen, ModelInput.of(seen), START + second * SECOND)
    recorder.end(ending())
    recorder.close()
    for at, around in (("2", (1.0, 3.0)), ("4.5", (3.0, 5.0)), ("6", (5.0, None))):
        told = replay(path, at).between_looks
        assert told is not None
        assert (told.look_before, told.look_after) == around
    for at, second in (("0", 1), ("3", 3), ("5", 5)):
        assert replay(path, at).taken_at == f"2026-03-01T12:00:0{second}.000Z"


def test_what_the_kernel_told_of_ram_stands_with_its_age_and_no_finding_rests_on_it(tmp_path: Path) -> None:
    path = tmp_path / "r"
    recorder = Recorder(str(path))
    recorder.begin(beginning(), lambda address: None, lambda: OVERHEAD)
    first = looks.look(at=START + 1_000_000)
    recorder.look(first, ModelInput.of(first), START + 1_000_000)
    recorder.events(events((2000, EventKind.RSS, (30 * MB, 10 * MB, 0, 900 * MB, 7), 0)), START + 4 * SECOND, 0)
    recorder.end(ending())
    recorder.close()
    before, after = replay(path, "1.5"), replay(path, "2.25")
    assert before.resident is None
    assert after.resident is not None
    assert (after.resident.total, after.resident.anonymous, after.resident.swap) == (40 * MB, 30 * MB, 900 * MB)
    assert after.between_looks is not None
    assert after.between_looks.resident_age == 0.25
    assert "swapped" not in [finding.id for finding in after.findings]
    assert broken_rules(json.loads(render_json(after))) == []
    assert "40" in render_text(after)


def test_a_moment_may_be_a_time_of_day(recording: Path) -> None:
    by_seconds, by_time = replay(recording, "2.5"), replay(recording, "2026-03-01T12:00:02.5Z")
    assert by_seconds == by_time
    assert by_time.taken_at == "2026-03-01T12:00:02.500Z"
    assert by_time == replay(recording, "2026-03-01T13:00:02.5+01:00") == replay(recording, "2026-03-01T12:00:02.500")


@pytest.mark.parametrize(
    "at", ["11", "-1", "nan", "1e400", "1e308", "soon", "2026-03-01T11:59:59Z", "2027-03-01T12:00:00Z", ""]
)
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
    with RecordingReader(str(recording)) as reader:
        assert len(list(reader.contents())) > 5
    frames = FrameReader(str(recording))
    found = [one for one in frames.frames() if isinstance(one, Frame)]
    frames.close()
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
    recorder.events(
        events((1500, EventKind.BRK, (0,), 4096), (2500, EventKind.BRK, (8192,), 8192)), START + 3 * SECOND, 0
    )
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
        recorder.look(seen, ModelInput.of(seen), START + second * SECOND)
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
    # No two real events are alike: what makes thousands of a byte is taken for damage.
    many["time"] += np.sort(np.random.default_rng(1).integers(0, 10**9, len(many), np.uint64))
    many["args"][:, 2] += np.random.default_rng(2).integers(0, 1 << 12, len(many), np.uint64)
    recorder.events(many, START + 3 * SECOND, 0)
    recorder.flush()
    monkeypatch.setattr("gomem.tracer.recording.frames.MAX_PLAIN", 2000)
    seen = looks.look(at=START + 4 * SECOND)
    recorder.look(seen, ModelInput.of(seen), START + 4 * SECOND)
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
    monkeypatch.setattr("gomem.tracer.recording.recorder.time.monotonic", lambda: now[0])
    recorder._events._flushed = 0.0
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
