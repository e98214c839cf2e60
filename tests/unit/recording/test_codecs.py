"""Columns, dataclasses, events and looks come back as they went in, and nothing else comes in."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from gomem.tracer.events.record import EVENT, MAX_STACK, EventBatch
from gomem.tracer.model.model_input import ModelInput
from gomem.tracer.recording.columns import Json, pack, unpack
from gomem.tracer.recording.contents import decode, encode
from gomem.tracer.recording.encoding import Encoder, rebuild
from gomem.tracer.recording.event_codec import FRAMES_PER_EPOCH, EventChunk, EventDecoder, EventEncoder
from gomem.tracer.recording.frames import RecordingError
from gomem.tracer.recording.snapshot_codec import TimedSnapshot, decode_look, decode_sight, encode_look, encode_sight
from gomem.tracer.recording.watching import Ending, Progress
from gomem.tracer.report import Limit, Overhead, ProbeRow
from tests.support import looks
from tests.support.recordings import used_again
from tests.support.samples.reports import growth


def same(left: object, right: object, path: str = "") -> None:
    """Assert that two values are equal to the last bit and type, arrays and dataclasses included."""
    assert type(left) is type(right), path
    if isinstance(left, np.ndarray):
        assert isinstance(right, np.ndarray)
        assert left.dtype == right.dtype, path
        assert np.array_equal(left, right), path
    elif dataclasses.is_dataclass(left):
        for field in dataclasses.fields(left):
            same(getattr(left, field.name), getattr(right, field.name), f"{path}.{field.name}")
    elif isinstance(left, msgspec.Struct):
        for name in left.__struct_fields__:
            same(getattr(left, name), getattr(right, name), f"{path}.{name}")
    elif isinstance(left, list | tuple):
        assert isinstance(right, list | tuple)
        assert len(left) == len(right), path
        for at, (one, other) in enumerate(zip(left, right, strict=True)):
            same(one, other, f"{path}[{at}]")
    else:
        assert left == right, path


KINDS = st.sampled_from(["|b1", "|u1", "<u2", "<i4", "<u8", "<i8", "<f8"])


@given(st.lists(st.tuples(KINDS, st.lists(st.integers(0, 255), max_size=40), st.booleans()), max_size=5))
def test_columns_of_every_kind_come_back(described: list[tuple[str, list[int], bool]]) -> None:
    columns = {}
    for at, (kind, numbers, rising) in enumerate(described):
        column = np.array(sorted(numbers) if rising else numbers, np.dtype(kind))
        columns[f"c{at}"] = column - np.dtype(kind).type(7) if kind == "<i8" else column
    body, found = unpack(pack({"a": [1, None, "x"]}, columns))
    assert body == {"a": [1, None, "x"]}
    assert list(found) == list(columns)
    for name, column in columns.items():
        same(column, found[name])


@pytest.mark.parametrize(
    "described",
    [
        [["c", "<u8", 1 << 40, 0]], [["c", "<u8", -1, 0]], [["c", "|O", 1, 0]], [["c", "<u8", 1.5, 0]], [["c", "<u8"]],
        [[1, "<u8", 1, 0]], [["c", "<f8", 1, 1]], [["c", "<u8", 0, 0]], {}, None, [["c", "|b1", 8, 0]],
    ],
)  # fmt: skip
def test_columns_that_lie_are_refused(described: Json) -> None:
    text = json.dumps({"columns": described, "body": {}}).encode()
    with pytest.raises(RecordingError):
        unpack(struct.pack("<I", len(text)) + text + b"\xff" * 8)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x01", struct.pack("<I", 1 << 31) + b"{}", struct.pack("<I", 2) + b"{}", struct.pack("<I", 4) + b"null",
     struct.pack("<I", 100_000) + b"[" * 100_000, struct.pack("<I", 25) + b'{"body":NaN,"columns":[]}',
     struct.pack("<I", 5000) + b"1" * 5000],
)  # fmt: skip
def test_text_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(RecordingError):
        unpack(payload)


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Outer:
    column: NDArray[np.uint64]
    inner: Inner | None
    rows: list[Inner]
    pair: tuple[int, float]
    choice: Literal["a", "b"]
    sums: dict[str, int]
    flag: bool = False


def outer(**changes: Any) -> Outer:
    rows = [Inner("y", 2), Inner("z", -3)]
    whole = Outer(np.arange(3, dtype=np.uint64), Inner("x", 1), rows, (1, 2.0), "a", {"k": 4})
    return dataclasses.replace(whole, **changes)


@pytest.mark.parametrize("value", [outer(), outer(inner=None, rows=[], flag=True), outer(rows=[Inner("y", 1 << 63)])])
def test_dataclasses_come_back(value: Outer) -> None:
    encoder = Encoder()
    body, columns = unpack(pack({"v": encoder.plain(value, "v")}, encoder.columns))
    same(rebuild(Outer, body["v"], columns), value)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("column", [1, 2]), ("column", "nothing"), ("inner", 7), ("inner", {"name": "x"}),
        ("inner", {"name": 1, "size": 1}),
        ("rows", {"name": ["a"], "size": [1, 2]}), ("rows", 1), ("rows", {"name": "x", "size": "x"}), ("pair", [1]),
        ("pair", [True, 1.0]), ("choice", "c"), ("choice", None), ("sums", []), ("sums", {"k": "4"}), ("flag", 1),
        ("sums", {"k": 1 << 64}), ("pair", [1, "nan"]),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused(field: str, wrong: Json) -> None:
    encoder = Encoder()
    plain = encoder.plain(outer(), "v")
    assert isinstance(plain, dict)
    with pytest.raises(RecordingError):
        rebuild(Outer, {**plain, field: wrong}, encoder.columns)


def test_a_field_that_an_older_file_lacks_gets_its_default() -> None:
    encoder = Encoder()
    plain = encoder.plain(outer(flag=True), "v")
    assert isinstance(plain, dict)
    del plain["flag"]
    assert rebuild(Outer, plain, encoder.columns).flag is False
    del plain["choice"]
    with pytest.raises(RecordingError, match="required field `choice`"):
        rebuild(Outer, plain, encoder.columns)


def test_a_figure_that_no_report_could_have_is_refused() -> None:
    progress = Progress(Overhead(0.5, 1 << 20, [ProbeRow("used", "runtime.sysUsed", 3)], None), 0)
    same(decode(Progress, encode(progress)), progress)
    for wrong in (
        replace(progress.overhead, tracer_cpu_seconds=-1.0),
        replace(progress.overhead, tracer_rss=-1),
        replace(progress.overhead, probes=[ProbeRow("used", "runtime.sysUsed", -3)]),
    ):
        with pytest.raises(RecordingError, match="no Progress"):
            decode(Progress, encode(Progress(wrong, 0)))


def test_a_limit_of_a_recording_from_before_limits_had_ids_is_unknown() -> None:
    whole = Ending(1.0, "2026-03-01T12:00:10.000Z", Overhead(0.5, 1, [], None), 0, [Limit("some-limit", "b", "c", "")])
    body, columns = unpack(encode(whole))
    value: Any = body["value"]
    del value["limits"]["id"]
    assert decode(Ending, pack(body, columns)).limits == [Limit("unknown", "b", "c", "")]


def test_growth_of_goroutines_comes_back_and_a_recording_from_before_it_was_kept_has_none() -> None:
    whole = Ending(1.0, "", Overhead(0.5, 1, [], None), 0, goroutine_growth=growth(9.0))
    same(decode(Ending, encode(whole)), whole)
    body, columns = unpack(encode(whole))
    value: Any = body["value"]
    del value["goroutine_growth"]
    assert decode(Ending, pack(body, columns)).goroutine_growth is None


@st.composite
def batches(draw: st.DrawFn) -> list[EventBatch]:
    """Batches of events in which every bit may be set, of which few stacks differ."""
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    stacks = random.integers(0, 2, (3, MAX_STACK)).astype(np.uint64) * random.integers(0, 2**64, MAX_STACK, np.uint64)
    made = []
    for length in draw(st.lists(st.integers(0, 20), min_size=1, max_size=4)):
        batch = np.frombuffer(random.bytes(length * EVENT.itemsize), EVENT).copy()
        batch["stack"] = stacks[random.integers(0, 3, length)]
        batch["entered"] *= random.integers(0, 2, length).astype(np.uint64)
        made.append(batch)
    return made


@given(st.lists(batches(), min_size=1, max_size=4))
@settings(deadline=None)
def test_events_come_back_to_the_bit(frames: list[list[EventBatch]]) -> None:
    encoder, decoder = EventEncoder(), EventDecoder()
    for number, made in enumerate(frames):
        steps = [EventChunk(batch, 10 * number + at, number) for at, batch in enumerate(made)]
        payload, addresses = encoder.encode(steps)
        found = decoder.decode(payload)
        assert [(step.until, step.lost) for step in found] == [(step.until, step.lost) for step in steps]
        for before, after in zip(steps, found, strict=True):
            assert before.batch.tobytes() == after.batch.tobytes()
        assert set(addresses) <= set(np.concatenate(made)["stack"].reshape(-1).tolist())
    assert decoder.stacks_lost == 0


def test_stacks_that_hash_alike_are_kept_apart() -> None:
    encoder, decoder = EventEncoder(), EventDecoder()
    encoder._multipliers = np.zeros(MAX_STACK, np.uint64)  # the worst hash there is
    batch = np.zeros(50, EVENT)
    batch["stack"][:, 0] = np.arange(50) // 2
    (step,) = decoder.decode(encoder.encode([EventChunk(batch, 1, 0)])[0])
    assert step.batch.tobytes() == batch.tobytes()


def with_stack(number: int) -> list[EventChunk]:
    batch = used_again(number)
    batch["stack"][0, 0] = 0x500000 + number
    return [EventChunk(batch, 1, 0)]


def test_a_lost_frame_costs_stacks_until_the_next_epoch_and_no_event() -> None:
    encoder, decoder = EventEncoder(), EventDecoder()
    lost, _ = encoder.encode(with_stack(1))
    for number in range(2, FRAMES_PER_EPOCH + 3):
        payload, _ = encoder.encode([*with_stack(1), *with_stack(number)])
        first, second = decoder.decode(payload)
        assert second.batch.tobytes() == with_stack(number)[0].batch.tobytes()
        gone = number <= FRAMES_PER_EPOCH
        assert int(first.batch["depth"][0]) == (0 if gone else 4)
        assert first.batch["args"].tobytes() == with_stack(1)[0].batch["args"].tobytes()
    assert decoder.stacks_lost == FRAMES_PER_EPOCH - 1
    assert lost


def test_an_event_takes_a_few_bytes() -> None:
    encoder = EventEncoder()
    steps = [EventChunk(used_again(number, first=number % 400), 1, 0) for number in range(1000)]
    payload, _ = encoder.encode(steps)
    # Of the 220 that it has in memory. Each of these comes in a batch of its own, which costs most of it.
    assert len(zstandard.ZstdCompressor(level=3).compress(payload)) / 1000 < 4


def test_a_look_comes_back_to_the_bit() -> None:
    timed = TimedSnapshot(looks.look(), 77)
    same(decode_look(encode_look(timed)), timed)
    model_input = ModelInput.of(timed.look)
    same(decode_sight(encode_sight(model_input)), model_input)


def spoilt(name: str, value: NDArray[np.generic] | Json) -> bytes:
    """Return a look's payload in which one column, or one value of the body, is another."""
    body, columns = unpack(encode_look(TimedSnapshot(looks.look(), 77)))
    if isinstance(value, np.ndarray):
        assert name in columns, sorted(columns)
        columns[name] = value
        return pack(body, columns)
    *path, last = name.split(".")
    place: Json = body
    for part in path:
        assert isinstance(place, dict)
        place = place[part]
    assert isinstance(place, dict)
    assert last in place, sorted(place)
    place[last] = value
    return pack(body, columns)


