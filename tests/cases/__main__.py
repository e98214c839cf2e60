"""Run the cases, print which are decided, and write docs/cases.md when all were run."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cases.known import CASES, HEALTHY
from tests.cases.page import page
from tests.cases.running import Answer, run, run_healthy
from tests.support.builds import built

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cases.md"
_AT_A_TIME = 2


def main() -> int:
    """Run all cases, or those whose thread or program has one of the words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="run only cases with one of these in their thread or program")
    words = parser.parse_args().words
    some = [case for case in CASES if not words or any(word in f"{case.thread} {case.program}" for word in words)]
    servers = [name for name in HEALTHY if not words or any(word in name for word in words)]
    for target, release, cgo in sorted({("ccases" if case.cgo else "cases", case.release, case.cgo) for case in some}):
        built(target, release, mode="cgo" if cgo else "exe")
    began = time.monotonic()
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        asked = [(case, pool.submit(run, case)) for case in some]
        watched = [(name, pool.submit(run_healthy, name)) for name in servers]
        answers = [
            (case, future.result()) for case, future in asked if _tell(case.thread, case.program, future.result())
        ]
        healthy = [(name, future.result()) for name, future in watched if _tell(name, "healthy", future.result())]
    decided = sum(not answer.wrong for _, answer in (*answers, *healthy))
    print(f"{decided} of {len(answers) + len(healthy)} decided in {time.monotonic() - began:.0f} s")
    if not words:
        PAGE.write_text(page(answers, healthy))
    return 0 if decided == len(answers) + len(healthy) else 1


def _tell(name: str, what: str, answer: Answer) -> bool:
    mark = "decided" if not answer.wrong else "NOT    "
    print(f"{mark}  {name:38} {what:17} {answer.seconds:5.1f} s  {answer.wrong or answer.verdict}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
