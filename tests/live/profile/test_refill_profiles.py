"""Profiles of refills against what the process itself counts, by site, and its runtime, in all."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from gomem.bpf import refills
from gomem.bpf.stacks import StackRoom
from gomem.tracer.errors import TargetGone
from gomem.tracer.report.profile import Profile
from tests.support.builds import Mode, build
from tests.support.refills import Own, commanded, estimate, limits, profile_during

pytestmark = pytest.mark.bpf

MOST = 4.0  # standard errors by which one of some dozen estimates may miss
RANDOM = ("plain", "linked", "often", "seldom", "outer")
LARGE = ("forty", "million")


def watched(binary: Path) -> tuple[Profile, Own]:
    """Return the profile of a bounded run, and what the process says itself of the same time."""
    with commanded(binary) as commands:
        commands.allocate()
        before = commands.own()
        profile = profile_during(commands.pid, commands.allocate)
        return profile, commands.own().since(before)


BUILDS: list[tuple[str, Mode]] = [
    ("1.19", "exe"), ("1.21.13", "exe"), ("1.25.5", "exe"), ("1.26.6", "exe"), ("1.27.3", "exe"),
    ("1.27.3", "pie"), ("1.25.5", "cgo-pie"),
]  # fmt: skip


@pytest.fixture(scope="module", params=BUILDS, ids=lambda one: "-".join(one))
def seen(request: pytest.FixtureRequest) -> tuple[Profile, Own]:
    release, mode = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GODEBUG", "memprofilerate=0")
        return watched(build("refills", release, stripped=True, mode=mode))


def test_each_site_has_what_it_allocated_within_the_error_that_is_told(seen: tuple[Profile, Own]) -> None:
    profile, own = seen
    for site in RANDOM:
        objects, size = own.sites[site]
        found = estimate(profile, f"main.new{site.capitalize()}")
        assert abs(found.objects - objects) <= MOST * found.objects_error, site
        assert abs(found.bytes - size) <= MOST * found.bytes_error, site
        assert 0 < found.objects_error < 0.2 * objects, site


def test_large_objects_are_counted_to_the_byte(seen: tuple[Profile, Own]) -> None:
    profile, own = seen
    for site in LARGE:
        found = estimate(profile, f"main.new{site.capitalize()}", large=True)
        assert (found.objects, found.bytes) == own.sites[site]
        assert found.bytes_error == 0


def test_all_of_it_is_what_the_runtime_has_counted(seen: tuple[Profile, Own]) -> None:
    profile, own = seen
    objects, size = (sum(sample.values[at] for sample in profile.samples) for at in (0, 1))
    assert objects == pytest.approx(own.mallocs, abs=100)  # what the process needs to be told and to tell
    assert size == pytest.approx(own.total, abs=100_000)
    assert limits(profile) <= {"refill-rhythm"}  # of 64 bytes without pointers there is one site


def test_stacks_lead_from_main_to_the_function_that_allocates(seen: tuple[Profile, Own]) -> None:
    profile, _ = seen
    stacks = {
        tuple(line.function for at in sample.stack for line in profile.locations[at].lines)
        for sample in profile.samples
    }
    ends = ("main.allocate", "main.main", "runtime.main")
    assert ("main.newPlain", *ends) in stacks
    assert len(stacks) == len({(tuple(sample.stack)) for sample in profile.samples})
    assert ("main.inner", "main.newOuter", *ends) in stacks
    assert ("main.newMillion", *ends) in stacks


def test_objects_of_one_size_in_turns_are_warned_of() -> None:
    with commanded(build("refills", "1.27.3")) as commands:
        profile = profile_during(commands.pid, commands.take_turns)
        own = commands.own()
    evenly, oddly = (estimate(profile, f"main.new{name}") for name in ("Evenly", "Oddly"))
    together = own.sites["evenly"][0] + own.sites["oddly"][0]
    assert evenly.objects + oddly.objects == pytest.approx(together, rel=0.02)
    assert any("in a fixed order" in comment for comment in profile.comments)
    # A thread that is moved to another P keeps another time there: then it shows. Else all are counted for one.
    if max(evenly.objects, oddly.objects) > 0.95 * together:
        assert limits(profile) == {"refill-rhythm"}
        assert "objects of 1024 bytes" in profile.limits[0].why
    else:
        assert abs(evenly.objects - own.sites["evenly"][0]) <= MOST * evenly.objects_error


def test_a_process_that_does_nothing_has_an_empty_profile_which_says_so() -> None:
    with commanded(build("refills", "1.27.3")) as commands:
        profile = profile_during(commands.pid, lambda: None, seconds=0.5, waits=True)
    assert not [sample for sample in profile.samples if sample.stack and profile.locations[sample.stack[0]].address]
    assert limits(profile) == {"refill-empty"}
    assert profile.duration_ns >= 500_000_000


def test_a_process_that_ends_meanwhile_has_what_it_did_until_then() -> None:
    with commanded(build("refills", "1.26.6")) as commands:

        def act() -> None:
            commands.allocate()
            os.kill(commands.pid, signal.SIGKILL)

        profile = profile_during(commands.pid, act, waits=True)
    assert limits(profile) - {"refill-rhythm"} == {"ended-early"}
    found = estimate(profile, "main.newMillion", large=True)
    assert (found.objects, found.bytes) == (20, 20 << 20)
    plain = estimate(profile, "main.newPlain")
    assert abs(plain.objects - 400_000) < MOST * plain.objects_error + 0.05 * 400_000


def test_what_the_process_executes_in_its_stead_is_no_part_of_it() -> None:
    with commanded(build("refills", "1.27.3", mode="pie")) as commands:

        def act() -> None:
            commands.allocate()
            assert not any(objects for objects, _ in commands.execute_anew().sites.values())

        profile = profile_during(commands.pid, act, waits=True)
    assert limits(profile) - {"refill-rhythm"} == {"ended-early"}
    assert any("executed another program" in limit.why for limit in profile.limits)
    found = estimate(profile, "main.newMillion", large=True)
    assert (found.objects, found.bytes) == (20, 20 << 20)


def test_stacks_for_which_there_is_no_room_are_told_and_lose_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refills, "StackRoom", partial(StackRoom, stacks=2))
    profile, own = watched(build("refills", "1.25.5"))
    assert "refill-no-room" in limits(profile)
    assert estimate(profile, "(no room for the stack)").bytes > 0
    assert sum(sample.values[1] for sample in profile.samples) == pytest.approx(own.total, abs=100_000)


def test_who_is_gone_is_told() -> None:
    with commanded(build("refills", "1.27.3")) as commands:
        pass
    with pytest.raises(TargetGone):
        profile_during(commands.pid, lambda: None)
