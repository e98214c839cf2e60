"""The scoreboard as a page of docs."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cases.case import Case
from tests.cases.running import Answer

_HEAD = """# Cases

What people have asked in public about the memory of Go programs, and what `gomem why` answers. Each line is a thread, a
small program of our own that is as the thread has it (`tests/targets/cases`, `tests/targets/ccases`), and the verdict.
A case is decided if the verdict is the finding that it must be, and nothing else warns (`tests/cases/known.py: CASES`).

`make cases` runs all of them with programs of the newest Go release, and writes this page.
{count} of {whole} are decided.

| thread | what is asked | decided | the verdict |
| --- | --- | --- | --- |
"""
_HEALTHY = """
Servers that are well must raise no warning:

| program | silent | the verdict |
| --- | --- | --- |
"""

_RELEASES = """
The same with programs of other releases, stripped (`make cases GO=1.19`); 1.19 is the oldest that gomem supports:

| release | decided | not decided | no case there |
| --- | --- | --- | --- |
"""
_ROW = "| Go "


def page(answers: Sequence[tuple[Case, Answer]], healthy: Sequence[tuple[str, Answer]], before: str) -> str:
    """Return the page; the lines on other releases are those of the page as it was before."""
    decided = sum(not answer.wrong for _, answer in answers)
    rows = [
        f"| [{case.thread}]({case.address}) | {_cell(case.asks)} | {_mark(answer)} | {_cell(answer.verdict)} |"
        for case, answer in answers
    ]
    servers = [f"| {name} | {_mark(answer)} | {_cell(answer.verdict)} |" for name, answer in healthy]
    head = _HEAD.format(count=decided, whole=len(answers))
    others = _releases(before)
    parts = [head + "\n".join(rows), _HEALTHY + "\n".join(servers)]
    return "\n".join([*parts, *([_RELEASES + "\n".join(others)] if others else []), ""])


def with_release(before: str, release: str, answers: Sequence[tuple[Case, Answer]], others: Sequence[Case] = ()) -> str:
    """Return the page with what was decided of programs that were built by `release`, and stripped.

    `others`: what is no case on that release.
    """
    wrong = [f"{_name(case)}: {_cell(answer.wrong)}" for case, answer in answers if answer.wrong]
    cells = (f"{len(answers) - len(wrong)} of {len(answers)}", "; ".join(wrong) or "none",
             ", ".join(map(_name, others)) or "none")  # fmt: skip
    row = f"{_ROW}{release} | {' | '.join(cells)} |"
    rows = [line for line in _releases(before) if not line.startswith(f"{_ROW}{release} ")] + [row]
    return before.partition(_RELEASES)[0].rstrip("\n") + "\n" + _RELEASES + "\n".join(sorted(rows)) + "\n"


def _releases(before: str) -> list[str]:
    return [line for line in before.splitlines() if line.startswith(_ROW)]


def _name(case: Case) -> str:
    return f"`{case.program}` ({case.thread})"


def _mark(answer: Answer) -> str:
    return "yes" if not answer.wrong else f"**no**: {_cell(answer.wrong)}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
