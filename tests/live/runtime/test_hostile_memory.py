"""Whatever a target writes into its memory, reading it ends soon, in a snapshot or in one of our own errors."""

from __future__ import annotations

import random
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gomem.exporters.json.report import render_json
from gomem.exporters.text.report import render_text
from gomem.tracer.errors import GomemError
from gomem.tracer.kernel.mapping_kinds import Program
from gomem.tracer.process.memory import ProcessMemory
from gomem.tracer.process.target import Target
from gomem.tracer.report import Overhead, ProcessFacts
from gomem.tracer.runtime.snapshot import RuntimeReader
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.snapshot.join import join
from gomem.tracer.watch.assemble import Watched, assemble
from tests.support.builds import build
from tests.support.image import PAGE, Image, Recorder
from tests.support.parked import parked
from tests.support.runtime_image import STRUCTS

SECONDS = 2.0
BYTES = 256 << 20
LIES = [
    0, 1, 2, 7, 0xFF, 0xFFFF, *(1 << bits for bits in (20, 22, 27, 31, 32, 33, 34, 40, 46, 47, 48, 56, 57, 62, 63)),
    (1 << 47) - 4096, (1 << 63) - 1, (1 << 64) - 1, (1 << 64) - 8, (1 << 64) - 8192, 0x5555555555555555,
]  # fmt: skip
FIELDS = {
    "mheap_": ("allspans", "pages.inUse.ranges", "pages.summary", "pages.scav.index.chunks", "pages.chunks", "arenas",
               "heapArenas", "allArenas", "userArenaArenas", "spanalloc.inuse"),
    "gcController": ("gcPercentHeapGoal", "memoryLimit", "mappedReady", "heapMarked", "gcPercent", "triggered",
                     "sweepDistMinTrigger"),
    "work": ("wbufSpans.free.first", "wbufSpans.busy.first", "spanSPMCs.list.obj"),
    "memstats": ("stacks_sys", "mspan_sys", "gcMiscSys"),
}  # fmt: skip
SPAN_FIELDS = ("startAddr", "npages", "state", "spanclass", "nelems", "elemsize", "next", "allocCount")


@dataclass(frozen=True, slots=True)
class Record:
    """All that one snapshot of a real process read, and the words of it that decide most."""

    image: Image
    inspector: Inspector
    globals: dict[str, int]
    look: Snapshot
    where: Program | None
    facts: ProcessFacts
    read: list[tuple[int, int]]
    hot: list[int]

    def reader(self, image: Image) -> RuntimeReader:
        assert self.inspector.program.layout is not None
        return RuntimeReader(image, self.inspector.program.layout, self.globals)


