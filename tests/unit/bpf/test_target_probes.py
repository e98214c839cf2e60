"""Which counters the uprobes of a target have, over the programs that it runs one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gomem.bpf.governor import FOR_USED, GovernedUprobes
from gomem.bpf.probes.uprobes import counter_of
from gomem.bpf.program import SYSCALLS, Counter
from gomem.bpf.source import exit_last
from gomem.bpf.target_probes import TargetProbes
from gomem.tracer.events.probes import SkippedUprobe, UprobeSpec
from gomem.tracer.events.record import EVENT, EventKind


def specs(program: str, *names: str) -> list[UprobeSpec]:
    return [UprobeSpec(name, EventKind.GROW, f"runtime.{name}", program, at) for at, name in enumerate(names)]


def used(program: str) -> GovernedUprobes:
    return GovernedUprobes([UprobeSpec("used", EventKind.USED, "runtime.sysUsed", program, 7)], 0.01, FOR_USED)


def hits(probes: TargetProbes, counters: Sequence[int]) -> dict[str, int]:
    of_all = np.zeros(Counter.HITS + len(counters), np.uint64)
    of_all[Counter.HITS :] = counters
    return {status.role: status.hits for status in probes.statuses(of_all, "all calls")[len(SYSCALLS) :]}


def test_each_program_has_counters_of_its_own() -> None:
    probes = TargetProbes(16)
    first, governed = specs("/a", "grow", "map"), used("/a")
    cookies, numbered = probes.begin(first, [governed])
    assert [counter_of(cookies[spec]) for spec in first] == [0, 1]
    assert numbered == [(governed, 2)]
    assert hits(probes, [10, 11, 12, 13, 14, 15]) == {"grow": 10, "map": 11, "used": 12}
    second, next_governed = specs("/b", "grow"), used("/b")
    cookies, numbered = probes.begin(second, [next_governed])
    assert [counter_of(cookies[spec]) for spec in second] == [3]
    assert numbered == [(next_governed, 4)]
    more, skipped = probes.number(specs("/plugin", "grow", "map"))
    assert ([counter_of(cookie) for cookie in more.values()], skipped) == ([3, 5], [])
    assert hits(probes, [10, 11, 12, 13, 14, 15]) == {"grow": 13, "used": 14, "map": 15}


def test_a_program_for_which_no_counters_are_left_has_no_probes() -> None:
    probes = TargetProbes(3)
    probes.begin(specs("/a", "grow", "map"), [])
    wanted = specs("/b", "grow")
    assert probes.begin(wanted, [used("/b")]) == ({}, [])
    assert [skipped.spec for skipped in probes.skipped] == wanted
    assert (probes.specs, probes.governed, probes.attached) == ((), (), False)


@pytest.mark.parametrize("were_on", [False, True])
def test_governed_probes_that_never_were_on_are_not_shown(were_on: bool) -> None:
    probes, governed = TargetProbes(16), used("/a")
    grow, cause = specs("/a", "grow", "cause")
    probes.begin([grow, cause], [governed])
    probes.hold(None, [SkippedUprobe(cause, "why")])
    governed.failure, governed.were_on = "no room", were_on
    assert hits(probes, [1, 2, 3]) == ({"grow": 1, "used": 3} if were_on else {"grow": 1})


def test_an_exit_is_put_behind_what_came_later() -> None:
    batch = np.zeros(3, EVENT)
    batch["time"], batch["kind"] = (10, 20, 30), (EventKind.MMAP, EventKind.EXIT, EventKind.RSS)
    last = exit_last(batch)
    assert last["kind"].tolist() == [EventKind.MMAP, EventKind.RSS, EventKind.EXIT]
    assert last["time"].tolist() == [10, 30, 30]
    assert exit_last(last) is last
