"""Rules on GOMEMLIMIT: what stands at it or grows towards it, and what the collector is measured to pay for that."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from gomem.tracer.report import CollectorWork, Finding, LimitUse, Report, Severity, stat
from gomem.tracer.report.findings.base import NOTEWORTHY, Evidence, memory_limit, mib, profile_command
from gomem.tracer.report.findings.growth import LASTING, goes_on

LIMIT_NEAR: Final = 0.90  # of GOMEMLIMIT: the collector works for it; its goal is 3 % under it
THRASHES: Final = 0.75  # of the time marking
CHEAP: Final = 0.25  # of the time marking: at the most an eighth of the CPU time, as marking takes a quarter to a half
LIMITER_FULL: Final = 0.5  # of the limiter's bucket: the collector takes more of the CPU than the program does
RECENT_CYCLES: Final = 2  # the limiter's last cycle is that of now if it is one of these,
AHEAD: Final = 60.0  # times as long as it was watched: what comes later is not foretold
RECENT_SECONDS: Final = 10.0  # and it is not long ago: an idle program does not tell the limiter that it is

_PARTS: Final = {
    "live": "the live heap",
    "holes": "holes between objects",
    "stacks": "goroutine stacks",
    "metadata": "the runtime's own records",
    "profile_buckets": "records of the memory profile",
}


def near_gomemlimit(report: Report) -> Finding | None:
    """Say that the memory that the runtime owns is close to GOMEMLIMIT, what it is, and what the collector pays."""
    heap, limit = report.heap, memory_limit(report.heap)
    if heap is None or limit is None or heap.limit_use is None or heap.limit_use.total < LIMIT_NEAR * limit:
        return None
    use, work = heap.limit_use, heap.collector
    firm = use.live + use.stacks + use.metadata + use.profile_buckets
    severity: Severity = "warning"
    cheap, thrashes = _is_cheap(work, _cpu_share_now(report)), _thrashes(work, stat(report, "NumGC"))
    if thrashes or (firm >= limit and not cheap):
        severity = "critical"
    elif cheap and firm < limit:
        severity = "info"
    part = _part_to_blame(use, limit, thrashes=thrashes)
    return Finding(
        id="near-gomemlimit",
        severity=severity,
        # debug.SetMemoryLimit(0) is legal.
        title=f"Go uses {mib(use.total)} of GOMEMLIMIT {mib(limit)}"
        + (f" ({use.total / limit:.0%})" if limit else "")
        + (f"; {mib(getattr(use, part))} is {_PARTS[part]}" if severity != "info" else ""),
        explanation=" ".join([_state(use, firm, limit, severity), *_cost(report)]),
        evidence=_evidence(report, use, firm, limit),
        action="Nothing to do while the collector stays cheap."
        if severity == "info"
        else _action(report, use, part, firm),
        actionable=severity != "info",
    )


def gomemlimit_ahead(report: Report) -> Finding | None:
    """Say when what no collection frees reaches GOMEMLIMIT: from then on the collector runs all the time."""
    heap, limit, courses = report.heap, memory_limit(report.heap), report.courses or {}
    course = courses.get("not_garbage")
    if heap is None or heap.limit_use is None or not limit or course is None or near_gomemlimit(report) is not None:
        return None
    if course.thirds[2].median - course.thirds[0].median < NOTEWORTHY or not goes_on(course.thirds):
        return None
    left = (limit - course.last) / course.per_second
    if not 0 < left <= AHEAD * course.seconds:
        return None
    slopes = {name: courses[name].per_second for name in _PARTS if name in courses and name != "holes"}
    part = max(slopes, key=slopes.__getitem__, default="live")
    return Finding(
        id="gomemlimit-ahead",
        severity="warning" if course.seconds >= LASTING else "info",
        title=f"What no collection frees will reach GOMEMLIMIT {mib(limit)} in about {_time(left)}",
        explanation=f"{mib(course.last)} are alive, stacks or the runtime's records, and {mib(course.per_second)} more "
        f"each second, most of that {_PARTS[part]}. At the limit the collector runs all the time, and takes up to half "
        "of the CPU.",
        evidence={
            "seconds_left": left,
            "not_garbage": course.last,
            "memory_limit": limit,
            "per_second": course.per_second,
            **{f"{name}_per_second": slope for name, slope in slopes.items()},
        },
        action=_action(report, heap.limit_use, part, course.last),
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _part_to_blame(use: LimitUse, limit: int, *, thrashes: bool) -> str:
    """Return the largest part; while the collector runs all the time, one that passes the limit without the heap.

    What is allocated while it marks counts as alive (work.bytesMarked in runtime/mgc.go), and may be more than what is.
    """
    sizes = {name: int(getattr(use, name)) for name in _PARTS}
    alone = {name: size for name, size in sizes.items() if name not in ("live", "holes") and size >= limit}
    among = alone if thrashes and alone else sizes
    return max(among, key=among.__getitem__)


def _thrashes(work: CollectorWork | None, cycles: int | None) -> bool:
    if work is None:
        return False
    return _limits(work, cycles) or (work.mark_share is not None and work.mark_share >= THRASHES)


def _limits(work: CollectorWork, cycles: int | None) -> bool:
    """Tell whether the runtime limits the collector's CPU time, or did so in one of its last cycles."""
    limiter = work.cpu_limiter
    if limiter is None or work.since_last_cycle is None or work.since_last_cycle > RECENT_SECONDS:
        return False
    lately = bool(limiter.last_cycle) and cycles is not None and limiter.last_cycle > cycles - RECENT_CYCLES
    return limiter.limiting or lately


