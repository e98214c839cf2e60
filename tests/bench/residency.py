"""What the roles page-faults and rss cost: the target at each page that it faults in, and everybody else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from gomem.bpf import cost
from gomem.bpf.program import target_ids
from gomem.bpf.residency_roles import Residency
from gomem.tracer.events.optional_roles import RESIDENCY_ROLES, OptionalRole
from gomem.tracer.process.guardian import Guardian
from tests.bench.rounds import Cost, Rounds, rounds_of
from tests.support.builds import built

_TURNS = 4  # with and without, again and again: what else runs on the machine weighs on both
FAULTS, RSS = frozenset((OptionalRole.PAGE_FAULTS,)), frozenset((OptionalRole.RSS,))


def per_fault(target: Rounds, pid: int, roles: frozenset[OptionalRole], seconds: float) -> float:
    """Return the CPU seconds that a fault of `target` costs more while `pid` is watched."""
    without, watched, guardian = [], [], Guardian()
    for _ in range(_TURNS):
        without.append(target.best(seconds / _TURNS))
        residency = Residency(pid, target_ids(pid), roles, guardian)
        if missing := residency.limits():
            raise SystemExit(f"cannot watch: {missing}")
        watched.append(target.best(seconds / _TURNS))
        residency.stop(0, lambda: False)
    guardian.close()
    return min(watched) - min(without)


def costs(release: str, seconds: float) -> Iterator[Cost]:
    """Measure one after the other."""
    with rounds_of(built("faults", release)) as target, subprocess.Popen(["sleep", "infinity"]) as other:
        try:
            yield Cost("page fault that brings 4 KB of memory, not watched", target.best(seconds))
            yield Cost("  more, --with page-faults", per_fault(target, target.pid, FAULTS, seconds), cost.PAGE_FAULT)
            yield Cost("  more, --with rss", per_fault(target, target.pid, RSS, seconds), cost.RSS_CHANGE)
            both = per_fault(target, target.pid, RESIDENCY_ROLES, seconds)
            yield Cost("  more, with both", both, cost.PAGE_FAULT + cost.RSS_CHANGE)
            yield Cost("  more, another process watched for faults", per_fault(target, other.pid, FAULTS, seconds))
            yield Cost("  more, another process watched for rss", per_fault(target, other.pid, RSS, seconds))
        finally:
            other.kill()
