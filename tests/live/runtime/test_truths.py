"""Snapshots of parked targets against what the targets know of themselves, release by release."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector, Snapshot
from gomem.tracer.snapshot.join import accounting
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import build
from tests.support.parked import Flag, MemStats, parked
from tests.support.processes import rss, running, vm_size, wait_until
from tests.support.rules import broken_rules
from tests.support.toolchains import ALL_RELEASES, RELEASES

SHAPE: dict[str, Flag] = {
    "live": 24, "garbage": 0.6, "goroutines": 60, "depth": 12, "ended": 100, "big": 6, "bigdrop": 3,
    "release": True, "regrow": 12, "dirty": 300,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a target while it stood still, and the truth about that moment."""

    look: Snapshot
    report: dict[str, Any]
    truth: MemStats
    by_size: list[list[int]]
    rss: int
    vm_size: int


@pytest.fixture(scope="module", params=[(release, stripped) for release in ALL_RELEASES for stripped in (False, True)],
                ids=lambda param: f"{param[0]}{'-stripped' if param[1] else ''}")  # fmt: skip
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    release, stripped = request.param
    with (
        parked(build("parked", release, stripped=stripped), SHAPE, env={"GOMAXPROCS": "3"}) as target,
        Target.open(target.pid) as process,
        Inspector.open(process) as inspector,
    ):
        look = inspector.look()
        report = snapshot_target(inspector).to_dict()
        resident, size = rss(target.pid), vm_size(target.pid)
        # Each record flushes what the mcaches held, and is followed by new objects: the first one is the truth.
        truth = target.memstats()
        yield Seen(look, report, truth, target.by_size, resident, size)


def test_every_field_of_memstats_is_the_targets_own(seen: Seen) -> None:
    told = {name: value for name, value in seen.report["memstats"].items() if name != "BySize"}
    truth = seen.truth
    assert {name: (value, truth[name]) for name, value in told.items() if value != truth[name]} == {}
    assert len(told) >= 25


def test_objects_are_counted_by_size_as_the_target_does(seen: Seen) -> None:
    told, truth = seen.report["memstats"]["BySize"], seen.by_size
    assert [row for row in told if row[0]] == [row for row in truth if row[0]]


def test_the_snapshot_is_exact_and_accounts_for_every_ready_byte(seen: Seen) -> None:
    assert seen.look.runtime is not None
    assert seen.look.runtime.consistency.exact
    assert seen.look.runtime.missed == []
    account = accounting(seen.look.space, seen.look.runtime)
    assert account is not None
    assert account.unexplained == 0
    assert seen.report["consistency"]["exact"]
    assert seen.report["accounting"]["unexplained"] == 0


def test_every_rule_of_the_report_holds(seen: Seen) -> None:
    assert broken_rules(seen.report, smaps_rollup_rss=seen.rss, vm_size=seen.vm_size) == []


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(("target", "flags"), [("churn", ["-phase=300ms", "-mb=96"]), ("allocloop", [])])
def test_of_a_busy_target_the_rules_hold_or_the_skew_is_stated(release: str, target: str, flags: list[str]) -> None:
    exact, looks = 0, 0
    with running(build(target, release), *flags) as process:
        wait_until(lambda: rss(process.pid) > 24 << 20, "growth")
        with Target.open(process.pid) as watched, Inspector.open(watched) as inspector:
            # A heap that is never at rest is read exactly nearly always, by a reader that is let run.
            while looks < 12 or (exact < looks // 2 and looks < 60):
                looks += 1
                report: dict[str, Any] = snapshot_target(inspector).to_dict()
                assert report["memstats"] is not None, report["limits"]
                exact += report["consistency"]["exact"]
                # smaps_rollup is read a moment after the pages: its sums agree with theirs on quiet targets only.
                rollup = ("anonymous + file", "resident.")
                broken = [rule for rule in broken_rules(report) if not rule.startswith(rollup)]
                assert broken == []
                time.sleep(0.1)
    # This catches a reader that hardly ever is exact.
    assert exact >= looks // 2
