"""A plugin of pytest that notes how each test ended, one JSON object a line, as soon as it has.

In a machine that may be ended, or end by itself, what is written is what there is.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

FILE = "GOMEM_KERNEL_RESULTS"  # the environment's name of the file


@dataclass(frozen=True, slots=True)
class Tried:
    """How one test ended: passed, skipped or failed, why if it did not pass, how long it took, and when (UTC)."""

    test: str
    outcome: str
    reason: str
    seconds: float = 0.0
    at: str = ""


def note(file: Path, ended: Tried) -> None:
    """Append a line, with the time of day."""
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(replace(ended, at=now()))) + "\n")


def now() -> str:
    """Return the time of day to the second, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())


def failure(text: str) -> str:
    """Return what was wrong, of pytest's words about a failure: the lines that it marks, else the last one.

    Without the directory in which the project is.
    """
    lines = text.strip().splitlines()
    marked = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")]
    said = " ".join(marked or lines[-1:]).partition(" +  where ")[0]
    return said.strip().replace(os.getcwd(), ".")[:300]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that was called or skipped, or failed before or after that."""
    if report.when != "call" and report.passed:
        return
    reason = ""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        reason = failure(report.longreprtext)
    note(Path(os.environ[FILE]), Tried(report.nodeid, report.outcome, reason, round(report.duration, 1)))
