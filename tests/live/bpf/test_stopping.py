"""The end of a source: what the target does while the kernel takes the programs off is told no more."""

from __future__ import annotations

import pytest

from tests.support.bpf.tracing import tracing
from tests.support.builds import build
from tests.support.processes import running

pytestmark = pytest.mark.bpf


def test_programs_that_are_silent_tell_nothing_and_count_nothing_until_they_are_gone() -> None:
    with running(build("mappings", "1.25.5")) as target, tracing(target.pid) as source:
        assert target.stdin is not None
        assert target.stdout is not None
        source._source.silence()
        source.poll(0.1)  # what a CPU was still about to tell
        before = [probe.hits for probe in source.probes()]
        target.stdin.write(b"\n")
        target.stdin.flush()
        calls = 0
        while target.stdout.readline().strip():
            calls += 1
        assert calls > 40
        assert not len(source.poll(0.1))
        assert [probe.hits for probe in source.probes()] == before
        source.stop()
        assert not len(source.poll(0))
