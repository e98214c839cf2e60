"""The section on the collector: what it costs, what GOMEMLIMIT is used by, and what the scavenger is about to do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from gomem.exporters.text.page import PageStyle, flowing, section, words
from gomem.exporters.text.table import Column, Row, table
from gomem.exporters.units import UNKNOWN, number, percent, seconds, size
from gomem.tracer.report import RUNTIME_NONE, CollectorWork, Course, Report, Scavenger

_PARTS = {
    "live": "alive, as the last collection found",
    "garbage": "allocated since, or not swept yet",
    "holes": "free slots between objects",
    "stacks": "goroutine stacks",
    "retained": "free heap that is kept",
    "metadata": "the runtime's own records",
    "profile_buckets": "records of the memory profile",
}


def collector(report: Report, look: PageStyle) -> RenderableType | None:
    """Show how hard the collector works, and what uses GOMEMLIMIT if one is set."""
    heap = report.heap
    if heap is None or heap.collector is None:
        return None
    parts: list[RenderableType] = [flowing(list(_cost(heap.collector)), look)]
    if heap.scavenger is not None:
        parts.append(flowing(list(_scavenger(heap.scavenger)), look))
    use = heap.limit_use
    if use is not None and use.limit is not None and use.limit < RUNTIME_NONE:
        slopes = [Column("a second", worth=2)] if report.courses else []
        columns = (
            Column(""), Column("bytes"), Column("of the limit"), *slopes, Column("", left=True, worth=1, wraps=23),
        )  # fmt: skip
        title = f"GOMEMLIMIT {size(use.limit)}, of which {size(use.total)} ({percent(use.total, use.limit)}) are used"
        parts += [words(title), table(columns, list(_budget(report)), look)]
    return section("Collector", *parts)


def _cost(work: CollectorWork) -> Iterator[tuple[str, str]]:
    if work.cycles_per_second is not None:
        yield "cycles", f"{work.cycles_per_second:.2f} a second"
    if work.mark_share is not None:
        yield "marking", f"{percent(work.mark_share, 1)} of the time"
    if work.since_last_cycle is not None:
        yield "last", f"{seconds(work.since_last_cycle)} ago"
    if work.forced:
        yield "forced", number(work.forced)
    cpu, limiter = work.cpu, work.cpu_limiter
    if cpu is not None and cpu.total:
        spent = cpu.mark_assist + cpu.mark_dedicated + cpu.mark_idle + cpu.pause
        yield "CPU since the start", percent(spent, cpu.total)
        yield "assists", percent(cpu.mark_assist, cpu.total)
    elif work.cpu_share is not None:
        yield "CPU since the start", percent(work.cpu_share, 1)
    if limiter is not None and limiter.fill is not None:
        last = f", last in cycle {number(limiter.last_cycle)}" if limiter.last_cycle else ""
        yield "CPU limiter", f"{'limits' if limiter.limiting else f'{percent(limiter.fill, 1)} full'}{last}"


def _scavenger(found: Scavenger) -> Iterator[tuple[str, str]]:
    yield "scavenger", "active" if found.active else "nothing to do" if not found.parked else "parked"
    yield "its goal", size(found.goal_bytes)
    yield "retained", size(found.retained)
    if found.will_return:
        pace = f" within {seconds(found.will_return_seconds)}" if found.will_return_seconds is not None else ""
        yield "will return", f"{size(found.will_return)}{pace}"


def _budget(report: Report) -> Iterator[Row]:
    assert report.heap is not None
    use = report.heap.limit_use
    assert use is not None
    for name, what in _PARTS.items():
        value = int(getattr(use, name))
        slope = [] if report.courses is None else [_slope(report.courses.get(name))]
        yield [name.replace("_", " "), size(value), percent(value, use.limit), *slope, what]


def _slope(course: Course | None) -> str:
    if course is None:
        return UNKNOWN
    return "0" if abs(course.per_second) < 1 else size(round(course.per_second))
