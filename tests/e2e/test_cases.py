"""Some of the cases of the scoreboard (`make cases`): those that are quick, each decided and nothing else warned of."""

from __future__ import annotations

import pytest

from tests.cases.case import NEWEST, Case
from tests.cases.known import CASES
from tests.cases.running import run
from tests.support.toolchains import toolchain

QUICK = ("holes", "ended", "reserve", "memfd", "c-held")


@pytest.mark.parametrize("case", [case for case in CASES if case.program in QUICK], ids=lambda case: case.thread)
def test_the_case_is_decided(case: Case) -> None:
    toolchain(NEWEST)
    answer = run(case)
    assert answer.wrong == "", answer


def test_every_case_is_a_thread_and_a_program_of_its_own() -> None:
    assert len(CASES) >= 30
    asked = [(case.thread, case.program, case.since, case.until) for case in CASES]
    assert len(set(asked)) == len(asked)
    assert all(case.asks.endswith((".", "?")) and case.finds for case in CASES)
