"""The difference of two reports as a page of text, or as one JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import to_builtins
from rich.console import RenderableType

from gomem.exporters.difference.words import (
    causes,
    count_of,
    later,
    more_rows,
    not_compared,
    shown_parts,
    shown_tables,
    side,
    signed,
    told,
    without_difference,
)
from gomem.exporters.json.report import plain_json
from gomem.exporters.text.console import Sheet, set_page
from gomem.exporters.text.page import PageStyle, section, words
from gomem.exporters.text.table import Cell, Column, table
from gomem.tracer.report.difference.contract import Difference, Figure, Table

_WIDTHS = (60, 200)  # of a terminal
_PIPE = 140


def difference_json(found: Difference) -> str:
    """Return it as one JSON object (schema gomem.diff/1)."""
    return plain_json(to_builtins(found))


def difference_text(found: Difference, most: int, sheet: Sheet) -> str:
    """Return the page, with the `most` first rows of each table."""
    width = sheet.columns(*_WIDTHS, _PIPE)
    return set_page(_parts(found, most, PageStyle(width, sheet.blocks)), width, terminal=sheet.terminal)


def _parts(found: Difference, most: int, look: PageStyle) -> Iterator[RenderableType]:
    yield words((found.headline, "bold"))
    yield words("from  ", (side(found.before), "dim"))
    yield words("to    ", (side(found.after), "dim"), f"  {later(found)}" if later(found) else "")
    if found.parts:
        yield section("What RSS is made of", table(_PART_COLUMNS, _part_rows(found), look))
    yield section("Figures", table(_FIGURE_COLUMNS, list(_figure_rows(found.figures)), look))
    for one in shown_tables(found):
        rest = more_rows(one, most)
        yield section(one.title, table(_columns(one), list(_rows(one, most)), look), words(rest) if rest else None)
    said = [text for text in (without_difference(found), *not_compared(found)) if text]
    if said:
        yield section("Without a table", *(words(text) for text in said))
    if found.notes:
        yield section("Notes", *(words(f"- {note.text}") for note in found.notes))


_PART_COLUMNS = (
    Column("grown"),
    Column("before", worth=4),
    Column("after", worth=5),
    Column("part", left=True),
    Column("by", left=True, worth=3, wraps=40),
)
_FIGURE_COLUMNS = (Column("grown"), Column("before", worth=4), Column("after", worth=5), Column("figure", left=True))


def _part_rows(found: Difference) -> Sequence[Sequence[Cell]]:
    rows = [
        [signed(part.grown, "bytes"), told(part.before, "bytes"), told(part.after, "bytes"), part.what, causes(part)]
        for part in shown_parts(found)
    ]
    rss = found.rss
    return [*rows, [signed(rss.grown, "bytes"), told(rss.before, "bytes"), told(rss.after, "bytes"), "RSS", ""]]


def _figure_rows(figures: Sequence[Figure]) -> Iterator[Sequence[Cell]]:
    for one in figures:
        if one.before is not None or one.after is not None:
            yield [signed(one.grown, one.unit), told(one.before, one.unit), told(one.after, one.unit), one.name]


def _columns(one: Table) -> Sequence[Column]:
    return (
        Column("grown"),
        Column("before", worth=4),
        Column("after", worth=5),
        *([Column(one.counts, worth=3)] if one.counts else []),
        Column("", left=True, worth=99, wraps=24),
    )


def _rows(one: Table, most: int) -> Iterator[Sequence[Cell]]:
    for row in one.rows[:most]:
        yield [
            signed(row.grown, one.unit),
            told(row.before, one.unit),
            told(row.after, one.unit),
            *([count_of(row)] if one.counts else []),
            words(row.name),
        ]
