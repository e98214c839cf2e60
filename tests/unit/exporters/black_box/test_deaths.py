"""Verdicts on processes that have ended: what was OOM, what was a crash, and what must wait for the kernel's word."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import pytest

from gomem.exporters.black_box.box import Noticed
from gomem.exporters.black_box.deaths import Deaths, Verdict
from gomem.exporters.black_box.followed import Followed
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.ending.afterlife import WaitStatus
from gomem.tracer.fleet.view import CgroupView, FleetView
from gomem.tracer.report import OomKill
from tests.support.samples.reports import grown_and_scavenged
from tests.support.samples.views import HEALTH, target

KILLED = WaitStatus(None, 9, False)
NAMED = OomKill("cgroup", "/batch", 64 << 20, True)


@dataclass
class Life:
    pid: int = 7


@dataclass
class Endings:
    """What the kernel tells, as a test wants it."""

    told: WaitStatus | None
    log: bool = True
    victims: dict[int, OomKill] = field(default_factory=dict)

    def status(self, life: Life) -> WaitStatus | None:
        return self.told

    def victim(self, pid: int) -> OomKill | None:
        return self.victims.get(pid)

    def names_victims(self, since: float) -> bool:
        return self.log


def ended(deaths: Deaths, seconds_ago: float = 0.0) -> None:
    report = grown_and_scavenged()
    one = Followed(Life(), target(7, report, cgroup="/batch"), report, 0.0)  # type: ignore[arg-type]
    deaths.add(one, replace(Noticed(), moment=time.monotonic_ns() - round(seconds_ago * 1e9)))


def counting(deaths: Deaths, kills: int, seconds_ago: float = 0.0) -> None:
    cgroups = (CgroupView("/batch", Workload(), None, kills),)
    deaths.see(FleetView((), HEALTH, 0.0, cgroups, published=time.monotonic() - seconds_ago))


def verdicts(deaths: Deaths, *, final: bool = False) -> list[Verdict]:
    return list(deaths.decided(final=final))


@pytest.mark.parametrize(
    ("status", "asked", "unasked"),
    [
        (WaitStatus(0, None, False), None, None),
        (WaitStatus(3, None, False), "crash", None),
        (WaitStatus(None, 11, True), "crash", None),
        (WaitStatus(None, 15, False), None, None),
        (WaitStatus(None, 2, False), None, None),
    ],
)
def test_a_crash_is_kept_only_where_that_is_asked_for(
    status: WaitStatus, asked: str | None, unasked: str | None
) -> None:
    for crashes, kept in ((True, asked), (False, unasked)):
        deaths = Deaths(Endings(status), crashes=crashes)  # type: ignore[arg-type]
        ended(deaths)
        (verdict,) = verdicts(deaths)
        assert verdict.kept_for == kept
        assert (verdict.ending.exit_code, verdict.ending.core_dumped) == (status.code, status.core_dumped)


def test_the_log_names_the_victim_at_once_or_a_moment_later() -> None:
    endings = Endings(KILLED)
    deaths = Deaths(endings, crashes=False)  # type: ignore[arg-type]
    ended(deaths)
    assert verdicts(deaths) == []
    assert deaths.time_to_wait(1.0) < 1.0
    endings.victims[7] = NAMED
    (verdict,) = verdicts(deaths)
    assert (verdict.kept_for, verdict.ending.oom) == ("oom-kill", NAMED)
    assert deaths.time_to_wait(1.0) == 1.0


@pytest.mark.parametrize("crashes", [True, False])
def test_whom_the_log_does_not_name_somebody_else_has_killed_whatever_the_cgroup_counts(crashes: bool) -> None:
    deaths = Deaths(Endings(KILLED), crashes=crashes)  # type: ignore[arg-type]
    counting(deaths, 0, 5)
    counting(deaths, 1)
    ended(deaths, 2)
    (verdict,) = verdicts(deaths)
    assert (verdict.kept_for, verdict.ending.oom) == ("crash" if crashes else None, None)


@pytest.mark.parametrize("told", [KILLED, None])
def test_without_the_log_the_count_of_its_cgroup_speaks(told: WaitStatus | None) -> None:
    deaths = Deaths(Endings(told, log=False), crashes=False)  # type: ignore[arg-type]
    counting(deaths, 0, 5)
    ended(deaths, 2)
    assert verdicts(deaths) == []
    counting(deaths, 1)
    (verdict,) = verdicts(deaths)
    assert verdict.kept_for == "oom-kill"
    assert verdict.ending.oom == OomKill(None, "/batch", None, proven=False, kills=1)


def test_without_the_log_a_count_that_stays_speaks_against_it() -> None:
    deaths = Deaths(Endings(KILLED, log=False), crashes=False)  # type: ignore[arg-type]
    counting(deaths, 4, 5)
    ended(deaths, 2)
    assert verdicts(deaths) == []
    counting(deaths, 4)
    (verdict,) = verdicts(deaths)
    assert verdict.kept_for is None


def test_nobody_is_waited_for_without_end_and_not_when_gomem_ends() -> None:
    deaths = Deaths(Endings(KILLED, log=False), crashes=True)  # type: ignore[arg-type]
    ended(deaths, 11)
    ended(deaths)
    (late,) = verdicts(deaths)
    assert late.kept_for == "crash"
    (last,) = verdicts(deaths, final=True)
    assert last.kept_for == "crash"
