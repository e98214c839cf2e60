"""gomem and its target in time namespaces: one clock for events, looks and the runtime's own times."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gomem.tracer.proc.clocks import offset_of, own_offset
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.processes import running
from tests.support.requirements import absent, program

pytestmark = pytest.mark.bpf

AHEAD = 100_000  # seconds
WATCHED = 3


def ahead() -> Sequence[str]:
    """Return the words that run a command where CLOCK_MONOTONIC is so far ahead."""
    words = [program("unshare", "util-linux"), "--time", "--fork", "--kill-child", "--monotonic", str(AHEAD), "--"]
    if not Path("/proc/self/ns/time").exists() or subprocess.run([*words, "true"], capture_output=True).returncode:
        absent("this kernel has no time namespaces, or none may be made")
    return words


def is_sound(report: dict[str, Any]) -> None:
    """Check that everything happened while it was watched, and that the model and the looks agree."""
    cycles = report["gc_cycles"]
    assert len(cycles) > 3
    starts = [cycle["started"] for cycle in cycles]
    assert starts == sorted(starts)
    assert 0 <= starts[0] < starts[-1] <= report["duration_seconds"] + 1 < WATCHED + 60
    assert report["event_loss"]["drift_bytes"] == 0


def trace(pid: int, *under: str) -> dict[str, Any]:
    return gomem("trace", "--pid", pid, "--duration", WATCHED, "--format", "json", under=under).report()


def test_a_tracer_in_a_time_namespace_takes_the_clock_of_the_kernels_events() -> None:
    under = ahead()
    with running(build("churn", "1.25.5"), "-mb", "32", "-phase", "100ms") as process:
        is_sound(trace(process.pid, *under))


def test_a_target_in_a_time_namespace_is_watched_by_our_clock() -> None:
    with running(*ahead(), build("churn", "1.25.5"), "-mb", "32", "-phase", "100ms") as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        assert offset_of(pid) == AHEAD * 10**9
        is_sound(trace(pid))
    assert own_offset() == 0
