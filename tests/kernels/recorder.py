"""A plugin of pytest that notes how each test ended, one JSON object a line, as soon as it has.

In a machine that may be ended, or end by itself, what is written is what there is.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

FILE = "GOMEM_KERNEL_RESULTS"  # the environment's name of the file


@dataclass(frozen=True, slots=True)
class Tried:
    """How one test ended: passed, skipped or failed, and why if it did not pass."""

    test: str
    outcome: str
    reason: str
    seconds: float


def note(file: Path, ended: Tried) -> None:
    """Append a line."""
    with file.open("a") as lines:
        lines.write(json.dumps(asdict(ended)) + "\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that was called or skipped, or failed before or after that."""
    if report.when != "call" and report.passed:
        return
    reason = ""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        reason = report.longreprtext.strip().splitlines()[-1][:300]
    note(Path(os.environ[FILE]), Tried(report.nodeid, report.outcome, reason, round(report.duration, 1)))
