"""The scoreboard as a page of docs."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cases.case import Case
from tests.cases.running import Answer

_HEAD = """# Cases

What people have asked in public about the memory of Go programs, and what `gomem why` answers. Each line is a thread, a
small program of our own that is as the thread has it (`tests/targets/cases`, `tests/targets/ccases`), and the verdict.
A case is decided if the verdict is the finding that it must be, and nothing else warns (`tests/cases/known.py: CASES`).

`make cases` runs all of them, and writes this page. {count} of {whole} are decided.

| thread | what is asked | decided | the verdict |
| --- | --- | --- | --- |
"""
_HEALTHY = """
Servers that are well must raise no warning:

| program | silent | the verdict |
| --- | --- | --- |
"""


def page(answers: Sequence[tuple[Case, Answer]], healthy: Sequence[tuple[str, Answer]]) -> str:
    """Return the page."""
    decided = sum(not answer.wrong for _, answer in answers)
    rows = [
        f"| [{case.thread}]({case.address}) | {_cell(case.asks)} | {_mark(answer)} | {_cell(answer.verdict)} |"
        for case, answer in answers
    ]
    servers = [f"| {name} | {_mark(answer)} | {_cell(answer.verdict)} |" for name, answer in healthy]
    return (
        _HEAD.format(count=decided, whole=len(answers)) + "\n".join(rows) + "\n" + _HEALTHY + "\n".join(servers) + "\n"
    )


def _mark(answer: Answer) -> str:
    return "yes" if not answer.wrong else f"**no**: {_cell(answer.wrong)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