def column(name: str) -> NDArray[np.generic]:
    return unpack(encode_look(TimedSnapshot(looks.look(), 77)))[1][name]


def raised(name: str, by: int) -> NDArray[np.generic]:
    whole: NDArray[np.generic] = np.add(column(name), by, dtype=column(name).dtype)
    return whole


SPOILT: dict[str, Callable[[], tuple[str, Any]]] = {
    "mappings that overlap": lambda: ("look.kernel.mappings.end", raised("look.kernel.mappings.end", 1 << 30)),
    "a short column": lambda: ("look.kernel.mappings.inode", column("look.kernel.mappings.inode")[1:]),
    "another dtype": lambda: ("look.kernel.mappings.inode", column("look.kernel.mappings.inode").astype(np.int64)),
    "more resident than there is": lambda: (
        "look.kernel.residency.rss", raised("look.kernel.residency.rss", 1 << 40)),
    "a kind that is none": lambda: ("look.space.kind", raised("look.space.kind", 11)),
    "a negative kind": lambda: ("look.space.kind", raised("look.space.kind", -20)),
    "a state that is none": lambda: ("look.space.state", raised("look.space.state", 4)),
    "an arena that is none": lambda: ("look.space.arena", raised("look.space.arena", 1)),
    "a mapping that is none": lambda: ("look.space.mapping", raised("look.space.mapping", 100)),
    "pages of no chunk": lambda: ("look.runtime.pages.state", column("look.runtime.pages.state")[:-1]),
    "a page state that is none": lambda: ("look.runtime.pages.state", raised("look.runtime.pages.state", 5)),
    "a chunk outside": lambda: (
        "look.runtime.pages.chunk_base", raised("look.runtime.pages.chunk_base", 1 << 60)),
    "a region outside": lambda: ("look.runtime.regions.start", raised("look.runtime.regions.start", 1 << 60)),
    "a span of no state": lambda: ("look.runtime.spans.state", raised("look.runtime.spans.state", 9)),
    "no goal": lambda: ("look.runtime.memstats.NextGC", None),
    "a figure that is a word": lambda: ("look.runtime.memstats.Sys", "much"),
    "sizes that are none": lambda: ("look.runtime.memstats.BySize", [[1, 2]]),
    "a cycle before all time": lambda: ("look.runtime.pace.since_last_cycle", 1e300),
    "a pace of the past": lambda: ("look.runtime.pace.last_mark", -1.0),
    "a phase that is none": lambda: ("look.runtime.collector.phase", "lunch"),
    "runs of free pages that no heap has": lambda: (
        "look.runtime.free_runs.pages", raised("look.runtime.free_runs.pages", 1 << 40)),
    "runs of a length that no heap has": lambda: (
        "look.runtime.free_runs.runs", np.zeros(60, np.int64)),
    "a run that is longer than a heap": lambda: ("look.runtime.free_runs.longest", 1 << 50),
    "a large object outside": lambda: ("look.runtime.largest.size", raised("look.runtime.largest.size", 1 << 60)),
    "more empty pages than were looked at": lambda: (
        "look.runtime.largest.zeros", raised("look.runtime.largest.zeros", 1)),
    "no size classes": lambda: ("look.runtime.class_to_size", []),
    "a time that is none": lambda: ("ended", 1 << 63),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_look_that_breaks_a_rule_is_refused(case: str) -> None:
    with pytest.raises(RecordingError):
        decode_look(spoilt(*SPOILT[case]()))


def test_limits_are_rows() -> None:
    found = decode_look(encode_look(TimedSnapshot(looks.look(), 77))).look.limits
    assert found == (Limit("some-limit", "a thing", "a reason", ""),)
