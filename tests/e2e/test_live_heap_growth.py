"""A live heap that grows is told with the command that shows who; one that breathes, or has filled a cache, is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import build
from tests.support.command import gomem, outcome, started
from tests.support.serving import serving

MB = 1 << 20
# gc 12 @1.040s 1%: 0.02+0.6+0.01 ms clock, 0.04+0.1/0.5/0+0.02 ms cpu, 30->31->16 MB, ...: what it marked is the last.
MARKED = re.compile(r"(?m)^gc \d+ @.* \d+->\d+->(\d+) MB")
REST = 9.0  # seconds, in which what has warmed up for two is at rest for most of the time
MODES = {"leak": ("-rate", 20), "warm": ("-rate", 25, "-for", "2s"), "breathe": ("-rate", 40, "-for", "1s")}


@dataclass(frozen=True)
class Grows:
    """A run of tests/targets/grows, which writes gctrace's lines to `trace`."""

    pid: int
    trace: Path

    def marked(self) -> list[int]:
        """Return what its collections found alive, in MB, by itself."""
        return [int(size) for size in MARKED.findall(self.trace.read_text())]


@contextmanager
def grows(mode: str, directory: Path) -> Iterator[Grows]:
    path, trace = build("grows", "1.27.3", stripped=True), directory / mode
    command = [str(path), "-mode", mode, *map(str, MODES[mode])]
    with trace.open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "GODEBUG": "gctrace=1", "GOGC": "30"},
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Grows(process.pid, trace)
    finally:
        process.kill()
        process.communicate()


def told(report: dict[str, Any]) -> dict[str, Any] | None:
    return next((one for one in report["findings"] if one["id"] == "live-heap-grows"), None)


def check_course(report: dict[str, Any], marked: list[int]) -> None:
    """Hold what is told of collections against what the runtime itself wrote of them, in whole MB."""
    for third in report["heap"]["live_course"]["thirds"]:
        assert third["cycles"] >= 2
        assert {third[name] >> 20 for name in ("lowest", "median", "highest")} <= set(marked)


def check_leak(found: dict[str, Any] | None, pid: int) -> None:
    assert found is not None
    assert found["severity"] == "info"  # it may be warming up, for all that is known after some seconds
    figures = found["evidence"]
    assert figures["live_in_last_third"] - figures["live_in_first_third"] == figures["grown"] >= 16 * MB
    assert f"`gomem profile {pid}`" in found["action"]


@pytest.mark.bpf
def test_what_grows_is_told_by_collections_with_the_command_that_shows_who(tmp_path: Path) -> None:
    with ExitStack() as life:
        targets = {mode: life.enter_context(grows(mode, tmp_path)) for mode in MODES}
        words = ("--duration", "6", "--format", "json")
        runs = {mode: life.enter_context(started("trace", target.pid, *words)) for mode, target in targets.items()}
        recorded = gomem("record", targets["leak"].pid, "--duration", 6, "-o", tmp_path / "leak.rec")
        reports = {mode: outcome(run).report() for mode, run in runs.items()}
        marked = {mode: target.marked() for mode, target in targets.items()}
        pid = targets["leak"].pid
        (before, after) = (tmp_path / "before.pb.gz", tmp_path / "after.pb.gz")
        taken = [gomem("profile", pid, "-o", path).status for path in (before, after)]
        who = gomem("profile", pid, "--top", 1).stdout
    for mode, report in reports.items():
        check_course(report, marked[mode])
    check_leak(told(reports["leak"]), pid)
    assert recorded.status == 0
    replayed = told(gomem("replay", tmp_path / "leak.rec", "--format", "json").report())
    assert replayed is not None  # the process is not there to be asked
    assert "gomem profile" not in replayed["action"]
    assert told(reports["warm"]) is None
    assert told(reports["breathe"]) is None
    assert taken == [0, 0]  # what the action names does what it says
    assert "main.keep" in who
    assert "inuse_space" in gomem("diff", before, after).stdout


def test_what_grows_is_told_by_looks_alone_while_it_is_followed(tmp_path: Path) -> None:
    with ExitStack() as life:
        targets = {mode: life.enter_context(grows(mode, tmp_path)) for mode in MODES}
        pids = [word for target in targets.values() for word in ("--pid", target.pid)]
        served = life.enter_context(serving(*pids, "--reports", "--backend", "procfs", "--interval", "0.3"))

        def report(mode: str) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(served.get(f"/targets/{targets[mode].pid}/report.json"))
            return found

        begun = time.monotonic()
        for mode, target in targets.items():
            served.until(lambda pid=target.pid: served.followed(pid), mode)  # type: ignore[misc]
        served.until(lambda: told(report("leak")) is not None, "the growth being told")
        reports = {mode: report(mode) for mode in MODES}
        marked = {mode: target.marked() for mode, target in targets.items()}
        check_leak(told(reports["leak"]), targets["leak"].pid)
        time.sleep(max(begun + REST - time.monotonic(), 0.0))
        assert told(report("warm")) is None
        assert told(report("breathe")) is None
    check_course(reports["leak"], marked["leak"])
    assert told(reports["breathe"]) is None
