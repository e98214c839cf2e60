"""Somebody sets the time of day while gomem runs: nothing is stale for that, and nothing takes longer."""

from __future__ import annotations

import http.client
import json
import signal
import time
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import executable, obeys_the_rules
from tests.support.processes import running
from tests.support.serving import Serving, serving
from tests.support.time_of_day import time_of_day

HOUR = 3600


def status(server: Serving, path: str) -> int:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_serve_is_alive_and_ready_and_its_figures_are_of_today(step: int, tmp_path: Path) -> None:
    with (
        running(build("steady", "1.25.5")) as target,
        time_of_day(tmp_path) as today,
        serving("--pid", target.pid, "--interval", "600", "--backend", "procfs", under=today.under) as server,
    ):
        server.until(lambda: status(server, "/readyz") == 200 and server.followed(target.pid), "it is ready")
        views = server.value("gomem_view_timestamp_seconds")
        today.set_ahead(step)
        assert [status(server, path) for path in ("/healthz", "/readyz")] == [200, 200]
        server.until(lambda: server.value("gomem_view_timestamp_seconds") != views, "the next view")
        assert [status(server, path) for path in ("/healthz", "/readyz")] == [200, 200]
        assert server.value("gomem_stale_targets") == 0
        assert server.value("gomem_looks_total", pid=str(target.pid)) == 1
        now = time.time() + step
        for name in ("gomem_report_timestamp_seconds", "gomem_view_timestamp_seconds"):
            age = now - (server.value(name) or 0)
            assert -1 < age < 600, name


@pytest.mark.bpf
@pytest.mark.parametrize("backend", ["bpf", "strace"])
@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_trace_takes_its_events_when_they_happened(step: int, backend: str, tmp_path: Path) -> None:
    command = [executable(), "trace", "--backend", backend, "--duration", "1000", "--format", "json"]
    with (
        running(build("steady", "1.25.5")) as target,
        time_of_day(tmp_path) as today,
        running(*today.under, *command, "--pid", target.pid) as trace,
    ):
        time.sleep(4)
        today.set_ahead(step)
        time.sleep(3)
        trace.send_signal(signal.SIGINT)
        out, _ = trace.communicate()
    report = json.loads(out)
    obeys_the_rules(report)
    assert 0 < report["duration_seconds"] < HOUR / 2
    assert report["event_loss"]["drift_bytes"] == 0
