"""`gomem trace --allocs` as a user types it: in bursts, from the first object on, and where it cannot be had."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.builds import build
from tests.support.command import gomem, obeys_the_rules, report_of
from tests.support.processes import running, sleeping

pytestmark = pytest.mark.bpf


def test_a_program_that_does_nothing_but_allocate_is_counted_in_bursts_within_the_budget() -> None:
    one_cpu = ("taskset", "-c", max(os.sched_getaffinity(0)))  # the others are for gomem
    with running(*one_cpu, build("allocloop", "1.27.3", stripped=True), "-seconds", "300") as target:
        report = report_of("trace", "--pid", target.pid, "--allocs", "--duration", "6")
    obeys_the_rules(report)
    found = report["allocations"]
    assert not found["complete"]
    assert found["bursts"] >= 1
    assert 0 < found["watched_share"] < 0.5
    assert 0 < found["objects"] < found["runtime_objects"] / 10
    (first, *_) = found["types"]
    assert first["name"] == "main.object"
    assert first["estimated_objects"]["value"] > 0.9 * found["runtime_objects"]
    (site, *_) = found["sites"]
    assert (site["function"], site["file"].rpartition("/")[2]) == ("main.escape", "main.go")
    assert site["estimated_objects"]["value"] > 0.9 * found["runtime_objects"]
    assert 1e-8 < found["hit_seconds"] < 1e-4
    hits = sum(probe["hits"] for probe in report["overhead"]["probes"] if probe["role"] == "mallocgc")
    assert hits >= found["objects"]


@pytest.mark.alone
def test_all_is_counted_of_a_program_that_does_nothing_but_allocate_if_that_was_asked_for() -> None:
    one_cpu = ("taskset", "-c", max(os.sched_getaffinity(0)))
    with running(*one_cpu, build("allocloop", "1.27.3"), "-seconds", "300") as target:
        report = report_of("trace", "--pid", target.pid, "--allocs", "--budget", "100", "--duration", "2")
    obeys_the_rules(report)
    assert report["allocations"]["complete"]
    # The target runs on while both are read: a moment of full speed would be a tenth of all that it makes meanwhile.
    assert report["allocations"]["coverage"] > 0.98


def test_a_program_that_allocates_little_is_counted_all_the_time() -> None:
    with running(build("httpserver", "1.25.5")) as target:
        report = report_of("trace", "--pid", target.pid, "--allocs", "--duration", "3")
    obeys_the_rules(report)
    assert report["allocations"]["bursts"] == 1
    assert report["allocations"]["watched_share"] > 0.5


def test_a_command_is_counted_from_its_first_object_on() -> None:
    binary = build("allocloop", "1.25.5")
    done = gomem("trace", "--allocs", "--budget", "100", "--format", "json", "--", binary, "-seconds", "1")
    report = done.report()
    obeys_the_rules(report)
    # With --format json its standard output goes to ours for errors: lines of nanoseconds, objects, CPU time.
    made = max(int(line.split()[1]) for line in done.stderr.splitlines() if line[:1].isdigit())
    (row,) = [row for row in report["allocations"]["types"] if row["name"] == "main.object"]
    assert report["allocations"]["complete"]
    assert made <= row["objects"] < 1.5 * made
    assert {"runtime.g", "runtime.p"} & {row["name"] for row in report["allocations"]["types"]}
    # It has ended meanwhile: what its code is, its file says.
    (site,) = [site for site in report["allocations"]["sites"] if site["function"] == "main.escape"]
    # What the runtime takes for itself when it preempts a function is of that function's stack, too.
    assert row["objects"] <= site["objects"] < row["objects"] + 100


def test_where_allocations_cannot_be_had_the_report_says_so() -> None:
    with sleeping() as process:
        report = report_of("trace", "--pid", process.pid, "--allocs", "--duration", "0.2")
    assert report["allocations"] is None
    assert "no-allocations" in {limit["id"] for limit in report["limits"]}
    refused = gomem("trace", "--allocs", "--backend", "strace", "--", sys.executable, "-c", "pass")
    assert "--allocs needs BPF" in refused.stderr
    assert refused.status == 125
