"""What a small file can make a reader do: no more than its bytes are worth. Counted in what is done, not in seconds."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from msgspec import structs
from numpy.typing import NDArray

from gomem.tracer.addresses.interval_map import IntervalMap
from gomem.tracer.events.record import EVENT, EventBatch, EventKind
from gomem.tracer.model.batches import joined
from gomem.tracer.model.mappings import GROWSDOWN, MAPPED, READABLE, MappingModel
from gomem.tracer.model.model_input import Cover, ModelInput
from gomem.tracer.model.reconcile import comparison, held
from gomem.tracer.model.reconcile.drift import Row
from gomem.tracer.recording import columns, contents, frames
from gomem.tracer.recording.contents import FrameKind
from gomem.tracer.recording.event_codec import EventChunk, EventEncoder
from gomem.tracer.recording.event_writer import MOST_STEPS
from gomem.tracer.recording.frames import Damage, Frame, FrameReader, FrameWriter, Worth
from gomem.tracer.recording.reader import RecordingReader
from gomem.tracer.recording.recorder import Recorder
from gomem.tracer.replay import recording as replaying
from gomem.tracer.replay.recording import replay_recording
from gomem.tracer.report import Limit
from gomem.tracer.watch.session import TargetSession
from tests.support import looks, recordings

MANY = 1 << 16


@contextmanager
def writing(path: Path) -> Iterator[FrameWriter]:
    """Write a recording frame by frame, of no more bytes than compression makes; its beginning is there."""
    writer = FrameWriter(str(path))
    writer.begin({})
    writer.write(FrameKind.BEGINNING, 0, contents.encode(recordings.beginning()))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frames, "_PLAIN", Worth(frames.MAX_PLAIN, 1))
            yield writer
    finally:
        writer.close()


def steps(count: int, events: int) -> bytes:
    """Return the payload of so many batches of so many events, all alike."""
    one = np.repeat(recordings.used_again(1000)[:1], events) if events else np.zeros(0, EVENT)
    return EventEncoder().encode([EventChunk(one, recordings.START, 0)] * count)[0]


@pytest.mark.parametrize(("batches", "events"), [(MANY, 1), (MANY, 0), (1, MANY)])
def test_a_frame_that_makes_thousands_of_a_byte_is_damage(
    batches: int, events: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path / "a.rec") as writer:
        for _ in range(8):
            writer.write(FrameKind.EVENTS, recordings.START, steps(batches, events))
    size = (tmp_path / "a.rec").stat().st_size
    assert size < 20_000
    fed: list[int] = []
    monkeypatch.setattr(TargetSession, "feed", lambda self, batch, until, lost=0: fed.append(len(batch)))
    report = replay_recording(str(tmp_path / "a.rec"))
    assert len(fed) + sum(fed) <= 16 * size
    assert len([limit for limit in report.limits if limit.what == "a part of the recording"]) == 8


def test_events_of_a_moment_that_never_comes_are_not_held_back(tmp_path: Path) -> None:
    with writing(tmp_path / "a.rec") as writer:
        for _ in range(3):
            writer.write(FrameKind.EVENTS, recordings.START, steps(4, 2))
    with RecordingReader(str(tmp_path / "a.rec")) as reader:
        told = [step for content in reader.contents() if isinstance(content, list) for step in content]
    assert len(told) == 12
    latest = int(told[0].batch["time"].max())
    assert [step.until for step in told] == [recordings.START, *[latest + 1] * 11]


@pytest.mark.parametrize("text", [b'{"value":' + b"[" * 400 + b"[],[]" * 100_000, b'{"value":[' + b"1," * 500_000])
def test_a_text_with_more_values_than_bytes_is_not_parsed(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path / "a.rec") as writer:
        writer.write(FrameKind.PROGRESS, 0, struct.pack("<I", len(text)) + text)
    parsed: list[int] = []
    loads = json.loads

    def counted(text: bytes, **how: Any) -> Any:
        parsed.append(len(text))
        return loads(text, **how)

    monkeypatch.setattr(json, "loads", counted)
    with RecordingReader(str(tmp_path / "a.rec")) as reader:
        assert len(list(reader.contents())) == 1
        assert len(reader.limits()) == 1
    assert sum(parsed) < 10_000
    with pytest.raises(frames.RecordingError, match="values in 1000 bytes"):
        columns.unpack(struct.pack("<I", len(text)) + text, 1000)


def test_a_payload_that_is_zeros_is_not_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(tmp_path / "a.rec") as writer:
        writer.write(FrameKind.EVENTS, 0, bytes(64 << 20))
    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda: pytest.fail("decompressed"))
    found = [one for one in read(tmp_path / "a.rec") if isinstance(one, Frame)]
    with pytest.raises(frames.RecordingError, match="claims 67108864 bytes"):
        found[-1].payload()


def read(path: Path) -> list[Frame | Damage]:
    reader = FrameReader(str(path))
    try:
        return list(reader.frames())
    finally:
        reader.close()


def head(number: int, stored: int) -> bytes:
    """Return a good head of a frame whose payload is not what it says."""
    made = frames._HEAD.pack(b"GmFr", FrameKind.EVENTS, 0, number, stored, stored, 1, 0, 0)
    return made + struct.pack("<I", zlib.crc32(made))


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes that are read, call by call."""
    taken: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        raw = pread(fd, size, offset)
        taken.append(len(raw))
        return raw

    monkeypatch.setattr(os, "pread", counted)
    return taken


