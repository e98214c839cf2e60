"""Targets that exit, exec or lose their executable while they are looked at."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.command import obeys_the_rules, outcome, report_of, started
from tests.support.parked import Parked, parked
from tests.support.processes import running
from tests.support.requirements import absent, program

BACKENDS = pytest.mark.parametrize(
    "backend", [pytest.param("bpf", marks=pytest.mark.bpf), "strace", "procfs"]
)


@BACKENDS
def test_a_target_that_exits_while_traced_is_reported_as_far_as_it_was_seen(backend: str) -> None:
    with running(build("churn", "1.25.5"), "-seconds", "4", "-mb", "32") as process:
        report = report_of("trace", "--pid", process.pid, "--duration", 60, "--backend", backend)
        assert process.wait(timeout=10) == 0
    assert report["backend"] == backend
    assert report["duration_seconds"] < 30
    assert any("exit" in limit["what"] + limit["why"] or "end" in limit["what"] + limit["why"]
               for limit in report["limits"])  # fmt: skip
    if backend != "procfs":
        assert report["events"]["madvise"]["count"] > 0


@BACKENDS
def test_a_target_that_executes_another_program_while_traced_is_reported_as_far_as_it_was_seen(backend: str) -> None:
    tiny = build("tiny", "1.25.5")
    with running(tiny, "-hold", "4s", "-exec", "/bin/sleep", "60") as process:
        report = report_of("trace", "--pid", process.pid, "--duration", 60, "--backend", backend)
        assert process.poll() is None, "gomem ended, the target goes on"
    assert report["duration_seconds"] < 30
    assert any("exec" in limit["what"] + limit["why"] for limit in report["limits"])


def _reads_the_runtime(target: Parked) -> None:
    report = report_of("trace", "--pid", target.pid, "--duration", 1)
    obeys_the_rules(report)
    assert report["memstats"]["HeapSys"] == target.emitted["HeapSys"]
    assert report["process"]["main_module"] == "example.org/parked"


def test_an_executable_that_was_deleted(tmp_path: Path) -> None:
    copy = tmp_path / "program"
    shutil.copy2(build("parked", "1.25.5"), copy)
    with parked(copy, live=8) as target:
        copy.unlink()
        _reads_the_runtime(target)


def test_an_executable_that_was_replaced_by_another(tmp_path: Path) -> None:
    copy, other = tmp_path / "program", tmp_path / "other"
    shutil.copy2(build("parked", "1.25.5"), copy)
    shutil.copy2(build("tiny", "1.19"), other)
    with parked(copy, live=8) as target:
        other.rename(copy)
        _reads_the_runtime(target)


def test_an_executable_in_another_mount_namespace(tmp_path: Path) -> None:
    unshare = program("unshare", "util-linux")
    inner = tmp_path / "inner"
    inner.mkdir()
    start = tmp_path / "start"
    binary = build("parked", "1.25.5", stripped=True)
    start.write_text(
        f"#!/bin/sh\nset -e\nmount -t tmpfs none {inner}\ncp {binary} {inner}/program\nexec {inner}/program \"$@\"\n"
    )
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nexec {unshare} --mount --propagation private /bin/sh {start} "$@"\n')
    wrapper.chmod(0o755)
    try:
        with parked(wrapper, live=8) as target:
            assert not (inner / "program").exists(), "it is visible from here"
            _reads_the_runtime(target)
    except FileNotFoundError:
        absent("mount namespaces cannot be made here")


def test_a_target_that_is_killed_leaves_no_trace_of_us() -> None:
    with (
        running(build("churn", "1.25.5"), "-mb", "32") as process,
        started("trace", "--pid", process.pid, "--duration", 60, "--format", "json") as trace,
    ):
        time.sleep(1)
        process.kill()
        report = outcome(trace, timeout=20).report()
    assert report["process"]["pid"] == process.pid
