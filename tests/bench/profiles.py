"""What a profile takes of us, and what it costs the process whose it is. Go programs: heapprofile, allocloop.

`make bench-profile`, or: python -m tests.bench.profiles --releases 1.27.3 --runs 5 --seconds 10 --rounds 3

The program of many stacks has MemProfileRate 1 and a bucket for each, 64 calls deep. Prometheus is Debian's, traefik is
PyPI's: stripped, and as large as Go programs are. The cost is that of twins on one CPU, as in overhead.py: a profile is
taken of one of them every second, then of the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gomem.tracer.process.target import Target
from gomem.tracer.profile import heap
from gomem.tracer.runtime.profile_buckets import Buckets, read_buckets
from gomem.tracer.snapshot.inspection import Inspector
from tests.bench.overhead_figures import of_twins, ratio
from tests.bench.overhead_noise import Noise, moment, quietness
from tests.bench.overhead_targets import Workload, twins
from tests.support.builds import built
from tests.support.command import executable
from tests.support.debian import prometheus
from tests.support.heapprofile import profiled
from tests.support.peak import peak
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.prometheus import running_prometheus
from tests.support.registries import traefik
from tests.support.toolchains import RELEASES

STACKS = 30_000
FORMS = ("pprof", "top", "html")
EVERY = 1.0  # seconds from the beginning of a profile to that of the next
NO_LIMIT = 8 << 30


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run of gomem took: seconds, and seconds of CPU."""

    wall: float
    cpu: float


def words(pid: int, form: str) -> list[str]:
    """Return the command, without the program, that takes a profile and lets it go."""
    return ["profile", str(pid), "--format", form, "-o", os.devnull]


