"""The columns of the table: what each shows of a row, how wide it is, and which fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gomem.exporters.top.histories import sparkline
from gomem.exporters.top.rows import Row
from gomem.exporters.units import UNKNOWN, percent, short_size

GAP = 1  # between two columns
_SPARK = 12
_WORD = 16
_WORD_AT_MOST = 30
_NAME_AT_LEAST, _NAME_SHOULD, _NAME_AT_MOST = 11, 13, 32
_PER_MINUTE = 60

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column; what is of the least `worth` goes first where there is no room. `value`: what rows are sorted by."""

    id: str
    title: str
    width: int
    worth: int
    text: Callable[[Row], str]
    value: Callable[[Row], Value]
    left: bool = False
    means: str = ""


def _size(name: str, title: str, worth: int, means: str) -> Column:
    return Column(
        name, title, 5, worth, lambda row: short_size(getattr(row, name)), lambda row: getattr(row, name), means=means
    )


def _pid(row: Row) -> str:
    if row.pid is not None:
        return str(row.pid)
    return f"{row.members} {'v' if row.unfolded else '>'}"


def _left(row: Row) -> str:
    return f"{short_size(row.nearest.left)} {row.nearest.name}" if row.nearest is not None else "none"


def _rate(row: Row) -> str:
    rate = row.cycles_per_second
    if rate is None:
        return UNKNOWN
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def _slope(row: Row) -> str:
    if row.slope is None:
        return UNKNOWN
    a_minute = row.slope * _PER_MINUTE
    if abs(a_minute) < 1:
        return "0"
    return ("+" if a_minute > 0 else "") + short_size(a_minute)


_MARKS = {"critical": "!!", "warning": "! "}


def _verdict(row: Row) -> str:
    return _MARKS.get(row.severity, "") + row.verdict


PID = Column("pid", "PID", 7, 100, _pid, lambda row: row.pid)
NAME = Column("name", "PROGRAM", _NAME_AT_LEAST, 100, lambda row: row.name, lambda row: row.name.lower(), left=True)
# In the order of the screen, behind PID and PROGRAM.
COLUMNS = (
    _size("rss", "RSS", 99, "in RAM (statm, each second)"),
    _size("firm", "FIRM", 60, "RSS without what is lazily freed (smaps_rollup's LazyFree, at looks)"),
    _size("live", "LIVE", 90, "what the last collection found alive (gcController.heapMarked, each second)"),
    _size("garbage", "GARB", 80, "allocated since, or not swept yet (HeapAlloc - live, each second)"),
    _size("free", "FREE", 75, "free heap pages in RAM (page bitmaps and pagemap, at looks)"),
    _size("stacks", "STACK", 70, "goroutine stacks in RAM (spans and pagemap, at looks)"),
    _size("c", "C", 65, "C's heap and mappings that are not the runtime's, in RAM (at looks)"),
    _size("file", "FILE", 50, "pages of files in RAM (smaps_rollup, at looks)"),
    Column(
        "left", "LEFT", 8, 85, _left, lambda row: None if row.nearest is None else row.nearest.share,
        means="until the limit that is nearest: go GOMEMLIMIT, cg cgroup, as RLIMIT_AS, data RLIMIT_DATA",
    ),
    Column(
        "gc", "GC/s", 5, 78, _rate, lambda row: row.cycles_per_second, means="collections a second (NumGC, last 10 s)"
    ),
    Column(
        "mark", "MARK", 4, 40, lambda row: percent(row.mark_share, 1), lambda row: row.mark_share,
        means="share of the time in which the collector marks (events, last 60 s, at looks)",
    ),
    Column(
        "slope", "RSS/MIN", 7, 82, _slope, lambda row: row.slope,
        means="how RSS changes in a minute: the line of least squares through the last 60 s",
    ),
    Column(
        "verdict", "VERDICT", _WORD, 95, _verdict, lambda row: ({"critical": 2, "warning": 1}.get(row.severity, 0)),
        left=True, means="the finding that matters most: gomem explain WORD",
    ),
    Column(
        "spark", "LATELY", _SPARK, 55, lambda row: sparkline(row.spark, _SPARK),
        lambda row: row.rss, left=True, means="RSS from view to view, between its lowest and highest",
    ),
)  # fmt: skip
ALL = (PID, NAME, *COLUMNS)
BY_ID = {column.id: column for column in ALL}


@dataclass(frozen=True, slots=True)
class Placed:
    """A column, where it begins on the line, and how wide it is."""

    column: Column
    x: int
    width: int


def placed(width: int, skip: int = 0) -> list[Placed]:
    """Return the columns that fit a line of `width`.

    `skip` 0: those of the greatest worth. More: all in their order, after so many; PID and PROGRAM stay.
    """
    room = width - PID.width - GAP - _NAME_AT_LEAST
    chosen: list[Column] = []
    candidates = COLUMNS[min(skip, len(COLUMNS) - 1) :] if skip else sorted(COLUMNS, key=lambda one: -one.worth)
    for column in candidates:
        if column.width + GAP > room:
            break
        chosen.append(column)
        room -= column.width + GAP
    shown = [column for column in COLUMNS if column in chosen]
    # What is left goes to the names: some of it to the program's, then to the verdict, and the rest to the program's.
    some = min(max(room, 0), _NAME_SHOULD - _NAME_AT_LEAST)
    spare = min(max(room - some, 0), _WORD_AT_MOST - _WORD)
    name = min(_NAME_AT_LEAST + max(room - spare, 0), _NAME_AT_MOST)
    found, x = [Placed(PID, 0, PID.width), Placed(NAME, PID.width + GAP, name)], PID.width + GAP + name + GAP
    for column in shown:
        wider = column.width + (spare if column.id == "verdict" else 0)
        found.append(Placed(column, x, wider))
        x += wider + GAP
    return found


def in_order(rows: Sequence[Row], by: Column, ascending: bool) -> list[Row]:
    """Return rows sorted by a column, the largest first; what is not known comes last in any case."""
    known = [row for row in rows if by.value(row) is not None]
    known.sort(key=lambda row: (row.pid or 0, row.name))
    known.sort(key=lambda row: by.value(row), reverse=not ascending)  # type: ignore[arg-type,return-value]
    return [*known, *(row for row in rows if by.value(row) is None)]
