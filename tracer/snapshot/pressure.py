"""What the collector costs, what uses GOMEMLIMIT, and what the scavenger will return: sections of the report.

Pure: figures of a look and GC cycles in, rows of the report out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec.structs import replace

from gomem.tracer.report import (
    RUNTIME_NONE,
    CollectorCpu,
    CollectorWork,
    CpuLimiter,
    EventCount,
    GcCycleRow,
    JsonObject,
    LimitUse,
    Scavenger,
)
from gomem.tracer.runtime.pace import Pace, Scavenging

RECENT: Final = 60.0  # seconds before the moment of the report whose watched cycles count


def collector_work(
    pace: Pace | None, phase: str | None, cycles: Sequence[GcCycleRow] | None, seconds: float, forced: int | None = None
) -> CollectorWork | None:
    """Return how hard the collector works: by the `cycles` watched for `seconds`, else by what the runtime keeps.

    `forced`: how many cycles the program has forced since its start.
    """
    if pace is None:
        return None
    limiter, cpu = pace.limiter, pace.cpu
    work = CollectorWork(
        "runtime",
        pace.seconds,
        pace.cycles,
        None,
        None,
        pace.cpu_share,
        pace.since_last_cycle,
        CpuLimiter(limiter.limiting, limiter.fill, limiter.last_cycle, limiter.assist_pool) if limiter else None,
        forced,
        CollectorCpu(cpu.mark_assist, cpu.mark_dedicated, cpu.mark_idle, cpu.pause, cpu.scavenge, cpu.total)
        if cpu is not None
        else None,
    )
    if cycles is not None and seconds > 0:
        stretch, count, rate, share = _watched(cycles, seconds)
        return replace(work, basis="watched", seconds=stretch, cycles=count, cycles_per_second=rate, mark_share=share)
    if pace.seconds is None or pace.seconds <= 0:
        return replace(work, seconds=None, cycles=0)
    # While it marks, nothing tells how long the whole cycle will take.
    known = pace.last_mark if phase == "off" else None
    rate = pace.cycles / pace.seconds
    return replace(work, cycles_per_second=rate, mark_share=min(known * rate, 1.0) if known is not None else None)


def _watched(cycles: Sequence[GcCycleRow], seconds: float) -> tuple[float, int, float, float]:
    """Return the stretch that counts, cycles that ended in it or go on, their rate, and the share of it they marked."""
    begin = max(seconds - RECENT, 0.0)
    first = cycles[0].started if cycles else None
    if first is not None and len(cycles) > 1 and begin > 0:
        begin = max(begin, min(first, seconds))  # only the last cycles are kept
    stretch = max(seconds - begin, 1e-9)
    marked, count = 0.0, 0
    for cycle in cycles:
        started, ended = cycle.started or 0.0, seconds if cycle.ended is None else cycle.ended
        if ended >= begin:
            count += 1
            marked += max(min(ended, seconds) - max(started, begin), 0.0)
    return stretch, count, count / stretch, min(marked / stretch, 1.0)


def scavenger(
    pace: Pace | None, memstats: JsonObject, mapped_ready: int | None, gc_percent: int | None,
    background: EventCount | None, seconds: float,
) -> Scavenger | None:  # fmt: skip
    """Return what the background scavenger is about to do; `background`: what it returned in the `seconds` watched."""
    found = pace.scavenging if pace is not None else None
    figures = {name: value for name, value in memstats.items() if isinstance(value, int)}
    if pace is None or found is None or mapped_ready is None or not figures.keys() >= _NEEDED:
        return None
    retained = figures["HeapInuse"] + figures["HeapIdle"] - figures["HeapReleased"]
    above = max(
        retained - found.percent_goal if found.percent_goal is not None else 0,
        mapped_ready - found.limit_goal if found.limit_goal is not None else 0,
        0,
    )
    will_return = min(above, found.eligible)
    rate, basis = _rate(pace, found, background, seconds)
    collects = gc_percent is not None and gc_percent >= 0 and pace.since_last_cycle is not None
    waits = max(_FORCED_BY - (pace.since_last_cycle or 0.0), 0.0) if collects else None
    return Scavenger(
        goal_bytes=found.percent_goal if found.percent_goal is not None else _computed_goal(found, figures["NextGC"]),
        limit_goal_bytes=found.limit_goal,
        retained=retained,
        active=above > 0,
        parked=found.parked,
        eligible=found.eligible,
        will_return=will_return,
        will_return_seconds=will_return / rate + _SLOW_START if rate and will_return else None,
        basis=basis if rate and will_return else None,
        next_collection_seconds=waits,
        after_next_collection=max(retained - int(figures["HeapInuse"] * _EXTRA), 0) if collects else None,
    )


def _computed_goal(found: Scavenging, goal: int) -> int | None:
    """Return what gcPaceScavenger makes of the last collection, 110 % of what the heap in use will grow to."""
    if not found.last_heap_goal or found.last_heap_in_use is None or goal >= RUNTIME_NONE:
        return None
    return int(found.last_heap_in_use * (goal / found.last_heap_goal) * _EXTRA)


def _rate(
    pace: Pace, found: Scavenging, background: EventCount | None, seconds: float
) -> tuple[float | None, Literal["watched", "since start"]]:
    """Return bytes a second, and whether they were watched or follow from the time that it may use."""
    if background is not None and background.bytes and seconds > 0:
        return background.bytes / seconds, "watched"
    if found.bytes_per_second_of_work is None:
        return None, "since start"
    return found.bytes_per_second_of_work * _CPU_SHARE * max(pace.procs, 1), "since start"


# runtime/mgcscavenge.go: retainExtraPercent, scavengePercent, and what it sleeps at first, twice, before its controller
# knows the cost: a millisecond of work in a second (minScavWorkTime, startingScavSleepRatio).
_EXTRA: Final = 1.1
_CPU_SHARE: Final = 0.01
_SLOW_START: Final = 2.0
_FORCED_BY: Final = 180.0  # seconds: forcegcperiod, two minutes, and as long as sysmon may sleep in an idle process


def limit_use(memstats: JsonObject, live: int | None, limit: int | None) -> LimitUse | None:
    """Return what GOMEMLIMIT is held against, Sys - HeapReleased, by its parts: they sum to it exactly."""
    figures = {name: value for name, value in memstats.items() if isinstance(value, int)}
    if live is None or not figures.keys() >= _NEEDED:
        return None
    alive = min(live, figures["HeapAlloc"], figures["HeapInuse"])
    garbage = min(figures["HeapAlloc"], figures["HeapInuse"]) - alive
    return LimitUse(
        limit=limit,
        total=figures["Sys"] - figures["HeapReleased"],
        live=alive,
        garbage=garbage,
        holes=figures["HeapInuse"] - alive - garbage,
        stacks=figures["StackSys"],
        retained=figures["HeapIdle"] - figures["HeapReleased"],
        metadata=sum(figures[name] for name in _METADATA),
        profile_buckets=figures["BuckHashSys"],
    )


_METADATA: Final = ("MSpanSys", "MCacheSys", "GCSys", "OtherSys")
_NEEDED: Final = {
    "Sys", "HeapAlloc", "HeapInuse", "HeapIdle", "HeapReleased", "StackSys", "BuckHashSys", *_METADATA,
}  # fmt: skip
