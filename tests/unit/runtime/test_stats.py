from __future__ import annotations

import numpy as np
import pytest

from gomem.tracer.errors import SnapshotError
from gomem.tracer.report import JsonObject
from gomem.tracer.runtime.stats import Unflushed, heap_goal, heap_stats, mem_stats, memory_limit
from tests.support.runtime_image import RuntimeImage

MB = 1 << 20
NO_LIMIT = (1 << 63) - 1
RELEASES = ["1.19.8", "1.22.10", "1.27.3"]


def unflushed(tiny: int = 0, **small: int) -> Unflushed:
    counts = np.zeros(68, np.int64)
    for name, value in small.items():
        counts[int(name.removeprefix("c"))] = value
    return Unflushed(tiny, counts)


def stats_of(runtime: RuntimeImage, pending: Unflushed) -> JsonObject:
    memstats = runtime.record("memstats")
    stats = heap_stats(memstats)
    return mem_stats(stats, pending, memstats, runtime.record("mheap_"), runtime.record("gcController"))


@pytest.mark.parametrize("release", RELEASES)
def test_the_three_deltas_are_summed_also_where_one_alone_is_negative(release: str) -> None:
    runtime = RuntimeImage(release)
    runtime.delta(0, committed=10 * MB, inHeap=-MB, tinyAllocCount=5)
    runtime.delta(1, committed=-2 * MB, inHeap=4 * MB, released=3 * MB)
    runtime.delta(2, inStacks=MB, inWorkBufs=2 * MB)
    runtime.by_class(0, "smallAllocCount", 67, 11)
    runtime.by_class(2, "smallAllocCount", 67, -1)
    stats = heap_stats(runtime.record("memstats"))
    assert (stats.committed, stats.in_heap, stats.released) == (8 * MB, 3 * MB, 3 * MB)
    assert (stats.in_stacks, stats.in_work_bufs, stats.tiny_allocs) == (MB, 2 * MB, 5)
    assert stats.free == 8 * MB - 3 * MB - MB - 2 * MB
    assert stats.small_allocs.tolist() == [*[0] * 67, 10]


def test_unrolled_gc_programs_count_with_the_work_buffers() -> None:
    runtime = RuntimeImage("1.22.10")
    runtime.delta(0, committed=3 * MB, inWorkBufs=MB, inPtrScalarBits=MB)
    assert heap_stats(runtime.record("memstats")).in_work_bufs == 2 * MB


@pytest.mark.parametrize("release", RELEASES)
def test_memstats_are_what_readmemstats_computes(release: str) -> None:
    # By hand, with the formulas of readmemstats_m in runtime/mstats.go.
    runtime = RuntimeImage(release)
    runtime.delta(0, committed=20 * MB, released=6 * MB, inHeap=12 * MB, inStacks=2 * MB, inWorkBufs=MB)
    runtime.delta(1, largeAlloc=5 * MB, largeAllocCount=3, largeFree=2 * MB, largeFreeCount=1, tinyAllocCount=100)
    for field, size_class, count in (("smallAllocCount", 2, 50), ("smallAllocCount", 5, 7), ("smallFreeCount", 5, 4)):
        runtime.by_class(0, field, size_class, count)
    for number, name in enumerate(("stacks_sys", "mspan_sys", "mcache_sys", "buckhash_sys", "gcMiscSys", "other_sys")):
        runtime.set("mstats", runtime.globals["memstats"], name, 1000 << number)
    for name, value in (("last_gc_unix", 17), ("pause_total_ns", 18), ("numgc", 19), ("numforcedgc", 4)):
        runtime.set("mstats", runtime.globals["memstats"], name, value)
    runtime.set("mheap", runtime.globals["mheap_"], "spanalloc.inuse", 160)
    runtime.set("mheap", runtime.globals["mheap_"], "cachealloc.inuse", 2400)
    runtime.controller(gcPercentHeapGoal=4 * MB)
    got = stats_of(runtime, unflushed(tiny=10, c5=2))
    total = 5 * MB + 50 * 16 + (7 + 2) * 48
    freed = 2 * MB + 4 * 48
    assert got == {
        "Alloc": total - freed, "TotalAlloc": total, "HeapAlloc": total - freed,
        "Mallocs": 3 + 50 + 9 + 110, "Frees": 1 + 4 + 110, "HeapObjects": 57,
        "HeapSys": 12 * MB + 5 * MB + 6 * MB, "HeapIdle": 11 * MB, "HeapInuse": 12 * MB, "HeapReleased": 6 * MB,
        "StackInuse": 2 * MB, "StackSys": 2 * MB + 1000, "MSpanInuse": 160, "MSpanSys": 2000,
        "MCacheInuse": 2400, "MCacheSys": 4000, "BuckHashSys": 8000, "GCSys": 16000 + MB, "OtherSys": 32000,
        "Sys": 23 * MB + 2 * MB + MB + 63000,
        "NextGC": 4 * MB, "LastGC": 17, "PauseTotalNs": 18, "NumGC": 19, "NumForcedGC": 4,
        "BySize": [[size, {2: 50, 5: 9}.get(c, 0), 4 if c == 5 else 0]
                   for c, size in enumerate(runtime.layout.constants("class_to_size")[:61])],
    }  # fmt: skip


