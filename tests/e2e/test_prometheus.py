"""A real program: Debian's prometheus, whose exported go_memstats_* are the truth."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.command import obeys_the_rules, outcome, report_of, started
from tests.support.processes import rss, wait_until
from tests.support.prometheus import METRICS, Prometheus, running_prometheus
from tests.support.rules import broken_rules

# They only grow, whatever the program does.
COUNTERS = ("TotalAlloc", "Mallocs", "Frees", "NumGC")
TRIES = 8  # and more on a machine that is too slow for them
PATIENCE = 60.0  # seconds


def tries() -> Iterator[int]:
    """Count the tries at something that the program may spoil by what it does meanwhile."""
    began = time.monotonic()
    for number in count():
        if number >= TRIES and time.monotonic() - began > PATIENCE:
            return
        yield number


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("prometheus")) as prometheus:
        with prometheus.queried():
            time.sleep(3)
        yield prometheus


def _outside(before: dict[str, int], report: dict[str, Any], after: dict[str, int]) -> dict[str, tuple[int, int, int]]:
    """Return the figures of the report that do not lie between those of the two scrapes around it."""
    told = report["memstats"]
    return {
        name: (before[name], told[name], after[name])
        for name in METRICS
        if not min(before[name], after[name]) <= told[name] <= max(before[name], after[name])
    }


def test_every_figure_lies_between_those_of_the_scrapes_around_it(target: Prometheus) -> None:
    # Between two scrapes a gauge may leave the range that they span and come back, at a collection above all:
    # what is asked for is a moment at which all 22 agree, and counters that never disagree.
    seen = []
    for _ in tries():
        before = target.memstats()
        report = report_of("snapshot", "--pid", target.pid)
        after = target.memstats()
        obeys_the_rules(report)
        outside = _outside(before, report, after)
        assert not outside.keys() & set(COUNTERS), outside
        if not outside:
            return
        seen.append(outside)
    pytest.fail(f"no moment of {len(seen)} at which all figures agree:\n" + "\n".join(map(str, seen)))


def test_figures_that_stood_still_are_equal(target: Prometheus) -> None:
    # These only grow, or wait for a collection: where two scrapes agree, they were nothing else in between. HeapSys,
    # StackSys and GCSys are not among them, their sum is: the goroutine that answers a scrape has a stack, and the
    # collector has buffers.
    still_at_best = {"Sys", "BuckHashSys", "MSpanSys", "MCacheSys", "NextGC", "MCacheInuse", "pages"}
    seen: set[str] = set()
    for number in tries():
        # A new call site in the memory profile makes BuckHashSys grow, perhaps at every try.
        if number >= 4 and seen >= still_at_best - {"BuckHashSys"}:
            break
        before = target.memstats()
        told = report_of("snapshot", "--pid", target.pid)["memstats"]
        after = target.memstats()
        if before["NumGC"] != after["NumGC"]:
            continue
        for stats in (before, told, after):
            stats["pages"] = stats["HeapSys"] + stats["StackSys"] + stats["GCSys"]
        still = {name for name in still_at_best if before[name] == after[name]}
        assert {name: told[name] for name in still} == {name: before[name] for name in still}
        seen |= still
    assert seen >= still_at_best - {"BuckHashSys"}


@pytest.mark.bpf
def test_under_load_the_report_holds_together(target: Prometheus) -> None:
    with target.queried():
        before = target.memstats()
        with started("trace", "--pid", target.pid, "--duration", 120, "--format", "json") as trace:
            attached = target.memstats()["NumGC"]
            wait_until(lambda: target.memstats()["NumGC"] >= attached + 2, "a collection from its beginning to its end")
            trace.send_signal(signal.SIGINT)
            report = outcome(trace).report()
        after = target.memstats()
    assert report["backend"] == "bpf"
    assert report["process"]["stripped"] is True
    assert report["process"]["layout"] == "table"
    assert report["process"]["go_version"].startswith("go1.19")
    obeys_the_rules(report)
    for name in COUNTERS:
        assert before[name] <= report["memstats"][name] <= after[name]
    assert report["event_loss"]["lost"] == 0
    collections = report["events"].get("gc_done", {"count": 0})["count"]
    assert 0 < collections <= after["NumGC"] - before["NumGC"]


def test_residency_is_the_kernels(target: Prometheus) -> None:
    broken: list[str] = []
    for _ in tries():
        before, report, after = rss(target.pid), report_of("snapshot", "--pid", target.pid), rss(target.pid)
        if abs(after - before) < before // 200:
            broken = broken_rules(report, smaps_rollup_rss=(before + after) // 2)
            if not broken:
                return
    pytest.fail(f"the process did not stand still for a second, or its report is wrong: {broken}")
