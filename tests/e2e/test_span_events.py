"""`--with spans` as a user calls it: of any build of a program, in JSON and on the page."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.bpf.span_rounds import rounds
from tests.support.builds import Mode, build
from tests.support.command import Outcome, gomem, obeys_the_rules, outcome, report_of, started
from tests.support.processes import sleeping
from tests.support.toolchains import UNMEASURED

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize(
    ("release", "mode"), [("1.27.3", "pie"), ("1.23.9", "exe"), (*UNMEASURED, "exe"), ("1.19", "exe")]
)
def test_a_stripped_program_shows_its_spans_and_cycles(release: str, mode: Mode) -> None:
    path = build("rounds", release, stripped=True, mode=mode)
    report = trace_of_rounds(path, "--budget", "100", "--format", "json").report()
    obeys_the_rules(report)
    churn = report["span_events"]
    assert churn["budget"] == 1.0
    assert churn["allocated"] > 50 < churn["freed"]
    assert {row["use"] for row in churn["classes"]} == {"heap", "stacks", "work_bufs"}
    assert all(row["object_size"] is not None for row in churn["classes"] if row["use"] == "heap")
    whole = [cycle for cycle in report["gc_cycles"][:-1] if cycle["started"] is not None]
    assert all(cycle["heap_before"] and cycle["heap_after"] and cycle["mark_seconds"] for cycle in whole)
    assert {probe["role"] for probe in report["overhead"]["probes"]} >= {"span_alloc", "span_free"}


def test_the_page_tells_of_both() -> None:
    done = trace_of_rounds(build("rounds", "1.27.3"))
    assert done.status == 0, done.stderr
    assert "GC cycles marked for" in done.stdout
    assert "Spans that came" in done.stdout
    assert "watched for" in done.stdout


def trace_of_rounds(path: Path, *words: str) -> Outcome:
    """Trace a target's first rounds, of which each collects twice, and what little comes before them."""
    with (
        rounds("", warm=False, path=path) as target,
        started("trace", "--pid", target.pid, "--duration", 120, "--with", "spans", *words) as trace,
    ):
        target.wait(lambda: None)
        for _ in range(4):
            target.round(lambda: None)
        trace.send_signal(signal.SIGINT)
        return outcome(trace)


def test_a_program_that_is_not_go_has_a_gap() -> None:
    with sleeping() as process:
        report = report_of("trace", "--pid", process.pid, "--duration", "0.2", "--with", "spans")
    assert report["span_events"] is None
    assert any("spans that come and go" in limit["what"] for limit in report["limits"])


def test_another_backend_is_refused() -> None:
    with sleeping() as process:
        said = gomem("trace", "--pid", process.pid, "--with", "spans", "--backend", "procfs").refusal(2)
    assert "needs BPF" in said
