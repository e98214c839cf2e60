"""The table of processes: its figures, its order, and which of them are shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gomem.exporters.html.drawing import spark_path
from gomem.exporters.html.table import COLUMNS, Row, Rows, Wish, chosen, sums, table_object
from gomem.tracer.fleet.history import History
from tests.support.samples.views import several


def rows() -> list[Row]:
    return Rows(None).of(several())


def test_parts_sum_to_rss_and_sums_are_those_of_the_rows() -> None:
    found = rows()
    for row in found:
        if row.parts:
            assert sum(part.bytes or 0 for part in row.parts) == row.figures["rss"]
    known = [row.figures["rss"] for row in found if row.figures.get("rss") is not None]
    assert len(known) == 4
    assert sums(found)["rss"] == sum(value for value in known if isinstance(value, int))
    assert sums([])["rss"] is None


@pytest.mark.parametrize("column", [column.name for column in COLUMNS])
@pytest.mark.parametrize("sign", ["", "-"])
def test_rows_are_in_the_order_that_is_asked_for_and_those_that_are_not_known_come_last(column: str, sign: str) -> None:
    found = [row.value(column) for row in chosen(rows(), Wish.of(f"sort={sign}{column}"))]
    known = [value.lower() if isinstance(value, str) else value for value in found if value is not None]
    assert found[len(known) :] == [None] * (len(found) - len(known))
    assert known == sorted(known, reverse=bool(sign))


def test_all_words_of_a_filter_have_to_be_there_in_any_case() -> None:
    assert [row.pid for row in chosen(rows(), Wish.of("filter=INGEST+worker-1"))] == [22]
    assert [row.pid for row in chosen(rows(), Wish.of("filter=55"))] == [55]
    assert chosen(rows(), Wish.of("filter=ingest+nothing")) == []
    assert len(chosen(rows(), Wish.of("filter="))) == 6


def test_a_click_sorts_and_another_one_reverses() -> None:
    live = next(column for column in COLUMNS if column.name == "live")
    once = Wish.of("filter=a b").by(live)
    assert once.query() == "sort=-live&filter=a+b"
    assert once.by(live).query() == "sort=live&filter=a+b"
    assert Wish.of(once.query()) == once


@given(st.text(max_size=40))
def test_any_query_is_some_wish(query: str) -> None:
    assert Wish.of(Wish.of(query).query()) == Wish.of(query)


def test_a_row_is_made_anew_only_when_something_has_changed() -> None:
    now, making = several(), Rows(History(15.0))
    first = making.of(now)
    assert all(one is other for one, other in zip(first, making.of(now), strict=True))


def test_the_object_for_scripts_has_the_figures_of_the_page() -> None:
    found = rows()
    told = table_object(found, {})["rows"]
    assert isinstance(told, list)
    for row, one in zip(found, told, strict=True):
        assert one["figures"] == row.figures
        assert sum(bytes for _, _, bytes in one["parts"]) == (row.figures.get("rss") or 0)


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    path = spark_path([None, 2.0, 4.0, None, 1.0])
    assert path == "M1.5,0.500h0L2.5,0.000M4.5,0.750h0"
    assert spark_path([]) == spark_path([None]) == ""
    assert re.fullmatch(r"M0\.5,1\.000h0", spark_path([0.0]))