@pytest.fixture(scope="module", params=["1.19", "1.27.3"])
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    shape = {"live": 3, "goroutines": 20, "garbage": 0.5, "release": True}
    with (
        parked(build("parked", request.param), shape, env={"GOMAXPROCS": "2"}) as target,
        Target.open(target.pid) as process,
        Inspector.open(process) as inspector,
        ProcessMemory(target.pid) as memory,
    ):
        look = inspector.look()
        where = inspector._where(look.kernel)
        recorder = Recorder(memory)
        assert inspector.bias is not None
        assert inspector.program.layout is not None
        addresses = {name: at + inspector.bias for name, at in inspector.program.globals.items()}
        seen = RuntimeReader(recorder, inspector.program.layout, addresses).snapshot()
        assert seen.consistency.exact
        spans = seen.spans.address.tolist()
        record = Record(recorder.image, inspector, addresses, look, where, inspector.facts(), recorder.reads, [])
        record.hot.extend(_hot_words(record, spans[:: max(1, len(spans) // 12)]))
        yield record


def _hot_words(record: Record, spans: list[int]) -> Iterator[int]:
    layout = record.inspector.program.layout
    assert layout is not None

    def field(struct: str, base: int, name: str) -> Iterator[int]:
        if layout.has(struct, name):
            spot = layout.field(struct, name)
            yield from range(base + spot.offset & -8, base + spot.offset + min(spot.size, 120), 8)

    def word(address: int) -> int:
        return int.from_bytes(record.image.read(address, 8), "little")

    for name, fields in FIELDS.items():
        for one in fields:
            yield from field(STRUCTS[name], record.globals[name], one)
    yield from field("mstats", record.globals["memstats"], "heapStats.stats")
    for name in ("allp", "persistentChunks", "gcBitsArenas", "buckhash", "gcphase"):
        yield from range(record.globals[name], record.globals[name] + 24, 8)
    for span in spans:
        for one in SPAN_FIELDS:
            yield from field("mspan", span, one)
    p = word(word(record.globals["allp"]))
    for struct, base, one in (("p", p, "mcache"), ("p", p, "pcache")):
        yield from field(struct, base, one)
    yield from field("mcache", word(p + layout.offset("p", "mcache")), "alloc")
    mheap = record.globals["mheap_"]
    yield from range(allspans := word(mheap + layout.offset("mheap", "allspans")), allspans + 256, 8)
    yield from range(ranges := word(mheap + layout.offset("mheap", "pages.inUse.ranges")), ranges + 16, 8)


def examine(record: Record, image: Image) -> bool:
    """Read, join, assemble and render; tell whether there was a snapshot."""
    tracemalloc.start()
    began = time.thread_time()
    try:
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            try:
                seen = record.reader(image).snapshot(attempts=2)
            except GomemError:
                return False
            space = join(record.look.kernel.mappings, record.look.kernel.residency, seen, record.where)
            watched = Watched("procfs", "", 0.0, None, 0, Overhead(0.0, 0, [], None))
            report = assemble(
                record.facts, Snapshot(record.look.kernel, seen, space, ()), watched, "2026-01-01T00:00:00Z"
            )
            render_json(report)
            render_text(report)
            return True
    finally:
        assert time.thread_time() - began < SECONDS
        assert tracemalloc.get_traced_memory()[1] < BYTES
        tracemalloc.stop()


def spoil(record: Record, image: Image, chance: random.Random) -> None:
    """Change one place of an image: a bit, a word, a stretch of zeros, or a page that is gone."""
    if chance.random() < 0.8:
        at, room = chance.choice(record.hot), 8
    else:
        begin, size = chance.choice(record.read)
        at = begin + chance.randrange(max(1, size // 8)) * 8
        room = begin + size - at
    match chance.randrange(6):
        case 0:
            image.write(at, bytes([image.read(at, 1)[0] ^ 1 << chance.randrange(8)]))
        case 1:
            image.words(at, chance.choice(LIES))
        case 2:
            image.words(at, chance.choice(record.hot))
        case 3:
            image.words(at, at)
        case 4:
            image.write(at, bytes(min(room, chance.choice([8, 64, 512]))))
        case _:
            image.pages.pop(at // PAGE, None)
            image.reserve(at, 8)


def test_what_was_recorded_is_a_whole_snapshot(record: Record) -> None:
    assert record.reader(record.image).snapshot().consistency.exact
    assert examine(record, record.image.copy())


def test_hundreds_of_spoilt_images_end_in_a_snapshot_or_in_our_own_error(record: Record) -> None:
    outcomes = {True: 0, False: 0}
    for seed in range(200):
        chance = random.Random(seed)
        image = record.image.copy()
        for _ in range(chance.choice([1, 1, 1, 2, 5, 40])):
            spoil(record, image, chance)
        outcomes[examine(record, image)] += 1
    # Both ends must be reached, or the changes change nothing.
    assert min(outcomes.values()) > 20


def test_deciding_words_may_hold_any_lie(record: Record) -> None:
    chance = random.Random(1)
    for at in record.hot[::3]:
        image = record.image.copy()
        image.words(at, chance.choice(LIES))
        examine(record, image)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from(LIES) | st.integers(0, (1 << 64) - 1)),
                        min_size=1, max_size=6))  # fmt: skip
def test_any_words_at_any_deciding_place_are_survived(record: Record, changes: list[tuple[int, int]]) -> None:
    image = record.image.copy()
    for place, value in changes:
        image.words(record.hot[place % len(record.hot)], value)
    examine(record, image)
