from __future__ import annotations

import pytest

from gomem.tracer.errors import LayoutError, SnapshotError, TargetGone
from gomem.tracer.runtime import snapshot as snapshot_module
from gomem.tracer.runtime.pages import PageState
from gomem.tracer.runtime.snapshot import HOPELESS, RuntimeReader
from gomem.tracer.runtime.spans import MANUAL
from tests.support.image import Image
from tests.support.runtime_image import ARENA, CHUNK, PAGE, RuntimeImage

RELEASES = ["1.19.8", "1.21.13", "1.24.11", "1.27.3"]


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "REST", 0)


def small(release: str = "1.27.3") -> RuntimeImage:
    """One chunk: 3 pages in use, a stack of 4, a work buffer of 4, 2 in a page cache, 5 scavenged."""
    runtime = RuntimeImage(release)
    runtime.arenas(ARENA)
    runtime.grow(ARENA, [range(13)], [range(20, 25)])
    cached = runtime.span(ARENA, 1, objects=5, before=2)
    runtime.span(ARENA + PAGE, 2, span_class=1, size=2 * PAGE, capacity=1, objects=1)
    runtime.span(ARENA + 3 * PAGE, 4, MANUAL, 0, 0, 0)
    work = runtime.span(ARENA + 7 * PAGE, 4, MANUAL, 0, 0, 0)
    runtime.image.words(runtime.globals["work"] + runtime.layout.offset("work", "wbufSpans.busy.first"), work)
    runtime.p(cached, cache=(ARENA, 3 << 11, 0), tiny=1)
    free = (512 - 11 - 5) * PAGE
    manual = {"inStacks": 4 * PAGE, "inWorkBufs": 4 * PAGE}
    runtime.delta(0, committed=11 * PAGE + free, inHeap=3 * PAGE, released=5 * PAGE, **manual)
    runtime.delta(1, largeAlloc=2 * PAGE, largeAllocCount=1)
    runtime.controller(gcPercent=100, heapMarked=1234, mappedReady=CHUNK)
    return runtime.finish()


