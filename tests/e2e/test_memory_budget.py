"""Processes that make gomem hold as much as they can do not take the others' looks, nor get it killed."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.builds import build
from tests.support.liar import Liar, liar
from tests.support.memory_cgroups import joining, memory_cgroup
from tests.support.parked import parked
from tests.support.serving import Serving, serving

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(300)]

MIB = 1 << 20
LIMIT = 256 * MIB  # of the sidecar in deploy/
LIARS = 14
# What an exporter tells of the innocent, and its equal in runtime.MemStats.
SAME = {
    "go_memstats_heap_inuse_bytes": "HeapInuse",
    "go_memstats_heap_released_bytes": "HeapReleased",
    "go_memstats_stack_inuse_bytes": "StackInuse",
}


def swollen(target: Liar) -> None:
    """Let it have what costs it little, and whoever looks at it much: as much as one may hold of one."""
    target.told("spans", 200_000)
    target.told("holes", 60_000)
    target.told("mappings", 8_000)


def states(server: Serving) -> dict[str, str]:
    """Return the state of each process by pid."""
    return {labels["pid"]: labels["state"] for labels, value in server.samples("gomem_process_state") if value}


def test_the_greediest_are_left_alone_by_a_serve_that_has_as_much_memory_as_it_is_shipped_with() -> None:
    with ExitStack() as stack:
        innocent = stack.enter_context(parked(build("parked", "1.25.5")))
        liars = [stack.enter_context(liar()) for _ in range(LIARS)]
        for one in liars:
            swollen(one)
        group, _ = stack.enter_context(memory_cgroup(limit=LIMIT))
        pids = [word for pid in (innocent.pid, *(one.pid for one in liars)) for word in ("--pid", pid)]
        words = ("--interval", 0.5, "--cpu-budget", 2, "--compat", "go-collector", *pids)
        server = stack.enter_context(serving(*words, under=joining(group)))
        honest = str(innocent.pid)

        def looks() -> float:
            return server.value("gomem_looks_total", pid=honest) or 0

        server.until(lambda: "shed" in states(server).values(), "somebody is left alone")
        before = looks()
        assert before > 0
        server.until(lambda: "starting" not in states(server).values(), "all were looked at")
        server.until(lambda: looks() >= before + 3, "looks at the innocent")
        now = states(server)
        assert now[honest] == "followed"
        shed = [pid for pid, state in now.items() if state == "shed"]
        assert shed
        assert shed[0] in server.log.read_text()
        assert "memory budget of 170 MB is used up" in server.get(f"/targets/{shed[0]}")
        assert (server.value("gomem_tracer_shed_targets_total") or 0) >= len(shed)
        figures = server.figures(*SAME, pid=honest)
        assert figures == {name: innocent.emitted[field] for name, field in SAME.items()}
