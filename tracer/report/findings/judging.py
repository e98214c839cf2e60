"""Judging the suspects of `gomem why`: a report in, what it is and what it is not out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gomem.tracer.report import Finding, Report, Severity
from gomem.tracer.report.findings.base import mib
from gomem.tracer.report.findings.suspect_figures import Value
from gomem.tracer.report.findings.suspects import OF_GOMEM, SUSPECTS, Measure, Suspect, Unit
from gomem.tracer.report.why import DecidingFigure, Judgement, Outcome, Why

_ORDER: Final[dict[Severity, int]] = {"critical": 0, "warning": 1, "info": 2}
# What grows explains what is large; and what limits a process says more than what is large in it.
_GROW: Final = ("leak", "goroutine-leak", "outside-leak")
_HOLDS = "goroutine-leak"  # goroutines that wait hold what else grows: the heap, C memory
_LIMIT: Final = ("memory-limit", "cgroup-limit", "address-space", "mappings", "threads", "locked-memory")


def why(report: Report, made_of: str) -> Why:
    """Return the judgement of all suspects; `made_of` is a sentence on what RSS is made of."""
    judged = [_judge(report, suspect) for suspect in SUSPECTS]
    claimed = {name for suspect in SUSPECTS for name in suspect.findings} | OF_GOMEM
    judged += [_by_itself(finding) for finding in report.findings if finding.id not in claimed]
    causes = sorted((one for one in judged if one.outcome == "it-is"), key=_weight)
    rest = [one for one in judged if one.outcome != "it-is"]
    return Why(
        taken_at=report.taken_at,
        watched_seconds=report.duration_seconds,
        process=report.process,
        verdict=_verdict(report, causes, rest),
        made_of=made_of,
        judgements=[*causes, *(one for one in rest if one.outcome == "ruled-out"),
                    *(one for one in rest if one.outcome == "not-told")],
        next=_next(report, causes, rest),
        findings=report.findings,
        limits=report.limits,
    )  # fmt: skip


def _judge(report: Report, suspect: Suspect) -> Judgement:
    found = [finding for finding in report.findings if finding.id in suspect.findings]
    values = [measure.value(report) for measure in suspect.measures]
    figures = [_figure(measure, value) for measure, value in zip(suspect.measures, values, strict=True)]
    if found:
        worst = min(found, key=lambda finding: _ORDER[finding.severity])
        return _judgement(suspect, "it-is", worst.title, figures, found)
    for measure, value in zip(suspect.measures, values, strict=True):
        if isinstance(value, str):
            return _judgement(suspect, "ruled-out", f"{suspect.what}: {value}", figures)
        if value is not None and value < (measure.it_takes if measure.doubt is None else measure.doubt):
            return _judgement(suspect, "ruled-out", _too_small(measure, value), figures)
    return _judgement(suspect, "not-told", _missing(suspect, values), figures)


def _judgement(
    suspect: Suspect, outcome: Outcome, sentence: str, figures: list[DecidingFigure], found: Sequence[Finding] = ()
) -> Judgement:
    return Judgement(
        suspect=suspect.name,
        what=suspect.what,
        outcome=outcome,
        sentence=sentence,
        severity=min(found, key=lambda one: _ORDER[one.severity]).severity if found else None,
        harmless=bool(found) and not any(finding.actionable or finding.severity != "info" for finding in found),
        findings=[finding.id for finding in found],
        figures=figures,
    )


def _by_itself(finding: Finding) -> Judgement:
    """Return the judgement of a finding that is its own suspect."""
    suspect = Suspect(finding.id, finding.title, (finding.id,), (), "")
    return _judgement(suspect, "it-is", finding.title, [], [finding])


def _figure(measure: Measure, value: Value) -> DecidingFigure:
    number = None if value is None or isinstance(value, str) else float(value)
    return DecidingFigure(measure.what, measure.unit, number, float(measure.it_takes))


def _too_small(measure: Measure, value: float) -> str:
    return f"{measure.what}: {_said(value, measure.unit)}; it takes {_said(measure.it_takes, measure.unit)}"


def _missing(suspect: Suspect, values: Sequence[Value]) -> str:
    unknown = [one.what for one, value in zip(suspect.measures, values, strict=True) if value is None]
    if unknown:
        return f"{suspect.what}: {unknown[0]} is not known; {suspect.tell}"
    told = [
        f"{one.what} is {_said(value, one.unit)}"
        for one, value in zip(suspect.measures, values, strict=True)
        if isinstance(value, int | float)
    ]
    return f"{suspect.what}: {', '.join(told)}, which is neither little nor enough; {suspect.tell}"


def _said(value: float, unit: Unit) -> str:
    if unit == "bytes":
        return "0" if not value else mib(value)
    if unit == "share":
        return f"{value:.0%}" if value >= 0.01 or not value else "less than 1%"
    return f"{value:,.1f}".removesuffix(".0")


def _weight(judged: Judgement) -> tuple[bool, bool, int, bool, bool, float]:
    """Return what puts causes in order: what is about to kill, what grows, how bad, what limits it, then bytes.

    Where goroutines grow, what they hold grows with them: they come before it.
    """
    size = max((one.value or 0.0 for one in judged.figures if one.unit == "bytes"), default=0.0)
    severity = judged.severity or "info"
    grows, limits = judged.suspect in _GROW, judged.suspect in _LIMIT
    return severity != "critical", not grows, _ORDER[severity], judged.suspect != _HOLDS, not limits, -size


def _verdict(report: Report, causes: Sequence[Judgement], rest: Sequence[Judgement]) -> str:
    told = [one for one in causes if not one.harmless]
    if told:
        return f"{told[0].sentence}." + (f" And: {told[1].sentence}." if len(told) > 1 else "")
    if report.resident is None:
        return "The process's memory could not be looked at."
    unknown = sum(one.outcome == "not-told" for one in rest)
    doubt = f", {unknown} could not be told" if unknown else ""
    ruled_out = f"{len(rest) - unknown} causes are ruled out by their figures{doubt}."
    harmless = f" {causes[0].sentence}, which is harmless." if causes else ""
    return f"Nothing is found to be wrong: {ruled_out}{harmless}"


def _next(report: Report, causes: Sequence[Judgement], rest: Sequence[Judgement]) -> list[str]:
    by_id = {finding.id: finding for finding in report.findings}
    steps = [by_id[name].action for one in causes for name in one.findings if by_id[name].actionable]
    if not steps and any(one.suspect == "leak" and one.outcome == "not-told" for one in rest):
        steps = ["Watch it longer, under its usual load, to tell whether it grows: gomem why PID -d 2m."]
    return list(dict.fromkeys(steps))