@pytest.mark.parametrize("field", ["inHeap", "released", "largeAllocCount", "tinyAllocCount"])
@pytest.mark.parametrize("value", [-1, 1 << 62, -(1 << 63)])
def test_sums_that_no_runtime_reaches_are_refused(field: str, value: int) -> None:
    runtime = RuntimeImage()
    runtime.delta(1, committed=MB)
    runtime.delta(0, **{field: value})
    with pytest.raises(SnapshotError):
        heap_stats(runtime.record("memstats"))


def test_a_sum_that_wraps_around_into_something_plausible_is_refused() -> None:
    runtime = RuntimeImage()
    for number in range(2):
        runtime.delta(number, committed=-(1 << 63))
    with pytest.raises(SnapshotError):
        heap_stats(runtime.record("memstats"))


def test_more_in_use_than_committed_is_refused() -> None:
    runtime = RuntimeImage()
    runtime.delta(0, committed=MB, inHeap=MB, inStacks=1)
    with pytest.raises(SnapshotError):
        heap_stats(runtime.record("memstats"))


def test_without_a_memory_limit_the_goal_is_gogcs() -> None:
    runtime = RuntimeImage()
    controller = runtime.controller(gcPercentHeapGoal=10 * MB)
    assert heap_goal(controller, 5 * MB, 0) == 10 * MB
    assert memory_limit(controller) is None


@pytest.mark.parametrize(("release", "percent"), [("1.19.8", 0), ("1.27.3", 3)])
def test_gogc_off_without_a_limit_has_the_goal_of_the_largest_limit(release: str, percent: int) -> None:
    controller = RuntimeImage(release).controller(gcPercentHeapGoal=(1 << 64) - 1, mappedReady=8 * MB)
    left = NO_LIMIT - 3 * MB
    assert heap_goal(controller, 5 * MB, 0) == left - max(MB, left // 100 * percent)


def test_the_goal_is_never_below_where_sweeping_or_the_cycle_began() -> None:
    runtime = RuntimeImage()
    controller = runtime.controller(gcPercentHeapGoal=10 * MB, sweepDistMinTrigger=12 * MB)
    assert heap_goal(controller, 0, 0) == 12 * MB
    controller = runtime.controller(triggered=12 * MB)  # minRunway is 64 KB
    assert heap_goal(controller, 0, 0) == 12 * MB + (64 << 10)


def limit_goal(runtime: RuntimeImage, **fields: int) -> int:
    controller = runtime.controller(gcPercentHeapGoal=1 << 40, **fields)
    return heap_goal(controller, heap_alloc=300 * MB, heap_free=50 * MB)


def test_a_memory_limit_leaves_the_heap_what_others_do_not_use_less_headroom() -> None:
    # memoryLimitHeapGoal: other memory is 400 - 50 - 300 = 50 MB, so 450 MB of 500 are left for the heap.
    old = RuntimeImage("1.19.8")
    assert limit_goal(old, memoryLimit=500 * MB, mappedReady=400 * MB) == 449 * MB
    new = RuntimeImage("1.27.3")
    assert limit_goal(new, memoryLimit=500 * MB, mappedReady=400 * MB) == 450 * MB - 450 * MB // 100 * 3
    assert memory_limit(new.record("gcController")) == 500 * MB


def test_above_its_limit_the_heap_must_give_back_what_is_too_much() -> None:
    runtime = RuntimeImage("1.27.3")
    # other = 600 - 50 - 300 = 250, overage = 100: goal 500 - 350 = 150 MB less 3 %
    assert limit_goal(runtime, memoryLimit=500 * MB, mappedReady=600 * MB) == 150 * MB - 150 * MB // 100 * 3


def test_other_memory_above_the_limit_leaves_the_live_heap_only() -> None:
    runtime = RuntimeImage("1.27.3")
    assert limit_goal(runtime, memoryLimit=100 * MB, mappedReady=500 * MB, heapMarked=7 * MB) == 7 * MB


def test_headroom_is_at_least_1_mb_and_the_goal_at_least_the_headroom_and_the_live_heap() -> None:
    runtime = RuntimeImage("1.27.3")
    # of 20 MB 3 % are less than 1 MB
    assert tight_goal(runtime, left=20 * MB) == 19 * MB
    # less than two headrooms are left, or than one
    assert tight_goal(runtime, left=3 * MB // 2) == MB
    assert tight_goal(runtime, left=1) == MB
    assert tight_goal(runtime, left=1, heapMarked=9 * MB) == 9 * MB


def tight_goal(runtime: RuntimeImage, left: int, **fields: int) -> int:
    limits = {"memoryLimit": 400 * MB + left, "mappedReady": 400 * MB}
    return heap_goal(runtime.controller(gcPercentHeapGoal=1 << 40, **limits, **fields), heap_alloc=0, heap_free=0)


def test_gogc_wins_while_it_asks_for_less_than_the_limit_allows() -> None:
    controller = RuntimeImage().controller(gcPercentHeapGoal=8 * MB, memoryLimit=500 * MB, mappedReady=400 * MB)
    assert heap_goal(controller, 300 * MB, 50 * MB) == 8 * MB
