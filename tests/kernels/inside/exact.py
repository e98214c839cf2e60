"""Events of programs that move all the time: whole, and in agreement with what is there.

Run in virtual machines with other kernels, and by tests/e2e/test_kernels_without_cookies.py.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.builds import build
from tests.support.command import obeys_the_rules, report_of
from tests.support.processes import running
from tests.support.serving import serving

pytestmark = pytest.mark.bpf

CHURN = ("-mb", "24", "-phase", "200ms", "-seconds", "600")


def test_events_are_exact_and_whole() -> None:
    with running(build("churn", "1.27.3"), *CHURN) as process:
        report = report_of("trace", "--pid", process.pid, "--duration", "4", "--backend", "bpf")
    assert report["backend"] == "bpf"
    assert report["event_loss"] == {"lost": 0, "resyncs": 0, "drift_bytes": 0}
    hits = {probe["role"]: probe["hits"] for probe in report["overhead"]["probes"]}
    assert all(hits[role] for role in ("used", "unused", "gc_start", "gc_done")), hits
    assert report["events"]["unused"]["bytes"] > 20 << 20
    assert "runtime-events" not in {limit["what"] for limit in report["limits"]}
    obeys_the_rules(report)


def test_optional_roles_and_allocations_are_seen() -> None:
    with running(build("churn", "1.27.3"), *CHURN) as process:
        words = ("--with", "spans", "--allocs", "--budget", "100")
        report = report_of("trace", "--pid", process.pid, "--duration", "2", *words)
    assert report["span_events"]["allocated"] > 50
    allocations = report["allocations"]
    assert allocations["complete"]
    assert allocations["objects"] > 0
    obeys_the_rules(report)


def test_several_processes_are_followed_each_with_its_own_events() -> None:
    with ExitStack() as stack:
        releases = ("1.19", "1.25.5", "1.27.3", "1.27.3")
        pids = [str(stack.enter_context(running(build("churn", one), *CHURN)).pid) for one in releases]
        words = [word for pid in pids for word in ("--pid", pid)]
        # Looks at four processes take more than a twentieth of a CPU where that is interpreted.
        served = stack.enter_context(serving(*words, "--interval", "0.5", "--cpu-budget", "2"))
        for pid in pids:

            def compared(pid: str = pid) -> bool:
                return (served.value("gomem_drift_comparisons_total", pid=pid) or 0) > 1

            served.until(compared, f"comparisons of {pid}", 240)
            assert served.value("gomem_drift_bytes_total", pid=pid) == 0
            assert served.value("gomem_lost_events_total", pid=pid) == 0
            assert (served.value("gomem_transitions_total", pid=pid, event="unused") or 0) > 0
