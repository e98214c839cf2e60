"""docs/support.md is what the results say, and the results are judged feature by feature."""

from __future__ import annotations

import pytest

from tests.kernels.features import FEATURES, Feature
from tests.kernels.recorder import Tried
from tests.kernels.results import FAILS, FALLS_BACK, NOT, PAGE, UNTRIED, WORKS, Results, kept, merged, outcome, page

FEATURE = Feature("it", ("tests/a.py::test_a", "tests/b.py"), "way", "the best")
PASSED = [Tried("tests/a.py::test_a", "passed", "", 1.0), Tried("tests/b.py::test_b", "passed", "", 1.0)]


def results(*tests: Tried, way: str = "by the best") -> Results:
    return Results("6.1", "6.1.0-1-amd64", {"way": way}, [*PASSED, *tests])


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (results(), (WORKS, "")),
        (results(way="by another way"), (FALLS_BACK, "by another way")),
        (results(Tried("tests/b.py::test_c", "skipped", "no such thing", 0.0)), (NOT, "no such thing")),
        (
            results(
                Tried("tests/b.py::test_c", "skipped", "no such thing", 0.0),
                Tried("tests/a.py::test_a", "failed", "assert 1 == 2", 0.0),
            ),
            (FAILS, "assert 1 == 2"),
        ),
        (results(Tried("tests/c.py::test_c", "failed", "of another feature", 0.0)), (WORKS, "")),
        (Results("6.1", "", {}, PASSED[:1]), (UNTRIED, "")),
    ],
)
def test_a_feature_is_what_its_tests_and_the_doctor_say(found: Results, state: tuple[str, str]) -> None:
    assert outcome(FEATURE, found) == state


def test_what_was_not_tried_again_is_kept() -> None:
    failed = Tried("tests/a.py::test_a", "failed", "assert 1 == 2", 1.0)
    now = Results("6.1", "6.1.0-1-amd64", {}, [failed])
    both = merged(results(), now)
    assert sorted(both.tests, key=lambda test: test.test) == [failed, PASSED[1]]
    assert both.checks == {"way": "by the best"}


def test_the_page_is_made_of_the_results_and_of_nothing_else() -> None:
    assert PAGE.read_text() == page(kept()), "python -m tests.kernels writes it"


def test_no_two_features_have_a_name() -> None:
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    assert any(feature.always for feature in FEATURES)
