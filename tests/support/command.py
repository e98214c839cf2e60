"""The command `gomem`, run as a user runs it."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gomem.exporters.json.schema import validate
from tests.support.processes import PATIENCE
from tests.support.rules import broken_rules

GOMEM = Path(sys.executable).parent / "gomem"
LIMIT = 120.0 * PATIENCE  # seconds that no run needs


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of gomem ended, and what it wrote."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    def report(self) -> dict[str, Any]:
        """Return the report on standard output, which is valid, alone there, and came with status 0."""
        assert self.status == 0, f"status {self.status}\n{self.stderr}"
        report: dict[str, Any] = json.loads(self.stdout)
        validate(report)
        return report

    def refusal(self, status: int) -> str:
        """Return the message of a run that failed as it should: one or two lines, and nothing on stdout."""
        assert self.status == status, f"status {self.status} instead of {status}\n{self.stderr}\n{self.stdout[:500]}"
        assert self.stdout == ""
        assert self.stderr.strip(), "it failed without a word"
        return self.stderr


def executable() -> str:
    """Return the path of the installed command."""
    if not GOMEM.exists():
        pytest.fail(f"{GOMEM} is not there: pip install -e . into this environment first", pytrace=False)
    return str(GOMEM)


def gomem(
    *words: object, under: Sequence[str] = (), env: Mapping[str, str] | None = None, timeout: float = LIMIT
) -> Outcome:
    """Run `gomem WORDS`, or `UNDER gomem WORDS`; it must show no traceback, whatever happens."""
    started = time.monotonic()
    done = subprocess.run(
        [*under, executable(), *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def report_of(*words: object) -> dict[str, Any]:
    """Run `gomem WORDS --format json` and return its report."""
    command, *rest = words
    return gomem(command, "--format", "json", *rest).report()


def obeys_the_rules(report: dict[str, Any], *, rss: int | None = None, vm_size: int | None = None) -> None:
    """Fail the test with every rule that the report breaks; `rss` and `vm_size` are the kernel's figures in bytes."""
    broken = broken_rules(report, smaps_rollup_rss=rss, vm_size=vm_size)
    if broken:
        pytest.fail("the report breaks its rules:\n  " + "\n  ".join(broken), pytrace=False)


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Start `gomem WORDS`, which watches something; the block begins when it has attached.

    That is when it has said on standard error what it does, or has ended; nothing of that is read here.
    """
    process = subprocess.Popen(
        [executable(), *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            assert selector.select(LIMIT), "it says nothing"
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def outcome(process: subprocess.Popen[str], timeout: float = LIMIT) -> Outcome:
    """Wait for a started run to end."""
    begun = time.monotonic()
    stdout, stderr = process.communicate(timeout=timeout)
    assert "Traceback" not in stderr + stdout, stderr
    return Outcome(process.returncode, stdout, stderr, time.monotonic() - begun)
