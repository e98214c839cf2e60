"""A program that takes back scavenged memory all the time: the probe that tells of it goes and comes back."""

from __future__ import annotations

import time

import pytest

from gomem.bpf.governor import GovernedUprobes
from gomem.bpf.probes.uprobes import Keeper
from gomem.bpf.switchable_uprobes import Probed
from gomem.tracer.cli.watching import watch
from gomem.tracer.watch.backend import TraceRequest
from tests.support.builds import build
from tests.support.command import gomem
from tests.support.processes import running

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(300)]

WHAT = "all events of role used"


@pytest.mark.parametrize("release", ["1.19", "1.27.3"])
def test_what_it_would_cost_too_much_to_watch_is_learned_from_looks(release: str) -> None:
    with running(build("scavenger", release), "-mb", "32", "-block", "64") as target:
        words = ("trace", "--pid", target.pid, "--duration", "8", "--format", "json")
        little = gomem(*words, "--budget", "0.04").report()
        all_of_it = gomem(*words, "--budget", "100").report()
    (limit,) = [one for one in little["limits"] if one["what"] == WHAT]
    assert "0.005 %" in limit["why"]
    assert not [one for one in all_of_it["limits"] if one["what"] == WHAT]
    for report in (little, all_of_it):
        assert report["event_loss"]["lost"] == 0
        assert report["event_loss"]["drift_bytes"] == 0
        assert report["drift"]["exact_looks"] >= 1  # a busy machine has no time for more
        assert (report["drift"]["illegal_count"], report["drift"]["illegal"]) == (0, [])
    assert 0 < little["events"]["used"]["count"] < all_of_it["events"]["used"]["count"] / 5
    assert little["events"]["unused"]["count"] > all_of_it["events"]["unused"]["count"] / 5


def test_what_was_used_before_that_was_watched_for_is_no_anomaly(monkeypatch: pytest.MonkeyPatch) -> None:
    put_on = GovernedUprobes.start

    def late(used: GovernedUprobes, programs: Probed, pid: int, first: int, keeper: Keeper) -> None:
        time.sleep(0.3)  # the others are on: pages are given back, used unseen, and given back again
        put_on(used, programs, pid, first, keeper)

    monkeypatch.setattr(GovernedUprobes, "start", late)
    with running(build("scavenger", "1.25.5"), "-mb", "32", "-block", "64") as target:
        report = watch(TraceRequest(target.pid, (), 3.0, "bpf", True, budget=1.0))
    assert report.drift is not None
    assert report.event_loss is not None
    assert (report.drift.illegal_count, report.event_loss.drift_bytes) == (0, 0)
    assert report.drift.exact_looks >= 1
