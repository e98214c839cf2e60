"""Run the cases, print which are decided, and write docs/cases.md when all were run.

With --go the programs are built by another release and stripped, and the page gets a line on that release; what is no
case there is left out, and named.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cases.case import NEWEST
from tests.cases.known import CASES, HEALTHY
from tests.cases.page import page, with_release
from tests.cases.running import Answer, is_one_on, program_of, run, run_healthy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cases.md"
_AT_A_TIME = 2


def main() -> int:
    """Run all cases, or those whose thread or program has one of the words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="run only cases with one of these in their thread or program")
    parser.add_argument("--go", default="", help="build the programs by this release, and strip them")
    given = parser.parse_args()
    words, release, stripped = given.words, given.go or NEWEST, bool(given.go)
    some = [case for case in CASES if not words or any(word in f"{case.thread} {case.program}" for word in words)]
    others = [case for case in some if stripped and not is_one_on(case, release)]
    some = [case for case in some if case not in others]
    servers = [name for name in HEALTHY if not stripped and (not words or any(word in name for word in words))]
    for case in some:
        program_of(case, release, stripped=stripped)
    began = time.monotonic()
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        asked = [(case, pool.submit(run, case, release, stripped=stripped)) for case in some]
        watched = [(name, pool.submit(run_healthy, name)) for name in servers]
        answers = [
            (case, future.result()) for case, future in asked if _tell(case.thread, case.program, future.result())
        ]
        healthy = [(name, future.result()) for name, future in watched if _tell(name, "healthy", future.result())]
    decided = sum(not answer.wrong for _, answer in (*answers, *healthy))
    print(f"{decided} of {len(answers) + len(healthy)} decided in {time.monotonic() - began:.0f} s")
    if not words:
        before = PAGE.read_text()
        PAGE.write_text(with_release(before, release, answers, others) if stripped else page(answers, healthy, before))
    return 0 if decided == len(answers) + len(healthy) else 1


def _tell(name: str, what: str, answer: Answer) -> bool:
    mark = "decided" if not answer.wrong else "NOT    "
    print(f"{mark}  {name:38} {what:17} {answer.seconds:5.1f} s  {answer.wrong or answer.verdict}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
