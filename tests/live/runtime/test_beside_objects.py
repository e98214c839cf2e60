"""Timers, finalizers, cleanups and weak pointers, against what the program made of them; releases, stripped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.holds import Holds, holds
from tests.support.rules import broken_rules
from tests.support.toolchains import RELEASES

MB = 1 << 20
OWN_TIMERS = 2  # the scavenger sleeps
HAS_CLEANUPS = tuple(release for release in RELEASES if release >= "1.24")


def report_on(target: Holds) -> dict[str, Any]:
    with Target.open(target.pid) as process, Inspector.open(process) as inspector:
        report: dict[str, Any] = snapshot_target(inspector).to_dict()
    assert broken_rules(report) == []
    assert [limit for limit in report["limits"] if limit["id"] == "runtime-memory-partly"] == []
    return report


def structure(target: Holds) -> dict[str, Any]:
    found: dict[str, Any] = report_on(target)["structure"]
    return found


def findings(report: dict[str, Any]) -> dict[str, Any]:
    return {finding["id"]: finding for finding in report["findings"]}


def until(target: Holds, holds_of: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the structure as soon as that holds of it: the runtime's goroutines have their own pace."""
    deadline = time.monotonic() + 30
    while not holds_of(found := structure(target)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holds_of(found), (found["timers"], found["specials"], found["queued"])
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_timers_finalizers_and_cleanups_are_as_many_as_the_program_made(release: str) -> None:
    with holds(release) as target:
        first = structure(target)["specials"]["finalizers"]  # of os.Stdin and the like
        target.say("timers", 1500)
        target.say("finalizers", 2500)
        cleanups = 700 if release in HAS_CLEANUPS else 0
        if cleanups:
            target.say("cleanups", cleanups)
        found = structure(target)
        assert 1500 <= found["timers"]["count"] - found["timers"]["stopped"] <= 1500 + OWN_TIMERS
        assert found["timers"]["functions"][0] == {"function": "main.fire", "timers": 1500}
        assert found["specials"]["finalizers"] == first + 2500
        for kind in ("cleanups", "weak_handles"):
            assert found["specials"].get(kind, 0) == cleanups
        assert found["queued"]["finalizers"] + (found["queued"]["cleanups"] or 0) == 0
        target.say("stop")
        target.say("forget", 2)
        gone = until(target, lambda now: now["specials"]["finalizers"] == first and not now["specials"].get("cleanups"))
        assert gone["timers"]["count"] - gone["timers"]["stopped"] <= OWN_TIMERS


@pytest.mark.parametrize("release", ["1.19", "1.23.9", "1.27.3"])
def test_finalizers_behind_one_that_blocks_are_said_to_wait_and_others_are_not(release: str) -> None:
    with holds(release) as target:
        target.say("finalizers", 3000)
        target.say("forget")
        until(target, lambda now: now["queued"]["finalizers"] == 0)
        assert "waiting-finalizers" not in findings(report_on(target))
        target.say("stuck")
        target.say("finalizers", 3000)
        target.say("forget")
        until(target, lambda now: now["queued"]["finalizers"] == 3001)  # the one that blocks is not done yet
        said = findings(report_on(target))["waiting-finalizers"]
        assert said["evidence"]["queued_finalizers"] == 3001
        target.say("open")
        until(target, lambda now: now["queued"]["finalizers"] == 0)
        assert "waiting-finalizers" not in findings(report_on(target))


def test_timers_that_hold_much_are_told_of_and_stopped_ones_are_not() -> None:
    with holds("1.27.3") as target:
        target.say("timers", 200_000)
        report = report_on(target)
        said = findings(report)["many-timers"]
        assert 200_000 <= said["evidence"]["timers"] <= 200_000 + OWN_TIMERS
        assert report["structure"]["timers"]["looked_at"] < 200_000
        assert said["evidence"]["function"] == "main.fire"
        target.say("stop")
        assert "many-timers" not in findings(report_on(target))


def test_profile_records_of_many_stacks_are_told_of_and_of_few_are_not() -> None:
    with holds("1.27.3") as target:
        target.say("stacks", 10)
        assert "profile-buckets" not in findings(report_on(target))
        told = target.say("stacks", 17)["MemStats"]
        report = report_on(target)
    size = findings(report)["profile-buckets"]["evidence"]["buck_hash_sys"]
    assert 0 <= size - told["BuckHashSys"] < MB  # its answer was allocated, too
    assert told["BuckHashSys"] > 16 * MB
    buckets = report["structure"]["profile_buckets"]
    assert buckets["memory"] > 1 << 16
    assert buckets["block"] is buckets["mutex"] is None  # stripped, and nothing in it reads those profiles
