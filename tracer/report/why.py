"""The contract of `gomem why --format json`: what it is, what it is not, and by which figure (schema gomem.why/1)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Seconds
from gomem.tracer.report.finding import Finding, Severity
from gomem.tracer.report.limit import Limit
from gomem.tracer.report.process import ProcessFacts

SCHEMA = "gomem.why/1"
Outcome = Literal["it-is", "ruled-out", "not-told"]


class DecidingFigure(Struct, frozen=True):
    """A figure and from where on it speaks against the suspect; bytes, seconds, counts, or shares of 1.

    `value` is null where it could not be had, or where there is nothing to measure (no limit is set).
    """

    what: str
    unit: Literal["bytes", "count", "share"]
    value: float | None
    it_takes: float


class Judgement(Struct, frozen=True):
    """Whether one suspect is the cause.

    "it-is": a finding says so (`findings`). "ruled-out": it takes all of `figures`, and one that was measured is too
    small. "not-told": a figure is missing, and what would tell is in `sentence`.
    """

    suspect: Annotated[str, Meta(pattern="^[a-z][a-z0-9-]*$")]
    what: str
    outcome: Outcome
    sentence: str
    severity: Severity | None
    harmless: Annotated[bool, Meta(description="it-is, but there is nothing to do")]
    findings: list[str]
    figures: list[DecidingFigure]


class Why(Struct, frozen=True, tag_field="schema", tag=SCHEMA):
    """Why a process takes the memory that it takes: a verdict, what was ruled out by which figure, what to do next."""

    taken_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    watched_seconds: Seconds
    process: ProcessFacts
    verdict: str
    made_of: Annotated[str, Meta(description="what RSS is made of, in one sentence")]
    judgements: list[Judgement]
    next: Annotated[list[str], Meta(description="what to do, the most urgent first")]
    findings: list[Finding]
    limits: list[Limit]
