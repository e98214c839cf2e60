"""Plugins that a followed program loads: what their copies of the runtime do is seen, too."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gomem.tracer.discovery.selection import Selection
from gomem.tracer.fleet.view import FleetView
from gomem.tracer.report import Report
from tests.support.bpf.sharing import sharing
from tests.support.builds import build
from tests.support.fleets import Watched, of, watching
from tests.support.processes import running

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(300)]

TAKEN = 128 << 20  # tests/targets/plugged


def until_compared(watched: Watched, pid: int, looks: int) -> Report:
    """Make turns until so many more looks were compared with the model, byte for byte; return what is known then."""
    first: list[int] = []

    def compared(view: FleetView) -> bool:
        target = of(view, pid)
        if target is None or target.report is None or target.report.drift is None:
            return False
        exact = target.report.drift.exact_looks
        first.append(exact)
        return exact >= first[0] + looks

    target = of(watched.until(compared, f"{looks} more looks compared", 120.0), pid)
    assert target is not None
    assert target.report is not None
    return target.report


def take(process: subprocess.Popen[bytes], plugin: Path) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"%s\n" % bytes(plugin))
    process.stdin.flush()
    assert process.stdout.readline() == b"%d\n" % TAKEN


def hits(report: Report, role: str) -> int:
    return sum(row.hits for row in report.overhead.probes if row.role == role)


@pytest.mark.parametrize("release", ["1.21.13", "1.27.3"])
def test_what_a_plugin_does_that_is_loaded_while_its_program_is_followed_is_seen(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gomem.tracer.fleet.schedule.LOOK_SHARE", 0.5)
    program = build("plugins", release, mode="cgo")
    plugin = build("plugged", release, mode="cgo", extra_flags=["-buildmode=plugin"])
    with (
        sharing() as source,
        running(program) as process,
        watching(Selection(pids=frozenset((process.pid,))), source) as watched,
    ):
        until_compared(watched, process.pid, 1)
        take(process, plugin)
        loaded = until_compared(watched, process.pid, 2)
        for _ in range(3):
            take(process, plugin)
        report = until_compared(watched, process.pid, 2)
        assert not watched.complaints
    assert any(str(plugin) in limit.what and "probed" in limit.why for limit in loaded.limits), loaded.limits
    assert hits(report, "used") > hits(loaded, "used")  # by the plugin's copy: the program itself does nothing
    assert report.drift is not None
    assert report.event_loss is not None
    assert (report.event_loss.drift_bytes, report.drift.illegal_count) == (0, 0), report.drift
    assert (report.event_loss.lost, report.event_loss.resyncs) == (0, 0)
    functions = {row.function for row in report.transitions or ()}
    assert all(function and function.startswith("runtime.") for function in functions), functions
    rows = [(row.role, row.symbol) for row in report.overhead.probes]
    assert len(rows) == len(set(rows)), "two counts of one function"