def take(pid: int, form: str) -> Spent:
    """Take one profile from the command line."""
    begin = time.monotonic()
    process = subprocess.Popen([executable(), *words(pid, form)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"gomem {' '.join(words(pid, form))}: status {process.returncode}")
    return Spent(time.monotonic() - begin, usage.ru_utime + usage.ru_stime)


def peaks(pid: int) -> dict[str, int]:
    """Return the peak RSS of gomem in bytes, by the format of the profile that it takes."""
    return {form: peak(*words(pid, form), limit=NO_LIMIT)[0] for form in FORMS}


def measure(name: str, pid: int, runs: int, least: dict[str, int]) -> None:
    """Print what profiles of a process take; `least` are the peaks for a program that has a few buckets only."""
    reader = read_apart(pid, runs)
    print(
        f"{name}: {reader['buckets']:,} buckets, {reader['calls']:,} calls; the reader alone"
        f" {1e3 * reader['wall']:.1f} ms, {1e3 * reader['cpu']:.1f} ms CPU;"
        f" with names {1e3 * reader['named']:.0f} ms CPU"
    )
    found = peaks(pid)
    for form in FORMS:
        spent = [take(pid, form) for _ in range(runs)]
        wall, cpu = (statistics.median(getattr(one, what) for one in spent) for what in ("wall", "cpu"))
        print(
            f"  gomem profile --format {form:<6} {wall:6.2f} s {cpu:6.2f} s CPU"
            f"   peak {found[form] / 1e6:5.0f} MB, {(found[form] - least[form]) / 1e6:+.1f} MB", flush=True,
        )  # fmt: skip


def read_apart(pid: int, runs: int) -> dict[str, Any]:
    """Measure the reading in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.profiles", "--read", str(pid), "--runs", str(runs)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def read_here(pid: int, runs: int) -> None:
    """Read buckets, and print what that took as JSON: the body of the measuring process."""
    spent, named = [], []
    buckets: Buckets | None = None

    def timed(*arguments: Any) -> Buckets:
        nonlocal buckets
        begin, cpu = time.monotonic(), time.process_time()
        buckets = read_buckets(*arguments)
        spent.append(Spent(time.monotonic() - begin, time.process_time() - cpu))
        return buckets

    with patch.object(heap, "read_buckets", timed):
        for _ in range(runs):
            with Target.open(pid) as target, Inspector.open(target) as inspector:
                begin = time.process_time()
                heap.heap_profile(inspector)
                named.append(time.process_time() - begin)
    assert buckets is not None
    median = {what: statistics.median(getattr(one, what) for one in spent) for what in ("wall", "cpu")}
    counts = {"buckets": len(buckets.allocs), "calls": len(buckets.which)}
    print(json.dumps({**median, **counts, "named": statistics.median(named)}))


def by_cpu(pair: tuple[Workload, Workload], begin: float, end: float) -> float:
    """Return the work per CPU second of the first twin by the second's."""
    first, second = (one.target.rate(begin, end).by_cpu for one in pair)
    return first / second


def take_for(pid: int, seconds: float) -> int:
    """Take a profile every second; return how many there were."""
    taken, end = 0, time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        take(pid, "pprof")
        taken += 1
        time.sleep(max(min(begin + EVERY, end) - time.monotonic(), 0.0))
    return taken


def loss(release: str, seconds: float, rounds: int) -> None:
    """Print what is left of the work of a program that allocates, while profiles of it are taken."""
    profiled_by: list[list[float]] = [[], []]
    alone_by: list[list[float]] = [[], []]
    noises: list[Noise] = []
    taken = 0
    with twins("allocloop", release, flags=("-tags=profiled",)) as pair:
        time.sleep(min(1.0, seconds))
        known = [one.pid for one in pair]
        for _ in range(rounds):
            for which in (0, 1):
                before, begin = moment(known), time.monotonic()
                time.sleep(seconds)
                alone_by[which].append(by_cpu(pair, begin, time.monotonic()))
                begin = time.monotonic()
                taken += take_for(pair[which].pid, seconds)
                profiled_by[which].append(by_cpu(pair, begin, time.monotonic()))
                noises.append(before.until(moment(known)))
    print(f"work per CPU second, {taken} profiles taken / none: {ratio(of_twins(*profiled_by))}")
    print(f"the same while none is taken: {ratio(of_twins(*alone_by))}")
    print(quietness(noises, os.cpu_count() or 1)[1], flush=True)


def bench(releases: Sequence[str], runs: int, stacks: int) -> None:
    """Print what profiles of programs of these releases take."""
    for release in releases:
        path = built("heapprofile", release, stripped=True)
        with profiled(path) as few:
            least = peaks(few.pid)
            if stacks == STACKS:
                measure(f"Go {release}, a few stacks", few.pid, runs, least)
        with profiled(path, "-rate", 1, "-stacks", stacks) as many:
            measure(f"Go {release}, {stacks:,} stacks", many.pid, runs, least)
    if stacks == STACKS:
        size = prometheus().stat().st_size / 1e6
        with tempfile.TemporaryDirectory() as directory, running_prometheus(Path(directory)) as target:
            measure(f"prometheus, stripped, {size:.0f} MB", target.pid, runs, least)
        size = traefik().stat().st_size / 1e6
        with running_traefik() as pid:
            measure(f"traefik, stripped, {size:.0f} MB", pid, runs, least)


@contextlib.contextmanager
def running_traefik() -> Iterator[int]:
    """Run traefik until the block ends; yield its pid when it answers."""
    port = free_port()
    addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"]
    entries = [f"--entrypoints.{name}.address={at}" for name, at in zip(("traefik", "web"), addresses, strict=True)]
    command = [str(traefik()), "--ping", "--log.level=ERROR", *entries]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
            return True
        return False

    try:
        wait_until(answers, "traefik's answer")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", default=f"{RELEASES[0]},{RELEASES[-1]}", help="Go releases of the targets")
    parser.add_argument("--runs", type=int, default=5, help="of each command; medians are shown")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each window of the cost")
    parser.add_argument("--rounds", type=int, default=3, help="profiles are taken of each twin so often")
    parser.add_argument("--quick", action="store_true", help="a blink of each: does it work at all?")
    parser.add_argument("--read", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        read_here(asked.read, asked.runs)
        return
    if asked.quick:
        asked.runs, asked.seconds, asked.rounds, asked.releases = 1, 1.0, 1, RELEASES[-1]
    releases = asked.releases.split(",")
    bench(releases, asked.runs, 300 if asked.quick else STACKS)
    for release in releases:
        print(f"Go {release}, a program that allocates as fast as it can, a profile every {EVERY:g} s")
        loss(release, asked.seconds, asked.rounds)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
