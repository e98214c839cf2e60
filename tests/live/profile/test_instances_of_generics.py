"""Instances of generic functions that are inlined into each other, as runtime/pprof of each release joins them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.profile.heap import heap_profile
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import build
from tests.support.heapprofile import Record, profiled, records_of

SWAPPED = "main.swapped["


def locations(record: Record) -> list[int]:
    """Return how many lines each location of a stack has that is of the generic function."""
    return [len(lines) for _, lines in record.stack if all(line.startswith(SWAPPED) for line in lines)]


@pytest.mark.parametrize(("release", "joined"), [("1.21.13", False), ("1.23.9", True)])
def test_stacks_are_those_that_the_process_writes(release: str, joined: bool, tmp_path: Path) -> None:
    with profiled(build("heapprofile", release, stripped=True), "-rate", 1) as process:
        own = records_of(process.writes(tmp_path), tmp_path)
        with Target.open(process.pid) as target, Inspector.open(target) as inspector:
            ours = records_of(heap_profile(inspector), tmp_path)
    assert ours.with_values() == own.with_values()
    some = [lines for record in own.samples for lines in locations(record)]
    assert len(some) >= 3
    assert (max(some) > 1) is joined  # Go 1.21 takes instances of one function for a recursion
