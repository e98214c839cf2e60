"""What counting allocations costs a program that does nothing else, and how near its estimates come to the truth.

`make bench-allocs`, or: python -m tests.bench.allocs --seconds 30 --rounds 2

The cost is that of twins on one CPU, as in overhead.py: one is counted, then the other, so that what makes the two
differ falls out. Each gets half of the CPU, and so half of the budget: that is the whole of it by its CPU time. The
truth is what the program counts itself, by type and so by the one line that makes that type, and what its runtime
counts, by size class. In a run in which the program itself samples every object (MemProfileRate 1), the order of call
sites is that of its own heap profile, as go tool pprof tells it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.overhead_figures import of_twins, ratio
from tests.bench.overhead_targets import Ticker, Workload, twins
from tests.support import pprof
from tests.support.builds import TARGETS, built
from tests.support.command import executable

TOP = 10


@dataclass(slots=True)
class Pairs:
    """Work per CPU second of the first twin by the second's, by which of them was counted."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)


def counted(pid: int, seconds: float, budget: str) -> dict[str, Any]:
    """Have gomem count a process's allocations; return the report."""
    command = [executable(), "trace", "--pid", str(pid), "--allocs", "--budget", budget, "-d", f"{seconds:g}"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def by_cpu(pair: tuple[Workload, Workload], begin: float, end: float) -> float:
    """Return the work per CPU second of the first twin by the second's."""
    first, second = (one.target.rate(begin, end).by_cpu for one in pair)
    return first / second


def loss(release: str, seconds: float, rounds: int, budget: str) -> None:
    """Print what is left of the work of a program that is counted."""
    traced, untraced = Pairs(), Pairs()
    with twins("allocloop", release) as pair:
        time.sleep(min(1.0, seconds))
        for _ in range(rounds):
            for which, (into, beside) in enumerate(((traced.first, untraced.first), (traced.second, untraced.second))):
                begin = time.monotonic()
                time.sleep(seconds)
                beside.append(by_cpu(pair, begin, time.monotonic()))
                begin = time.monotonic()
                report = counted(pair[which].pid, seconds, f"{float(budget) / 2:g}")
                into.append(by_cpu(pair, begin, time.monotonic()))
                found = report["allocations"]
                estimate = report["overhead"]["target_slowdown_estimate"]
                whole, lost = found["runtime_objects"] or 0, 100 * (estimate or 0)
                print(f"  {found['bursts']} bursts, {found['objects']:,} of {whole:,} objects;"
                      f" {1e9 * (found['hit_seconds'] or 0):.0f} ns a hit, so it lost {lost:.2f} %")  # fmt: skip
    print(f"work per CPU second, counted / not counted: {ratio(of_twins(traced.first, traced.second))}")
    print(f"the same while nobody counts: {ratio(of_twins(untraced.first, untraced.second))}")


class Truth:
    """Asks tests/targets/mixture how many objects of each type it has made."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def made(self) -> dict[str, tuple[int, int]]:
        """Return objects and size by type."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        found = {}
        while line := self._process.stderr.readline().decode().strip():
            count, size, name = line.split(" ", 2)
            found[name] = int(count), int(size)
        return found


def misses(estimates: dict[str, float], truth: dict[str, float]) -> list[float]:
    """Return by how much each estimate misses its share of the truth, as parts of that."""
    whole, all_true = sum(estimates.get(name, 0.0) for name in truth), sum(truth.values())
    return [abs(estimates.get(name, 0.0) / whole / (value / all_true) - 1) for name, value in truth.items() if value]


def show_classes(found: dict[str, Any]) -> None:
    """Print how far the estimates of size classes are off."""
    rows = [row for row in found["classes"] if row["runtime_objects"] and row["estimated_objects"]]
    missed = len(found["classes"]) - len(rows)
    held = [row["runtime_bytes"] for row in rows]
    off = [abs(row["estimated_objects"]["value"] / row["runtime_objects"] - 1) for row in rows]
    inside = [
        (row["estimated_objects"]["low"] or 0) <= row["runtime_objects"] <= (row["estimated_objects"]["high"] or 1e99)
        for row in rows
    ]
    weighted = sum(one * size for one, size in zip(off, held, strict=True)) / sum(held)
    large = [one for one, size in zip(off, held, strict=True) if size > sum(held) / 1000]
    print(f"bytes by size class: {len(rows)} classes, off by {100 * weighted:.1f} % on average by bytes,"
          f" {100 * max(large):.1f} % at worst of those with a thousandth; {sum(inside)} within their intervals,"
          f" {missed} not seen")  # fmt: skip


def place(first: list[str], second: list[str]) -> str:
    """Return how many of the second are at the same place in both."""
    same = sum(one == other for one, other in zip(first, second, strict=False))
    return f"{same} of the first {len(second)} are in their right place"


def show_types(found: dict[str, Any], before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    """Print how far the estimates of types are off, and whether the first are in the right order."""
    sizes = {row["name"]: row["bytes"] / row["objects"] for row in found["types"] if row["objects"]}
    truth = {name: float(after[name][0] - before[name][0]) * sizes.get(name, size) for name, (_, size) in after.items()}
    estimates = {row["name"]: value_of(row) for row in found["types"]}
    off = misses(estimates, truth)
    ours = [row["name"] for row in found["types"] if row["name"] in truth][:TOP]
    true = sorted(truth, key=truth.__getitem__, reverse=True)[:TOP]
    print(f"bytes by type: off by {100 * statistics.fmean(off):.1f} % on average, {100 * max(off):.1f} % at worst;"
          f" {place(ours, true)}")  # fmt: skip
    show_sites(found, {line_of(name): value for name, value in truth.items()})


def value_of(row: dict[str, Any]) -> float:
    """Return the bytes of a type or a call site in the whole time."""
    return float((row["estimated_bytes"] or {"value": row["bytes"]})["value"])


def line_of(name: str) -> str:
    """Return the line of tests/targets/mixture that makes a type."""
    wanted = f"return &{name.removeprefix('main.')}{{}}"
    source = (TARGETS / "mixture" / "main.go").read_text().splitlines()
    return f"main.go:{next(number for number, line in enumerate(source, 1) if line.strip() == wanted)}"


def sites_of(found: dict[str, Any]) -> dict[str, float]:
    """Return the bytes by line of the target, the most first."""
    rows = [row for row in found["sites"] if row["function"] == "main.make1"]
    return {f"{row['file'].rpartition('/')[2]}:{row['line']}": value_of(row) for row in rows}


def show_sites(found: dict[str, Any], truth: dict[str, float]) -> None:
    """Print how far the estimates of call sites are off, and whether the first are in the right order."""
    estimates = sites_of(found)
    off = misses(estimates, truth)
    true = sorted(truth, key=truth.__getitem__, reverse=True)[:TOP]
    print(f"bytes by call site: off by {100 * statistics.fmean(off):.1f} % on average, {100 * max(off):.1f} % at worst;"
          f" {place(list(estimates)[:TOP], true)}; {found['unsited_objects']} objects without")  # fmt: skip


def profiled(release: str, seconds: float, budget: str) -> None:
    """Print the order of call sites beside that of the program's own heap profile of all objects, in one run."""
    path = built("mixture", release, extra_flags=["-tags=profiled"])
    with tempfile.TemporaryDirectory() as directory:
        profile = Path(directory) / "allocs.pb.gz"
        settings = {"GODEBUG": "memprofilerate=1", "MIXTURE_PROFILE": str(profile)}
        quiet = subprocess.DEVNULL
        with subprocess.Popen([path, "-steady"], env=os.environ | settings, stdin=quiet, stdout=quiet) as process:
            try:
                found = counted(process.pid, seconds, budget)["allocations"]
                process.terminate()
                process.wait()
            finally:
                process.kill()
        rows = pprof.top("-lines", str(profile), sample_type="alloc_space", unit="B")
    of_target = [row.name.split()[1] for row in rows if row.name.startswith("main.make1 ") and row.flat]
    lines = [line.rpartition("/")[2] for line in of_target]
    print(f"call sites beside its own profile of all objects (MemProfileRate 1, {found['bursts']} bursts):"
          f" {place(list(sites_of(found))[:TOP], lines[:TOP])}")  # fmt: skip


def accuracy(release: str, seconds: float, budget: str, *how: str) -> None:
    """Print how near estimates come to what a program of many types has counted itself; `how` it mixes them."""
    path = built("mixture", release)
    with subprocess.Popen(
        [path, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            ticker = Ticker(process)
            ticker.start()
            ticker.begun()
            truth = Truth(process)
            begin, before = time.monotonic(), truth.made()
            found = counted(process.pid, seconds, budget)["allocations"]
            after = truth.made()
            rate = ticker.rate(begin, time.monotonic()).by_clock
        finally:
            process.kill()
    print(f"mixture {' '.join(how) or 'in phases'}, Go {release}: {rate / 1e6:.1f} million objects a second;"
          f" {found['bursts']} bursts, {100 * found['coverage']:.2f} % seen")  # fmt: skip
    show_classes(found)
    show_types(found, before, after)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="each twin is counted so often")
    parser.add_argument("--releases", default="1.25.5,1.27.3", help="Go releases of the targets")
    parser.add_argument("--budget", default="1", help="per cent")
    parser.add_argument("--quick", action="store_true", help="a blink of each: does it work at all?")
    asked = parser.parse_args()
    if asked.quick:
        asked.seconds, asked.rounds, asked.releases = 1.5, 1, "1.25.5"
    for release in asked.releases.split(","):
        print(f"Go {release}, {asked.seconds:g} s, a budget of {asked.budget} %")
        loss(release, asked.seconds, asked.rounds, asked.budget)
        accuracy(release, asked.seconds, asked.budget)
        if not asked.quick:
            accuracy(release, asked.seconds, asked.budget, "-steady")
        profiled(release, asked.seconds, asked.budget)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
