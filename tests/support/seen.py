"""Processes of tests/targets that say in a line of JSON what they hold, and reports on them made in this process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gomem.exporters.json.schema import validate
from gomem.tracer.process.target import Target
from gomem.tracer.program.go_program import GoProgram
from gomem.tracer.report import Finding, Overhead, Report
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.watch.assemble import Watched, assemble
from tests.support.processes import running
from tests.support.reports import report_from
from tests.support.rules import broken_rules


@contextmanager
def told(*command: object) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """Run a target until the block ends; with what it says in its first line."""
    with running(*command) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())


def look_at(
    process: subprocess.Popen[bytes], load: Callable[[str], GoProgram] | None = None
) -> tuple[Snapshot, Report]:
    """Return a look at a process, and the report of it, which is valid and obeys the rules.

    With `load` the program is what that makes of its executable alone.
    """
    with Target.open(process.pid) as target, _inspector(target, load) as inspector:
        look, facts = inspector.look(), inspector.facts()
    watched = Watched("procfs", "", 0.0, None, 0, Overhead(0.0, 0, [], None))
    body = assemble(facts, look, watched, look.kernel.taken_at).to_dict()
    validate(body)
    assert broken_rules(body) == []
    return look, report_from(body)


def _inspector(target: Target, load: Callable[[str], GoProgram] | None) -> Inspector:
    return Inspector.open(target) if load is None else Inspector(target, load(target.exe_file))


def findings(report: Report) -> dict[str, Finding]:
    """Return the findings of a report by id."""
    return {finding.id: finding for finding in report.findings}
