"""The functions of a profile as a table, those that hold or allocated the most first."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from gomem.exporters.profile.functions import FunctionRow, Functions, by_function
from gomem.exporters.profile.sample_type import Sums, shown
from gomem.exporters.text.console import Sheet, set_page
from gomem.exporters.text.page import PageStyle, words
from gomem.exporters.text.table import Column, table
from gomem.exporters.units import number, plural, seconds
from gomem.tracer.report.profile import Profile

_WIDTHS = (60, 240)  # of a terminal
_PIPE = 1 << 20  # columns: a name is in one piece, for grep
_MOST_REMARKS = 12  # comments, and limits, that are shown
_LEAST_NAME = 24  # columns
_FUNCTION = Column("function", left=True, wraps=_LEAST_NAME)
_COLUMNS = (
    Column("flat"),
    Column("flat%", worth=3),
    Column("sum%", worth=1),
    Column("cum"),
    Column("cum%", worth=2),
    _FUNCTION,
)
# Of a profile whose values are estimates: with the standard error of the value before.
_ESTIMATED = (
    Column("flat"),
    Column("+-"),
    Column("flat%", worth=3),
    Column("sum%", worth=1),
    Column("cum"),
    Column("+-", worth=4),
    Column("cum%", worth=2),
    _FUNCTION,
)
_COUNTED = "exact"


def render_functions(profile: Profile, index: int, most: int, sheet: Sheet, *, cumulative: bool = False) -> str:
    """Return the first `most` functions by one of the profile's values, by the flat value or the cumulative one.

    flat is the value of stacks that end in the function, cum of all that it is in; sum% adds up flat%.
    """
    width = sheet.columns(*_WIDTHS, _PIPE)
    functions = by_function(profile, index, cumulative=cumulative)
    return set_page(
        _parts(profile, index, functions, most, PageStyle(width, sheet.blocks)), width, terminal=sheet.terminal
    )


def _parts(profile: Profile, index: int, functions: Functions, most: int, look: PageStyle) -> Iterator[RenderableType]:
    yield _heading(profile, index, functions.sums)
    yield from (words((comment, "dim")) for comment in profile.comments[:_MOST_REMARKS])
    for limit in profile.limits[:_MOST_REMARKS]:
        yield words(f"{limit.what}: {limit.why}", (f"  {limit.fix}" if limit.fix else "", "dim"))
    if not functions.rows:
        yield words("No function has a value.")
        return
    left_out = len(functions.rows) - most
    if left_out > 0:
        yield words((f"the first {number(most)} of {plural(len(functions.rows), 'function')}", "dim"))
    yield table(_ESTIMATED if functions.estimated else _COLUMNS, _cells(profile, index, functions, most), look)


def _heading(profile: Profile, index: int, sums: Sums) -> Text:
    """Return which value is shown, what it adds up to, and of how long a time."""
    of = profile.sample_types[index]
    if sums.is_difference:
        grown = shown(sums.after - sums.before, of.unit, signed=True)
        said = f"{shown(sums.before, of.unit)} before, {shown(sums.after, of.unit)} after: {grown}"
    else:
        said = shown(sums.after, of.unit)
    during = f" in {seconds(profile.duration_ns / 1e9)}" if profile.duration_ns > 0 else ""
    return words((of.type, "heading"), f"  {said}{during}")


def _cells(profile: Profile, index: int, functions: Functions, most: int) -> Iterator[list[str | Text]]:
    unit, signed = profile.sample_types[index].unit, functions.sums.is_difference
    so_far = 0
    for row in functions.rows[:most]:
        so_far += row.flat
        yield [
            shown(row.flat, unit, signed=signed),
            *([_error(row.flat, row.flat_error, unit)] if functions.estimated else []),
            _share(row.flat, functions.total),
            _share(so_far, functions.total),
            shown(row.cumulative, unit, signed=signed),
            *([_error(row.cumulative, row.cumulative_error, unit)] if functions.estimated else []),
            _share(row.cumulative, functions.total),
            _name(row),
        ]


def _error(value: int, error: float, unit: str) -> str:
    if error:
        return shown(math.ceil(error), unit)
    return _COUNTED if value else ""


def _name(row: FunctionRow) -> Text:
    return words(row.name, (f" ({row.inlined})" if row.inlined else "", "dim"))


def _share(value: int, whole: int) -> str:
    return f"{100 * value / whole:.2f}%" if whole else "0.00%"
