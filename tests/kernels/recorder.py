"""A plugin of pytest that notes how each test ended, one JSON object a line, as soon as it has.

In a machine that may be ended, or end by itself, what is written is what there is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

FILE = "GOMEM_KERNEL_RESULTS"  # the environment's name of the file


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that was called or skipped, or failed before or after that."""
    if report.when == "call" or not report.passed:
        reason = ""
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            reason = report.longreprtext.strip().splitlines()[-1][:300]
        line = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "reason": reason,
            "seconds": round(report.duration, 1),
        }
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps(line) + "\n")
