"""`gomem serve` from the command line, on real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error

import pytest

from gomem.exporters.json.schema import validate
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.parked import parked
from tests.support.processes import running, vm_size
from tests.support.rules import broken_rules
from tests.support.serving import serving

CHURN = ("-mb", "24", "-phase", "200ms", "-seconds", "600")


@pytest.mark.bpf
def test_a_process_is_found_followed_and_forgotten() -> None:
    with running(build("churn", "1.25.5"), *CHURN) as process:
        pid = str(process.pid)
        with serving("--pid", pid, "--interval", "0.5") as served:
            served.until(lambda: served.followed(process.pid), "the process being followed")
            served.until(lambda: (served.value("gomem_looks_total", pid=pid) or 0) >= 4, "looks")
            assert served.value("gomem_drift_bytes_total", pid=pid) == 0
            served.until(lambda: (served.value("gomem_drift_comparisons_total", pid=pid) or 0) > 0, "a comparison")
            assert served.value("gomem_lost_events_total", pid=pid) == 0
            info = served.samples("gomem_process_info", pid=pid)[0][0]
            assert info["go_version"] == "go1.25.5"
            assert info["process"] == "churn"
            assert served.get("/readyz").startswith("ready")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            served.until(lambda: not served.samples("gomem_process_info"), "its series ending")
            assert served.get("/healthz").startswith("alive")


def test_figures_of_a_parked_process_are_those_that_it_prints() -> None:
    with (
        parked(build("parked", "1.27.3")) as target,
        serving("--pid", target.pid, "--interval", "0.5", "--compat", "go-collector", "--size-classes") as served,
    ):
        pid = str(target.pid)
        served.until(lambda: served.followed(target.pid), "the process being followed")
        said = target.emitted
        for name, field in (
            ("go_memstats_heap_inuse_bytes", "HeapInuse"),
            ("go_memstats_heap_released_bytes", "HeapReleased"),
            ("go_memstats_sys_bytes", "Sys"),
            ("go_memstats_mallocs_total", "Mallocs"),
            ("go_memstats_next_gc_bytes", "NextGC"),
            ("gomem_gc_cycles_total", "NumGC"),
        ):
            assert served.value(name, pid=pid) == said[field], name
        virtual = served.samples("gomem_virtual_bytes", pid=pid)
        assert sum(value for _, value in virtual) == vm_size(target.pid)
        pages = served.samples("gomem_heap_page_bytes", pid=pid, state="in_use")
        assert sum(value for _, value in pages) == said["HeapInuse"]


def test_the_report_of_a_process_is_served_only_where_it_is_allowed() -> None:
    with parked(build("parked", "1.25.5")) as target:
        with serving("--pid", target.pid, "--interval", "0.5", "--reports") as served:
            served.until(lambda: served.followed(target.pid), "the process being followed")
            report = json.loads(served.get(f"/targets/{target.pid}/report.json"))
            validate(report)
            assert not broken_rules(report)
            assert str(target.pid) in served.get("/")
        with serving("--pid", target.pid, "--interval", "0.5") as served:
            served.until(lambda: served.followed(target.pid), "the process being followed")
            with pytest.raises(urllib.error.HTTPError, match="404"):
                served.get(f"/targets/{target.pid}/report.json")


def test_several_processes_of_one_program_are_told_apart() -> None:
    program = build("parked", "1.23.9")
    with (
        parked(program, live=8) as small,
        parked(program, live=64) as large,
        serving("--pid", small.pid, "--pid", large.pid, "--interval", "0.5", "--compat", "go-collector") as served,
    ):
        served.until(lambda: served.followed(small.pid) and served.followed(large.pid), "both being followed")
        for target in (small, large):
            value = served.value("go_memstats_heap_alloc_bytes", pid=str(target.pid))
            assert value == target.emitted["HeapAlloc"]


def test_a_pid_that_is_not_there_is_an_error_in_plain_words() -> None:
    gone = running("true")
    with gone as process:
        process.wait()
        pid = process.pid
    assert f"no process {pid}" in gomem("serve", "--pid", pid, "--listen", "127.0.0.1:0").refusal(1)


def test_a_port_that_is_taken_is_an_error_in_plain_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in gomem("serve", "--listen", f"127.0.0.1:{port}").refusal(1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--listen", "nonsense"), "HOST:PORT"),
        (("--interval", "0"), "too often"),
        (("--container", "ab"), "too short"),
        (("--label", "app"), "KEY=VALUE"),
        (("--cgroup", "system.slice"), "slash"),
        (("--uid", "nobody"), "not a user id"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_fix(words: tuple[str, ...], said: str) -> None:
    assert said in gomem("serve", *words).refusal(2)