@pytest.mark.parametrize("release", RELEASES)
def test_a_heap_whose_parts_agree_is_exact_at_once(release: str) -> None:
    seen = small(release).reader().snapshot()
    assert (seen.consistency.exact, seen.consistency.attempts, seen.consistency.skew_bytes) == (True, 1, 0)
    assert [seen.pages.bytes_of(state) // PAGE for state in PageState] == [3, 4, 4, 496, 5]
    assert seen.memstats["HeapInuse"] == 3 * PAGE
    assert seen.memstats["HeapAlloc"] == 2 * PAGE + 3 * 48
    assert seen.memstats["Mallocs"] == 1 + 3 + 1
    assert (seen.collector.live, seen.collector.gc_percent, seen.collector.phase) == (1234, 100, "off")
    assert (seen.collector.memory_limit, seen.collector.mapped_ready) == (None, CHUNK)
    assert [line for line in seen.missed if "sched" not in line] == []


def test_a_contradiction_is_stated_in_bytes_after_every_attempt() -> None:
    runtime = small()
    runtime.delta(2, inHeap=PAGE, committed=PAGE)
    consistency = runtime.reader().snapshot(attempts=4).consistency
    # heapStats has a page more than both the bitmaps and the spans
    assert (consistency.exact, consistency.attempts, consistency.skew_bytes) == (False, 4, 2 * PAGE)


def test_a_work_buffer_that_changes_lists_meanwhile_and_looks_like_a_stack_is_a_contradiction() -> None:
    runtime = small()
    runtime.image.words(runtime.globals["work"] + runtime.layout.offset("work", "wbufSpans.busy.first"), 0)
    consistency = runtime.reader().snapshot(attempts=1).consistency
    assert (consistency.exact, consistency.skew_bytes) == (False, 4 * PAGE)


def test_unrolled_gc_programs_are_on_no_list_and_no_contradiction() -> None:
    runtime = small("1.21.13")
    runtime.grow(ARENA + CHUNK, [[0]], [[]])
    runtime.span(ARENA + CHUNK, 1, MANUAL, 0, 0, 0)
    runtime.delta(2, inPtrScalarBits=PAGE, committed=CHUNK)
    assert runtime.finish().reader().snapshot().consistency.exact


def test_a_slow_heap_gets_a_second_chance_and_no_third() -> None:
    runtime = small()
    runtime.delta(2, inHeap=PAGE, committed=PAGE)
    assert runtime.reader().snapshot(patience=0).consistency.attempts == 2


class Moving(Image):
    """Memory of which the word at `address` counts down by a page each time that it is read, until it is right."""

    def __init__(self, image: Image, address: int, steps: int) -> None:
        super().__init__(image.pages)
        self.address, self.steps = address, steps

    def read(self, address: int, size: int) -> bytes:
        raw = super().read(address, size)
        if self.steps and address <= self.address < address + size:
            self.steps -= 1
            value = int.from_bytes(super().read(self.address, 8), "little")
            self.words(self.address, value - PAGE)
        return raw


def in_heap(runtime: RuntimeImage) -> int:
    at = runtime.globals["memstats"] + runtime.layout.offset("mstats", "heapStats.stats")
    return at + runtime.layout.offset("heapStatsDelta", "inHeap")


def test_a_heap_that_comes_to_rest_is_read_until_it_has() -> None:
    runtime = small()
    runtime.delta(0, inHeap=6 * PAGE)
    image = Moving(runtime.image, in_heap(runtime), 3)
    consistency = RuntimeReader(image, runtime.layout, runtime.globals).snapshot().consistency
    assert (consistency.exact, consistency.attempts) == (True, 4)


def test_the_attempt_that_agrees_best_is_kept() -> None:
    runtime = small()
    # 2 pages too many, then 1, none, 1 too few and so on: but the third attempt is not made
    runtime.delta(0, inHeap=5 * PAGE)
    image = Moving(runtime.image, in_heap(runtime), 10)
    seen = RuntimeReader(image, runtime.layout, runtime.globals).snapshot(attempts=2)
    assert (seen.memstats["HeapInuse"], seen.consistency.skew_bytes > 0) == (4 * PAGE, True)


def test_a_heap_that_cannot_be_decoded_is_given_up_soon() -> None:
    runtime = small()
    runtime.set("mspan", runtime.spans[0], "state", 9)
    before = runtime.image.bytes_read
    with pytest.raises(SnapshotError, match="mspan"):
        runtime.reader().snapshot(attempts=1)
    once = runtime.image.bytes_read - before
    with pytest.raises(SnapshotError, match="mspan"):
        runtime.reader().snapshot()
    assert runtime.image.bytes_read - before - once == HOPELESS * once


def test_a_target_that_ends_is_not_read_again() -> None:
    class Ending(Image):
        reads = 0

        def read(self, address: int, size: int) -> bytes:
            self.reads += 1
            raise TargetGone("process 1 has exited")

    runtime = small()
    ending = Ending()
    with pytest.raises(TargetGone):
        RuntimeReader(ending, runtime.layout, runtime.globals).snapshot()
    assert ending.reads == 1


def test_without_the_work_global_work_buffers_count_as_stacks_and_that_is_said() -> None:
    runtime = small()
    del runtime.globals["work"]
    seen = runtime.reader().snapshot()
    assert seen.pages.bytes_of(PageState.STACK) == 8 * PAGE
    assert (seen.consistency.exact, any("count as stacks" in line for line in seen.missed)) == (True, True)


@pytest.mark.parametrize("name", ["mheap_", "memstats", "gcController", "allp"])
def test_without_a_required_global_there_is_no_reader(name: str) -> None:
    runtime = small()
    del runtime.globals[name]
    with pytest.raises(LayoutError, match=name):
        runtime.reader()


@pytest.mark.parametrize(("value", "phase"), [(0, "off"), (1, "mark"), (2, "mark termination"), (3, None), (-1, None)])
def test_the_phase_is_the_collectors_or_unknown(value: int, phase: str | None) -> None:
    runtime = small()
    runtime.image.words(runtime.globals["gcphase"], value)
    assert runtime.reader().snapshot().collector.phase == phase
    del runtime.globals["gcphase"]
    assert runtime.reader().snapshot().collector.phase is None


def test_gogc_off_and_a_limit_are_read_as_they_are_set() -> None:
    runtime = small()
    runtime.controller(gcPercent=-1, memoryLimit=1 << 30)
    collector = runtime.reader().snapshot().collector
    assert (collector.gc_percent, collector.memory_limit) == (-1, 1 << 30)
