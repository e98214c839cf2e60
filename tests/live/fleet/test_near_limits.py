"""Processes near a limit are looked at more often where that is asked for, and all views say how near they are."""

from __future__ import annotations

import pytest

from gomem.tracer.discovery.selection import Selection
from tests.support.atlimit import at_limit
from tests.support.builds import build
from tests.support.fleets import of, watching
from tests.support.parked import parked


@pytest.mark.parametrize("minds_limits", [True, False])
def test_a_process_whose_live_heap_nears_its_limit_is_looked_at_more_often(minds_limits: bool) -> None:
    with at_limit("1.25.5", "-buffers", 52, limit="64MiB") as near, parked(build("parked", "1.25.5")) as far:
        near.say("gc")
        pids = frozenset((near.pid, far.pid))
        with watching(Selection(pids=pids), interval=2.0, minds_limits=minds_limits) as watched:

            def looks(pid: int) -> int:
                found = of(watched.views[-1], pid)
                return found.looks if found is not None else 0

            watched.until(lambda view: min(looks(near.pid), looks(far.pid)) > 0, "a look at each")
            before = looks(near.pid), looks(far.pid)
            counted, most = (near, 8) if minds_limits else (far, 2)
            view = watched.until(lambda view: looks(counted.pid) >= most + before[counted is far], "some looks")
            more = looks(near.pid) - before[0], looks(far.pid) - before[1]
            assert (more[0] > 2 * more[1]) is minds_limits
            nearness = [one.near if (one := of(view, pid)) is not None else None for pid in (near.pid, far.pid)]
            if minds_limits:
                assert nearness[0] is not None
                assert nearness[1] is not None
                assert 1 > nearness[0] > 0.8 > nearness[1] > 0
            else:
                assert nearness == [None, None]