def _cpu_share_now(report: Report) -> float | None:
    """Return the collector's share of the CPU time now: that since the start, at the rate of the last cycles.

    GCCPUFraction alone is of all time: hours of rest hide that the collector has run all the time since a minute.
    """
    work = report.heap.collector if report.heap else None
    cycles, lived = stat(report, "NumGC"), _seconds_lived(report)
    if work is None or work.cpu_share is None or work.cycles_per_second is None or not cycles or not lived:
        return None
    return min(work.cpu_share * max(work.cycles_per_second * lived / cycles, 1.0), 1.0)


def _seconds_lived(report: Report) -> float | None:
    try:
        began, taken = (datetime.fromisoformat(text) for text in (report.process.start_time, report.taken_at))
        return (taken - began).total_seconds()
    except (TypeError, ValueError):  # a report of a log that has no dates
        return None


def _is_cheap(work: CollectorWork | None, cpu_share: float | None) -> bool:
    if work is None:
        return False
    limiter, last = work.cpu_limiter, work.since_last_cycle
    recent = last is not None and last <= RECENT_SECONDS
    if recent and limiter is not None and limiter.fill is not None and limiter.fill >= LIMITER_FULL:
        return False
    if work.mark_share is not None:
        return work.mark_share < CHEAP
    return cpu_share is not None and cpu_share < CHEAP / 2


def _state(use: LimitUse, firm: int, limit: int, severity: Severity) -> str:
    if firm - use.live >= limit:
        return (
            f"{mib(firm - use.live)} of it is no heap, and that alone passes the limit: no collection can bring it "
            "below, and yet each allocation asks for one."
        )
    if firm >= limit:
        return (
            f"{mib(firm)} of it is no garbage, and that alone passes the limit: no collection can bring it below, and "
            "yet each allocation asks for one."
        )
    if severity == "info":
        return f"{mib(use.garbage + use.retained)} of it is garbage and free heap, which a collection or reuse clears."
    return (
        f"{mib(firm)} of it is no garbage, which leaves {mib(limit - firm)} for new objects until the next collection."
    )


def _cost(report: Report) -> list[str]:
    """Return sentences on what the collector was measured to cost."""
    work, cycles = report.heap.collector if report.heap else None, stat(report, "NumGC")
    cpu = _cpu_share_now(report)
    if work is None:
        return []
    said = []
    if work.seconds is not None and work.cycles_per_second is not None:
        share = "" if work.mark_share is None else f", marking for {_percent(work.mark_share)} of the time"
        if work.mark_share is None and cpu is not None:
            share = f", for about {_percent(cpu)} of the CPU time if each costs what they did on average"
        said.append(
            f"In the last {work.seconds:.1f} s the collector ran {work.cycles} times "
            f"({work.cycles_per_second:.1f} a second){share}."
        )
    if _limits(work, cycles):
        said.append("It takes so much CPU time that the runtime limits it, and lets the heap pass GOMEMLIMIT instead.")
    return said


def _percent(share: float) -> str:
    return "less than 1%" if 0 < share < 0.005 else f"{share:.0%}"


def _action(report: Report, use: LimitUse, part: str, firm: int) -> str:
    raise_it = f"Raise GOMEMLIMIT well above {mib(firm + use.holes)}"
    if part == "stacks":
        scheduler = report.structure.scheduler if report.structure else None
        whose = f"{scheduler.goroutines:,} goroutines have" if scheduler else "goroutines have"
        return (
            f"Run fewer goroutines, or shallower ones: {whose} {mib(use.stacks)} of stacks, which no collection frees "
            f"({_goroutines(report)}). {raise_it} otherwise."
        )
    if part == "live":
        return f"{raise_it}, or find what holds the {mib(use.live)} that are alive ({_profile(report)})."
    if part == "holes":
        return f"{raise_it}, or find the long-lived objects that hold spans which are mostly empty."
    if part == "profile_buckets":
        return f"{raise_it}, or profile fewer call stacks (runtime.MemProfileRate, SetBlockProfileRate)."
    return f"{raise_it}. The runtime's records grew with the largest heap that was; a restart returns them."


def _goroutines(report: Report) -> str:
    command = profile_command(report)
    if command is None:
        return "a goroutine profile shows what they wait for"
    return f"`{command} --kind goroutine`, where this report was taken, shows what they wait for"


def _profile(report: Report) -> str:
    command = profile_command(report)
    if command is None:
        return "heap profile"
    return f"`{command}`, where this report was taken, shows it by call stack, or why the program keeps no heap profile"


def _evidence(report: Report, use: LimitUse, firm: int, limit: int) -> Evidence:
    assert report.heap is not None
    work = report.heap.collector
    limiter = work.cpu_limiter if work else None
    scheduler = report.structure.scheduler if report.structure else None
    return {
        "sys_minus_released": use.total,
        "memory_limit": limit,
        "over_limit": max(use.total - limit, 0),
        "not_garbage": firm,
        **{name: getattr(use, name) for name in ("live", "garbage", "holes", "stacks", "retained", "metadata")},
        "profile_buckets": use.profile_buckets,
        "goroutines": scheduler.goroutines if scheduler else None,
        "num_gc": stat(report, "NumGC"),
        "cycles_per_second": work.cycles_per_second if work else None,
        "mark_share": work.mark_share if work else None,
        "cpu_share": work.cpu_share if work else None,
        "cpu_share_now": _cpu_share_now(report),
        "limiter_last_cycle": limiter.last_cycle if limiter else None,
    }
