"""What the page of text and the HTML file say alike: figures with signs, and who the two reports are of."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gomem.exporters.units import UNKNOWN, clean, number, plural, seconds, size
from gomem.tracer.report.difference.contract import Cause, Difference, Part, Row, Side, Table, Unit

MOST_CAUSES = 3


def told(value: int | None, unit: Unit) -> str:
    """Return a figure without a sign; `?` for None."""
    if unit == "count":
        return number(value)
    return size(value) + ("/s" if unit == "bytes_per_second" and value is not None else "")


def signed(value: int | None, unit: Unit) -> str:
    """Return a difference with its sign; `?` for None."""
    if value is None:
        return UNKNOWN
    return ("+" if value > 0 else "") + told(value, unit)


def side(one: Side) -> str:
    """Return who a report is of and when, in one line."""
    process = one.process
    name = clean(os.path.basename(process.exe) or "?", 40)
    parts = [f"{name} {process.go_version}" if process.go_version else name, f"pid {process.pid}"]
    parts += [clean(process.pod, 80)] if process.pod else []
    parts += [clean(one.taken_at.replace("T", " ").replace("Z", " UTC"), 40) or "at an unknown time"]
    return ", ".join(parts)


def later(found: Difference) -> str:
    """Return how far the two are apart; "" where that is not known."""
    if found.seconds is None:
        return ""
    return f"{seconds(abs(found.seconds))} {'later' if found.seconds >= 0 else 'earlier'}"


def cause(one: Cause) -> str:
    """Return a cause with its figure."""
    about = "about " if one.estimated else ""
    count = f", {one.count:+,} goroutines" if one.count else ""
    return f"{about}{signed(one.grown, 'bytes')} {clean(one.what, 160)}{count}"


def causes(part: Part) -> str:
    """Return the largest causes of a part."""
    return "; ".join(cause(one) for one in part.causes[:MOST_CAUSES])


def shown_parts(found: Difference) -> Sequence[Part]:
    """Return the parts that have something in one of the two, those that differ most first; unexplained at the end."""
    ordered = sorted(found.parts, key=lambda part: (part.id == "unexplained", -abs(part.grown)))
    return [part for part in ordered if part.before or part.after or part.id == "unexplained"]


def shown_tables(found: Difference) -> Sequence[Table]:
    """Return the tables that have something to show."""
    return [table for table in found.tables if table.rows]


def without_difference(found: Difference) -> str:
    """Return which tables have no row, and why; "" where all have some."""
    same = [table.title for table in found.tables if not table.rows and table.why_not is None]
    return f"No difference: {', '.join(same)}." if same else ""


def not_compared(found: Difference) -> Sequence[str]:
    """Return which tables could not be made, by why."""
    reasons: dict[str, list[str]] = {}
    for table in found.tables:
        if table.why_not is not None:
            reasons.setdefault(table.why_not, []).append(table.title)
    return [f"{', '.join(titles)}: {why}" for why, titles in reasons.items()]


def more_rows(table: Table, most: int) -> str:
    """Return what of a table is beyond its first rows; "" for nothing."""
    hidden = table.rows[most:]
    count = len(hidden) + table.left_out
    grown = sum(row.grown or 0 for row in hidden) + table.left_out_grown
    return f"and {plural(count, 'more that differs', 'more that differ')}: {signed(grown, table.unit)}" if count else ""


def count_of(row: Row) -> str:
    """Return by how many there are more; "" where nothing is counted."""
    return f"{row.count_grown:+,}" if row.count_grown is not None else ""
