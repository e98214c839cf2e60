"""The contract of `gomem diff --format json` for reports: what grew between two of them (schema gomem.diff/1)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gomem.tracer.report.figures import Bytes, Count, Seconds
from gomem.tracer.report.process import ProcessFacts

SCHEMA = "gomem.diff/1"
Unit = Literal["bytes", "count", "bytes_per_second"]


class Side(Struct, frozen=True):
    """One of the two reports: where it comes from, of which moment, and of whom."""

    name: Annotated[str, Meta(description="the file")]
    taken_at: str
    duration_seconds: Seconds
    backend: str
    process: ProcessFacts


class Figure(Struct, frozen=True):
    """A figure in both reports. null: that report has it not, and `grown` is null where one of them has not."""

    name: str
    unit: Unit
    before: int | None
    after: int | None
    grown: int | None


class Cause(Struct, frozen=True):
    """Who is behind a part: bytes by which it grew, and by how many goroutines it has become more.

    `estimated`: by samples or by counts of slots, so that causes need not sum to the part.
    """

    what: str
    grown: int
    estimated: bool
    count: int | None = None


class Part(Struct, frozen=True):
    """What RSS is made of, cut so that the parts do not overlap: `grown` of all parts sum to that of RSS exactly.

    The part "unexplained" is what no other explains: two reports that fit together have 0 there. The part "absent"
    is negative: heap in use that is not in RAM, which the parts of objects have counted.
    """

    id: Annotated[str, Meta(pattern="^[a-z][a-z-]*$")]
    what: str
    before: int
    after: int
    grown: int
    causes: Annotated[list[Cause], Meta(description="the largest, in the direction of the part")]


class Row(Struct, frozen=True):
    """One thing in both reports; null: its report does not list it, though it may be there (the list was cut)."""

    name: str
    before: Bytes | None
    after: Bytes | None
    grown: int | None
    count_before: Count | None = None
    count_after: Count | None = None
    count_grown: int | None = None


class Table(Struct, frozen=True):
    """What grew of one kind of thing; `rows` that differ, those that differ most first.

    `counts`: what the counts of a row count. `left_out`: rows that differ and are not shown, with their sum.
    `why_not`: why there are no rows, where a report has nothing to compare.
    """

    id: Annotated[str, Meta(pattern="^[a-z][a-z-]*$")]
    title: str
    unit: Unit
    counts: str | None
    rows: list[Row]
    left_out: Count
    left_out_grown: int
    why_not: str | None


class Note(Struct, frozen=True):
    """What to know about the comparison: the two are of different programs, or one of them lacks something."""

    id: Annotated[str, Meta(pattern="^[a-z][a-z-]*$")]
    text: str


class Difference(Struct, frozen=True, tag_field="schema", tag=SCHEMA):
    """What grew from one report to another. `seconds`: from the one to the other, negative where the second is older.

    `rss.grown` is the sum of `parts`; with none of these the RSS of one of them is not known, and `notes` say so.
    """

    before: Side
    after: Side
    seconds: float | None
    headline: str
    rss: Figure
    parts: list[Part]
    figures: list[Figure]
    tables: list[Table]
    notes: list[Note]
