"""GC cycles of real programs: what each began with, marked and aimed at, as the runtime prints it itself."""

from __future__ import annotations

import re

import pytest

from gomem.tracer.cli.watching import watch
from gomem.tracer.watch.backend import TraceRequest
from tests.support.builds import build

pytestmark = pytest.mark.bpf

# gc 3 @0.114s 1%: ... ms clock, ... ms cpu, 14->15->15 MB, 30 MB goal, ...
GCTRACE = re.compile(r"(?m)^gc (\d+) @.* (\d+)->(\d+)->(\d+) MB, (\d+) MB goal")


def test_every_cycle_is_what_gctrace_says_it_was(
    release: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only one goroutine allocates: nothing comes between the runtime's reading of its figures and ours."""
    monkeypatch.setenv("GODEBUG", "gctrace=1")
    command = (str(build("rounds", release)), "-rounds", "4", "-gogc", "100")
    report = watch(TraceRequest(None, command, None, "bpf", True))
    told = [tuple(map(int, found)) for found in GCTRACE.findall(capfd.readouterr().err)]
    cycles = report.gc_cycles
    assert cycles is not None
    assert report.event_loss is not None
    assert report.event_loss.lost == 0
    assert [number for number, *_ in told] == list(range(1, len(told) + 1))
    # The end of the process may come before the line of its last cycle; what that one marked nothing tells.
    assert 8 <= len(told) <= len(cycles) <= len(told) + 1
    for (_, before, _, marked, goal), cycle in zip(told, cycles[:-1], strict=False):
        assert cycle.heap_before is not None
        assert cycle.heap_after is not None
        assert cycle.goal is not None
        assert (cycle.heap_before >> 20, cycle.heap_after >> 20, cycle.goal >> 20) == (before, marked, goal)
        assert cycle.mark_seconds is not None
        assert cycle.mark_seconds > 0
