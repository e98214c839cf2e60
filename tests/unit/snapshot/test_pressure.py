"""What the collector costs, by watched cycles and by what the runtime keeps of them."""

from __future__ import annotations

import pytest
from msgspec import structs
from msgspec.structs import replace

from gomem.tracer.report import EventCount, GcCycleRow, JsonObject, Scavenger
from gomem.tracer.report.findings.scavenger import fate_of_free_heap
from gomem.tracer.runtime.pace import Limiter, Pace, Scavenging
from gomem.tracer.snapshot.pressure import collector_work, scavenger
from tests.support.samples.reports import MB, grown_and_scavenged

PACE = Pace(20, 10.0, 0.1, 0.5, 0.02, 2, Limiter(False, 0.25, 7))


def cycle(started: float | None, ended: float | None) -> GcCycleRow:
    return GcCycleRow(started, ended, None, None, None)


def test_watched_cycles_tell_the_share_of_the_time_that_they_marked() -> None:
    work = collector_work(PACE, "off", [cycle(None, 0.5), cycle(2.0, 3.0), cycle(9.5, None)], 10.0)
    assert work is not None
    assert (work.basis, work.seconds, work.cycles) == ("watched", 10.0, 3)
    assert work.cycles_per_second == pytest.approx(0.3)
    assert work.mark_share == pytest.approx(0.2)
    assert work.cpu_limiter is not None
    assert (work.cpu_share, work.cpu_limiter.fill, work.cpu_limiter.last_cycle) == (0.02, 0.25, 7)


def test_of_a_long_watch_only_the_last_minute_counts() -> None:
    early = [cycle(at, at + 0.9) for at in range(100)]
    work = collector_work(PACE, "off", [*early, cycle(950.0, 953.0)], 1000.0)
    assert work is not None
    assert (work.seconds, work.cycles) == (60.0, 1)
    assert work.mark_share == pytest.approx(0.05)


def test_where_only_the_last_cycles_are_kept_the_stretch_begins_with_them() -> None:
    kept = [cycle(990 + at / 100, 990 + at / 100 + 0.005) for at in range(1000)]
    work = collector_work(PACE, "off", kept, 1000.0)
    assert work is not None
    assert work.seconds == pytest.approx(10.0)
    assert work.cycles_per_second == pytest.approx(100)
    assert work.mark_share == pytest.approx(0.5)


def test_without_events_the_last_cycle_stands_for_those_that_the_runtime_remembers() -> None:
    work = collector_work(PACE, "off", None, 0.0)
    assert work is not None
    assert (work.basis, work.seconds, work.cycles, work.cycles_per_second) == ("runtime", 10.0, 20, 2.0)
    assert work.mark_share == pytest.approx(0.2)
    marking = collector_work(PACE, "mark", None, 0.0)
    assert marking is not None
    assert marking.mark_share is None


def test_a_program_that_never_collected_has_no_rate() -> None:
    work = collector_work(Pace(0, None, None, None, 0.0, 2), "off", None, 0.0)
    assert work is not None
    assert (work.cycles_per_second, work.mark_share, work.cpu_limiter) == (None, None, None)


MEMSTATS: JsonObject = {
    "Sys": 600 * MB, "HeapAlloc": 95 * MB, "HeapInuse": 100 * MB, "HeapIdle": 420 * MB, "HeapReleased": 20 * MB,
    "StackSys": MB, "BuckHashSys": 0, "MSpanSys": 0, "MCacheSys": 0, "GCSys": 0, "OtherSys": 0, "NextGC": 200 * MB,
}  # fmt: skip
AT_WORK = Scavenging(110 * MB, None, 100 * MB, 200 * MB, 380 * MB, True, 5000.0 * MB)


def coming(
    found: Scavenging, *, gc_percent: int = 100, ready: int = 580 * MB, background: EventCount | None = None
) -> Scavenger:
    pace = replace(PACE, scavenging=found)
    report = scavenger(pace, MEMSTATS, ready, gc_percent, background, 10.0 if background else 0.0)
    assert report is not None
    return report


def words(found: Scavenger | None) -> tuple[str, str]:
    heap = grown_and_scavenged().heap
    assert heap is not None
    return fate_of_free_heap(structs.replace(heap, pages=structs.replace(heap.pages, free=400 * MB), scavenger=found))


def test_what_is_above_the_goal_comes_back_at_the_rate_that_the_scavenger_may_have() -> None:
    seen = coming(AT_WORK)
    assert (seen.retained, seen.goal_bytes, seen.active) == (500 * MB, 110 * MB, True)
    assert seen.will_return == 380 * MB, "no more than it would take"
    assert seen.will_return_seconds == pytest.approx(380 / (5000 * 0.01 * 2) + 2)
    assert "will return 380 MiB of it within about 6 s" in words(seen)[0]
    watched = coming(AT_WORK, background=EventCount(40, 190 * MB))
    assert watched.basis == "watched"
    assert watched.will_return_seconds == pytest.approx(22.0)
    unknown = coming(replace(AT_WORK, bytes_per_second_of_work=None))
    assert (unknown.basis, unknown.will_return_seconds) == (None, None)
    assert "at up to 1 % of the CPU" in words(unknown)[0]


def test_what_passes_the_memory_limit_comes_back_as_well() -> None:
    seen = coming(replace(AT_WORK, percent_goal=None, limit_goal=500 * MB))
    assert (seen.will_return, seen.limit_goal_bytes) == (80 * MB, 500 * MB)


def test_below_the_goal_nothing_comes_and_the_goal_is_named() -> None:
    seen = coming(replace(AT_WORK, percent_goal=None, last_heap_in_use=500 * MB, last_heap_goal=200 * MB))
    assert (seen.active, seen.will_return, seen.will_return_seconds) == (False, 0, None)
    assert seen.goal_bytes == 550 * MB
    assert seen.after_next_collection == 390 * MB
    said, action = words(seen)
    assert "will be kept: heap in use and free is 500 MiB" in said
    assert "goal of 550 MiB" in said
    assert "about 390 MiB of it will then be returned" in said
    assert "Wait," not in action


def test_what_the_scavenger_leaves_alone_is_kept() -> None:
    said, action = words(coming(replace(AT_WORK, eligible=MB)))
    assert "leaves regions of 4 MiB alone" in said
    assert "Wait," not in action


def test_without_collections_no_new_goal_comes() -> None:
    seen = coming(replace(AT_WORK, percent_goal=None, last_heap_goal=None), gc_percent=-1)
    assert (seen.goal_bytes, seen.next_collection_seconds, seen.after_next_collection) == (None, None, None)
    assert "GOGC is off" in words(seen)[0]


def test_of_a_release_that_tells_nothing_nothing_is_foretold() -> None:
    assert scavenger(PACE, MEMSTATS, None, 100, None, 0.0) is None
    said, action = words(None)
    assert "could not be read" in said
    assert "Wait" not in action
