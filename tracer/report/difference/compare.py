"""The difference of two reports: every byte by which RSS grew is told, or is said to be unexplained. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gomem.tracer.report import RUNTIME_NONE, Report, stat
from gomem.tracer.report.difference.causes import causes_of
from gomem.tracer.report.difference.contract import Difference, Figure, Part, Side, Unit
from gomem.tracer.report.difference.cuts import WORDS, cut_both
from gomem.tracer.report.difference.notes import notes, same_process
from gomem.tracer.report.difference.sentence import headline
from gomem.tracer.report.difference.tables import grown, tables
from gomem.tracer.report.difference.times import seconds_between

_Told = Callable[[Report], int | None]


def difference(before: Report, after: Report, names: tuple[str, str] = ("", "")) -> Difference:
    """Return what grew from one report to the other; `names`: where they come from."""
    seconds = seconds_between(before.taken_at, after.taken_at)
    rss = _figure("RSS", "bytes", _rss, before, after)
    parts = _parts(before, after)
    goroutines = grown(_goroutines(before), _goroutines(after))
    same = same_process(before, after)
    return Difference(
        before=_side(before, names[0]),
        after=_side(after, names[1]),
        seconds=seconds,
        headline=headline(rss.grown or 0, parts, goroutines, same_process=same) if parts else _unknown(before, after),
        rss=rss,
        parts=parts,
        figures=[_figure(name, unit, told, before, after) for name, unit, told in _FIGURES],
        tables=tables(before, after, same_process=same),
        notes=notes(before, after, seconds),
    )


def _parts(before: Report, after: Report) -> list[Part]:
    both = cut_both(before, after)
    if both is None:
        return []
    found = []
    for name, size in both[0].items():
        more = both[1][name] - size
        found.append(Part(name, WORDS[name], size, both[1][name], more, causes_of(name, more, before, after)))
    return found


def _unknown(before: Report, after: Report) -> str:
    lacking = [which for which, report in (("first", before), ("second", after)) if report.resident is None]
    who = "either report" if len(lacking) == 2 else f"the {lacking[0]} report"
    return f"By how much RSS grew is not known: {who} does not tell what was in RAM."


def _side(report: Report, name: str) -> Side:
    return Side(name, report.taken_at, report.duration_seconds, report.backend, report.process)


def _figure(name: str, unit: Unit, told: _Told, before: Report, after: Report) -> Figure:
    sizes = told(before), told(after)
    return Figure(name, unit, *sizes, grown(*sizes))


def _rss(report: Report) -> int | None:
    return report.resident.total if report.resident is not None else None


def _goroutines(report: Report) -> int | None:
    scheduler = report.structure.scheduler if report.structure is not None else None
    return scheduler.goroutines if scheduler is not None else None


def _ended_goroutines(report: Report) -> int | None:
    scheduler = report.structure.scheduler if report.structure is not None else None
    return scheduler.ended_goroutines if scheduler is not None else None


def _goal(report: Report) -> int | None:
    goal = report.heap.goal if report.heap is not None else None
    return None if goal is None or goal >= RUNTIME_NONE else goal


def _stat(name: str) -> _Told:
    return lambda report: stat(report, name)


_FIGURES: Final[tuple[tuple[str, Unit, _Told], ...]] = (
    ("VSZ", "bytes", lambda report: report.virtual.total if report.virtual is not None else None),
    ("swap", "bytes", lambda report: report.resident.swap if report.resident is not None else None),
    ("PSS", "bytes", lambda report: report.resident.pss if report.resident is not None else None),
    ("lazily freed", "bytes", lambda report: report.resident.lazy_free if report.resident is not None else None),
    ("live heap", "bytes", lambda report: report.heap.live if report.heap is not None else None),
    ("heap goal", "bytes", _goal),
    *((name, "bytes", _stat(name)) for name in (
        "HeapAlloc", "HeapInuse", "HeapIdle", "HeapReleased", "StackInuse", "Sys", "TotalAlloc")),
    *((name, "count", _stat(name)) for name in ("HeapObjects", "NumGC")),
    ("goroutines", "count", _goroutines),
    ("ended goroutines", "count", _ended_goroutines),
    ("threads", "count", lambda report: report.structure.threads if report.structure is not None else None),
)  # fmt: skip
