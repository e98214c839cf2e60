from __future__ import annotations

from tests.cases.case import Case
from tests.cases.page import page, with_release
from tests.cases.running import Answer, is_one_on

CASE = Case("golang/go#1", "Is it?", "is", ("leak",))
LATER = Case("golang/go#2", "Was it?", "was", ("leak",), since="1.22.10", until="1.23.9")
YES, NO = Answer("It is.", ("leak",), "", 1.0), Answer("", (), "leak is\nnot | found", 1.0)


def test_each_release_has_one_line_which_stays_when_the_rest_is_written_anew() -> None:
    first = page([(CASE, YES)], [("etcd", YES)], "")
    assert "1 of 1 are decided" in first
    assert "| Go " not in first
    both = with_release(with_release(first, "1.23.9", [(CASE, YES)]), "1.19", [(CASE, NO)], [LATER])
    lines = [
        "| Go 1.19 | 0 of 1 | `is` (golang/go#1): leak is not \\| found | `was` (golang/go#2) |",
        "| Go 1.23.9 | 1 of 1 | none | none |",
    ]
    assert both.splitlines()[-2:] == lines
    assert both.startswith(first)
    again = with_release(both, "1.19", [(CASE, YES)])
    assert again.splitlines()[-2:] == ["| Go 1.19 | 1 of 1 | none | none |", lines[1]]
    assert page([(CASE, YES)], [("etcd", YES)], again) == again


def test_what_is_no_case_on_a_release_is_told_by_numbers_and_not_by_letters() -> None:
    releases = ("1.9", "1.19", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.100")
    assert [release for release in releases if is_one_on(LATER, release)] == ["1.22.10", "1.23.9"]
    assert all(is_one_on(CASE, release) for release in releases)