@pytest.mark.parametrize("filling", [b"GmFr" * (1 << 19), head(1, 1 << 20) * (1 << 15)], ids=["marks", "heads"])
def test_a_file_of_frame_marks_is_read_a_few_times_at_the_most(
    filling: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path / "a.rec") as writer:
        writer.write(FrameKind.PROGRESS, 0, b"")
    with (tmp_path / "a.rec").open("ab") as file:
        file.write(filling)
    size = (tmp_path / "a.rec").stat().st_size
    taken = counting(monkeypatch)
    found = read(tmp_path / "a.rec")
    assert sum(isinstance(one, Frame) for one in found) == 2
    assert sum(taken) < 12 * size
    assert len(taken) < 1000 + size // frames.HEAD_BYTES


def test_whoever_waits_is_told_how_far_it_is_and_may_end_it(tmp_path: Path) -> None:
    path = recordings.recorded(tmp_path / "a.rec")
    told: list[tuple[int, int]] = []
    replay_recording(str(path), tick=lambda read, size: told.append((read, size)))
    assert told == sorted(told)
    assert len(told) > 5
    assert {size for _, size in told} == {path.stat().st_size}

    def interrupt(read: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay_recording(str(path), tick=interrupt)


BASE = 0x7F0000000000


def calls(kind: EventKind, count: int, time: int, *args: int | NDArray[np.uint64]) -> EventBatch:
    """Return system calls of one moment; each argument one number for all, or one for each."""
    batch = np.zeros(count, EVENT)
    batch["kind"], batch["time"], batch["entered"], batch["tid"] = kind, time, time - 1, 1
    for number, words in enumerate(args):
        batch["args"][:, number] = words
    if kind is EventKind.MMAP:
        batch["result"] = batch["args"][:, 0].view(np.int64)
    return batch


def scattered(count: int, time: int) -> EventBatch:
    """Return mmaps of so many pages that do not touch."""
    at = np.uint64(BASE) + np.arange(count, dtype=np.uint64) * np.uint64(8192)
    return calls(EventKind.MMAP, count, time, at, 4096, 3, 0x32)


def wide_protections(writer: FrameWriter, encoder: EventEncoder) -> None:
    """Change 10,000 mappings at a time, 8,000 times."""
    protections = calls(EventKind.MPROTECT, 8000, recordings.START + 10**9, BASE, 8192 * 10_000)
    protections["args"][:, 2] = np.arange(8000) % 2
    for batch in (scattered(10_000, recordings.START), protections):
        step = EventChunk(batch, int(batch["time"][0]) + 1, 0)
        writer.write(FrameKind.EVENTS, step.until, encoder.encode([step])[0], encoder.least_stored)


def late_ones(writer: FrameWriter, encoder: EventEncoder) -> None:
    """Hold 200,000 events back, and go through them again for each of 40,000 that come late."""
    now = recordings.START + 10**10
    late = [EventChunk(calls(EventKind.MUNMAP, 1, now - 10**9 + at, BASE, 4096), now + 1, 0) for at in range(20_000)]
    unseen = [replace(step, batch=step.batch.copy()) for step in late]
    for step in unseen:
        step.batch["kind"] = EventKind.STATES_UNSEEN
    steps = [step for pair in zip(late, unseen, strict=True) for step in pair]
    held = [EventChunk(scattered(10_000, now), now + 1, 0) for _ in range(20)]
    for some in (*([one] for one in held), *(steps[at : at + 4000] for at in range(0, len(steps), 4000))):
        writer.write(FrameKind.EVENTS, now, encoder.encode(some)[0], encoder.least_stored)


@pytest.mark.parametrize("hostile", [wide_protections, late_ones])
def test_what_makes_more_work_than_its_bytes_are_worth_is_left_out_and_told(
    hostile: Callable[[FrameWriter, EventEncoder], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path / "a.rec") as writer:
        hostile(writer, EventEncoder())
    size = (tmp_path / "a.rec").stat().st_size
    done = [0]

    def bounded(more: int) -> None:
        done[0] += more
        assert done[0] < (1 << 26) + 200 * size

    exchange, copied = IntervalMap.exchange, joined

    def counted_exchange(self: IntervalMap, low: int, high: int, value: int) -> tuple[list[int], list[int]]:
        bounded(10)
        return exchange(self, low, high, value)

    def counted_copy(some: Sequence[EventBatch]) -> EventBatch:
        bounded(sum(map(len, some)))
        return copied(some)

    monkeypatch.setattr(IntervalMap, "exchange", counted_exchange)
    monkeypatch.setattr(held, "joined", counted_copy)
    report = replay_recording(str(tmp_path / "a.rec"))
    (limit,) = (limit for limit in report.limits if limit.id == "recording-too-dear")
    assert "what happened after the first" in limit.what
    assert "recording-breaks-off" not in {limit.id for limit in report.limits}


def test_growing_stacks_in_a_look_are_told_apart_in_one_pass() -> None:
    compared = [0]

    class Counted(int):
        def __eq__(self, other: object) -> bool:
            compared[0] += 1
            return int(self) == other

        __hash__ = int.__hash__

    model = MappingModel()
    stack = MAPPED | GROWSDOWN | READABLE
    model.map.reset([(at * 8192, at * 8192 + 4096, stack) for at in range(1, 1001)])
    rows: list[Row] = [(Counted(at * 8192 - 4096), at * 8192, 0, MAPPED | READABLE) for at in range(1, 1001)]
    grown, rest = comparison._stack_growth(model, rows)
    assert (len(grown), rest) == (1000, [])
    assert compared[0] < 1000


def test_many_small_batches_are_fed_together_unless_something_is_compared_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(str(tmp_path / "a.rec"))
    recorder.begin(recordings.beginning(), str, lambda: recordings.OVERHEAD)
    for at in range(5000):
        recorder.events(recordings.used_again(1000 + at), recordings.START + (1001 + at) * 1_000_000, 0)
    recorder.end(recordings.ending())
    recorder.close()
    fed: list[int] = []
    feed = TargetSession.feed

    def counted(self: TargetSession, batch: EventBatch, until: int, lost: int = 0) -> None:
        fed.append(len(batch))
        feed(self, batch, until, lost)

    monkeypatch.setattr(TargetSession, "feed", counted)
    report = replay_recording(str(tmp_path / "a.rec"))
    assert report.events is not None
    assert report.events["used"].count == sum(fed) == 5000
    assert len(fed) < 100


def test_what_the_writer_writes_is_believed_however_regular_it_is(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path / "a.rec"))
    recorder.begin(recordings.beginning(), str, lambda: recordings.OVERHEAD)
    same = np.repeat(recordings.used_again(1000), 1 << 16)
    recorder.events(same, recordings.START + 2_000_000_000, 0)
    recorder.flush()
    none = np.zeros(0, EVENT)
    for at in range(4 * MOST_STEPS):  # of which a frame has as many as there may be
        recorder.events(none, recordings.START + 3_000_000_000 + at, 0)
    recorder.end(structs.replace(recordings.ending(), limits=[Limit("some-limit", "b", "c", "")] * 20_000))
    recorder.close()
    report = replay_recording(str(tmp_path / "a.rec"))
    assert report.events is not None
    assert report.events["used"].count == len(same)
    assert len(report.limits) == 20_000
    writer = FrameWriter(str(tmp_path / "c.rec"))
    writer.begin({})
    writer.write(FrameKind.LOOK, 0, bytes(64 << 20))
    writer.close()
    (look,) = (one for one in read(tmp_path / "c.rec") if isinstance(one, Frame))
    assert look.payload() == bytes(64 << 20)


def test_looks_at_many_mappings_that_are_all_alike_are_not_too_dear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_WORK", replace(replaying._WORK, least=1 << 20))
    at = np.uint64(BASE) + np.arange(10_000, dtype=np.uint64) * np.uint64(8192)
    cover = Cover(at, at + np.uint64(4096), np.full(len(at), MAPPED | READABLE, np.int64))
    recorder = Recorder(str(tmp_path / "a.rec"))
    recorder.begin(recordings.beginning(), str, lambda: recordings.OVERHEAD)
    for number in range(1, 31):
        now = recordings.START + number * 1_000_000_000
        recorder.look(looks.look(at=now), ModelInput(now, now, now, cover, None, None), now)
        recorder.events(np.zeros(0, EVENT), now + 900_000_000, 0)
    recorder.end(recordings.ending(30.0))
    recorder.close()
    report = replay_recording(str(tmp_path / "a.rec"))
    assert report.drift is not None
    assert report.drift.looks == 30
    assert "recording-too-dear" not in {limit.id for limit in report.limits}


def test_whoever_waits_is_told_how_far_it_is_in_damaged_parts_too(tmp_path: Path) -> None:
    with writing(tmp_path / "a.rec"):
        pass
    with (tmp_path / "a.rec").open("ab") as file:
        file.write(bytes(8 << 20))
    told: list[int] = []
    with RecordingReader(str(tmp_path / "a.rec"), lambda read, size: told.append(read)) as reader:
        assert len(list(reader.contents())) == 1
    assert told == sorted(told)
    assert len(told) > 8
