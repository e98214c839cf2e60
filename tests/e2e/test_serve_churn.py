"""`gomem serve` while processes come, become others, crash and go around those that it follows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.builds import build
from tests.support.churn import Label, crowd, labels_in, pids_in
from tests.support.serving import serving

CLOSERS = 16  # threads that take probes off stay when they have begun
STEADY_RELEASES = ("1.19", "1.27.3")


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.bpf
def test_churn_around_followed_processes_loses_none_mixes_up_none_and_leaves_nothing_open(tmp_path: Path) -> None:
    tiny = {release: build("tiny", release) for release in ("1.21.13", "1.25.5", "1.27.3")}
    with crowd(tmp_path) as there:
        for release in STEADY_RELEASES:
            program = there.program(f"steady-{release}", build("churn", release), release)
            there.steady(program, "-mb", 8, "-phase", "500ms", "-seconds", 600)
        with serving("--exe", f"{tmp_path}/*", "--interval", "0.5", "--cpu-budget", "1") as served:
            served.until(lambda: not there.missing(served.get("/metrics")), "the steady processes being followed")
            open_before, threads_before = descriptors(served.pid), threads(served.pid)
            crash = there.program("crash", tiny["1.25.5"], "1.25.5")
            stages = [there.program(f"stage-{release}", tiny[release], release) for release in ("1.27.3", "1.21.13")]
            there.loop([crash], 0.2, 1.5)
            there.loop([crash], 1.5, 2.5)
            there.loop(stages, 1.5, 2.5)
            there.short_lived(50)
            seen: set[Label] = set()

            def churned() -> bool:
                scrape = served.get("/metrics")
                assert not there.missing(scrape), served.log.read_text()
                seen.update(labels_in(scrape))
                return there.lives > 0 and {one.exe for one in seen} >= {str(one.path) for one in (crash, *stages)}

            served.until(churned, "processes of all the programs being seen", seconds=120)
            assert there.end_churn() > 0
            assert not there.untrue(seen)
            served.until(lambda: len(pids_in(served.get("/metrics"))) == len(STEADY_RELEASES), "the others forgotten")
            assert not there.missing(served.get("/metrics"))
            # An executable in a crash loop is kept open for a while after its last process.
            most = open_before + len(stages) + 1
            served.until(lambda: descriptors(served.pid) <= most, f"{most} descriptors at the most")
            assert threads(served.pid) <= threads_before + CLOSERS
            assert served.value("gomem_metric_errors_total") in (None, 0)
