"""How many buckets the runtime's profiles have, against what the program is told of its own by package runtime."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector
from gomem.tracer.watch.snapshot_report import snapshot_target
from tests.support.builds import build
from tests.support.rules import broken_rules
from tests.support.toolchains import RELEASES

MB = 1 << 20


class Sampled:
    """The program tests/targets/sampled."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def make(self, kind: str, depth: int) -> dict[str, int]:
        """Let it make 2**depth stacks; return how many records each profile has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind} {depth}\n")
        self._process.stdin.flush()
        told: dict[str, int] = json.loads(self._process.stdout.readline())
        return told


@contextmanager
def sampled(release: str, *, stripped: bool) -> Iterator[Sampled]:
    path = build("sampled", release, stripped=stripped)
    process = subprocess.Popen([str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Sampled(process)
    finally:
        process.kill()
        process.communicate()


def report_of(inspector: Inspector) -> dict[str, Any]:
    report: dict[str, Any] = snapshot_target(inspector).to_dict()
    assert broken_rules(report) == []
    assert [limit for limit in report["limits"] if limit["id"] == "profile-bucket-counts"] == []
    return report


def looked_at(target: Sampled, inspector: Inspector) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a report, and how many records each profile had before and after it was taken."""
    for _ in range(10):
        before = target.make("count", 0)
        report = report_of(inspector)
        if target.make("count", 0) == before:
            break
    return report, before


def counts(pid: int) -> Any:
    """What somebody says who has not looked before."""
    with Target.open(pid) as process, Inspector.open(process) as inspector:
        return report_of(inspector)["structure"]["profile_buckets"]


@pytest.mark.parametrize(("release", "stripped"), [*((release, True) for release in RELEASES), (RELEASES[-1], False)])
def test_buckets_are_as_many_as_the_program_is_told(release: str, stripped: bool) -> None:
    with (
        sampled(release, stripped=stripped) as target,
        Target.open(target.pid) as process,
        Inspector.open(process) as inspector,
    ):
        few = target.make("memory", 5)
        assert few["memory"] >= 3 * 32
        report = report_of(inspector)
        assert report["structure"]["profile_buckets"] is None
        assert "profile-buckets" not in [one["id"] for one in report["findings"]]
        target.make("memory", 14)
        target.make("block", 5)
        target.make("mutex", 4)
        report, told = looked_at(target, inspector)
        assert told["memory"] > 40_000
        assert told["block"] > 16  # of 32: the other goroutine may be there first
        assert told["mutex"] > 0
        assert report["structure"]["profile_buckets"] == told
        said = next(one for one in report["findings"] if one["id"] == "profile-buckets")
        assert {name: said["evidence"][f"{name}_buckets"] for name in told} == told
        assert f"{told['memory']:,} of memory" in said["explanation"]
        target.make("memory", 4)
        report, more = looked_at(target, inspector)
        assert more["memory"] > told["memory"]
        assert report["structure"]["profile_buckets"] == more == counts(target.pid)
