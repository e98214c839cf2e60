"""Whether `gomem serve` stays as it is while processes come and go: half an hour, after a quarter of one to warm up.

`make bench-soak`, or: python -m tests.bench.soak --minutes 45 --rate 1000
Around long-lived Go programs of several releases there are crash loops, chains of programs that execute each other, and
programs in other languages that end at once; the metrics are scraped every second.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.support.builds import built
from tests.support.churn import Crowd, Label, crowd, labels_in
from tests.support.serving import Serving, serving
from tests.support.toolchains import RELEASES

FLAT = 2.0  # MB an hour that the memory may grow and still be called flat
# Seconds that do not count for the slope: bounded caches fill, and the allocators' heaps reach the size that they have
# when most processes come at once. Measured: +1 MB in steps until minute 20, nothing in the 20 minutes after that.
WARM_UP = 900.0
BLOCKS = 10  # means of neighbouring samples that the slope is of: single ones are not independent
TICKS = os.sysconf("SC_CLK_TCK")
_WITHIN = 90.0  # seconds until all long-lived processes must be followed


@dataclass(frozen=True, slots=True)
class Sample:
    """gomem at one moment; sizes in MB, counts since its start."""

    at: float  # seconds since the soak began
    resident: float
    anonymous: float
    fds: int
    threads: int
    cpu: float  # share of one core since the sample before
    targets: int
    series: int
    drift: float  # bytes
    lost: float
    scrapes: tuple[float, float]  # seconds, p50 and p99 since the sample before


@dataclass(slots=True)
class Story:
    """All that was seen."""

    samples: list[Sample] = field(default_factory=list)
    labels: set[Label] = field(default_factory=set)
    scrapes: int = 0
    missed: list[tuple[float, list[int]]] = field(default_factory=list)  # when, and which long-lived processes
    slowest: float = 0.0  # seconds


def status(pid: int) -> dict[str, int]:
    """Return the numbers of /proc/PID/status by name; memory in kB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)(?: kB)?$", text, re.MULTILINE)}


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def total(scrape: str, name: str) -> float:
    """Return the sum of all samples of a metric."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)", scrape, re.MULTILINE))


def quantile(seconds: Sequence[float], part: float) -> float:
    """Return what `part` of the values do not exceed."""
    return sorted(seconds)[min(int(len(seconds) * part), len(seconds) - 1)]


def slope(hours: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the slope per hour of a line through means of blocks, and its standard error; both inf for too few."""
    if len(hours) < BLOCKS:
        return float("inf"), float("inf")
    x = np.array([block.mean() for block in np.array_split(np.asarray(hours), BLOCKS)])
    y = np.array([block.mean() for block in np.array_split(np.asarray(values), BLOCKS)])
    (rise, start), off = np.polyfit(x, y, 1), x - x.mean()
    rest = y - (rise * x + start)
    return float(rise), float(np.sqrt((rest @ rest) / (BLOCKS - 2) / (off @ off)))


def settle_in(there: Crowd, count: int) -> None:
    """Start the long-lived programs."""
    for number in range(count):
        release = RELEASES[number % len(RELEASES)]
        program = there.program(f"steady-{number}", built("churn", release), release)
        there.steady(program, "-mb", 8 + 4 * (number % 4), "-phase", f"{1 + number % 5}s")


def churn(there: Crowd, loops: int, rate: float) -> int:
    """Start what comes and goes; return how many executables of Go programs that are."""
    executables = 0
    for number in range(loops):
        release = RELEASES[number % len(RELEASES)]
        there.loop([there.program(f"crash-{number}", built("tiny", release), release)], 0.2, 3.0)
        releases = [RELEASES[(number + stage) % len(RELEASES)] for stage in range(3)]
        chain = [there.program(f"stage-{number}-{one}", built("tiny", one), one) for one in releases]
        there.loop(chain, 0.2, 3.0)
        executables += 1 + len(chain)
    there.short_lived(rate)
    return executables


def scraped(served: Serving, there: Crowd, story: Story, began: float) -> tuple[str, float]:
    """Scrape once; return what was said and the seconds that it took."""
    started = time.monotonic()
    said = served.get("/metrics")
    took = time.monotonic() - started
    story.scrapes += 1
    story.slowest = max(story.slowest, took)
    story.labels |= labels_in(said)
    missing = there.missing(said)
    if missing:
        story.missed.append((started - began, missing))
    return said, took


def soak(served: Serving, there: Crowd, seconds: float, every: float) -> Story:
    """Scrape once a second, and take a sample of gomem and print it now and then."""
    story, began = Story(), time.monotonic()
    then, used, times = began, cpu_seconds(served.pid), list[float]()
    while time.monotonic() - began < seconds or not story.samples:
        said, took = scraped(served, there, story, began)
        times.append(took)
        now = time.monotonic()
        if now - then >= every:
            spent = cpu_seconds(served.pid)
            story.samples.append(sample(served.pid, now - began, (spent - used) / (now - then), said, times))
            print(row(story.samples[-1]), flush=True)
            then, used, times = now, spent, []
        time.sleep(max(0.0, 1.0 - took))
    return story


def sample(pid: int, at: float, cpu: float, said: str, times: Sequence[float]) -> Sample:
    """Return how gomem is now, and what its last scrape says."""
    memory = status(pid)
    return Sample(
        at=at,
        resident=memory["VmRSS"] / 1024,
        anonymous=memory["RssAnon"] / 1024,
        fds=descriptors(pid),
        threads=memory["Threads"],
        cpu=cpu,
        targets=int(total(said, "gomem_targets")),
        series=sum(not line.startswith("#") for line in said.splitlines()),
        drift=total(said, "gomem_drift_bytes_total"),
        lost=total(said, "gomem_tracer_lost_events_total"),
        scrapes=(statistics.median(times), quantile(times, 0.99)),
    )


HEAD = "      s   RSS MB  anon MB   fds  threads   CPU %  targets  series  drift B  lost   p50 ms   p99 ms"


def row(one: Sample) -> str:
    """Return a sample as a line of the table."""
    p50, p99 = (1e3 * seconds for seconds in one.scrapes)
    return (
        f"{one.at:7.0f} {one.resident:8.1f} {one.anonymous:8.1f} {one.fds:5d} {one.threads:8d} {100 * one.cpu:7.1f}"
        f" {one.targets:8d} {one.series:7d} {one.drift:8.0f} {one.lost:5.0f} {p50:8.1f} {p99:8.1f}"
    )


def flatness(samples: Sequence[Sample]) -> tuple[str, bool]:
    """Return what can be said of the memory's growth, and whether it is a fault."""
    settled = [one for one in samples if one.at > WARM_UP]
    rise, error = slope([one.at / 3600 for one in settled], [one.anonymous for one in settled])
    if error == float("inf"):
        return f"memory: too few samples for a slope ({len(settled)} after warm-up)", False
    said = f"memory: {rise:+.2f} MB/h (standard error {error:.2f}) after warm-up"
    if rise - 2 * error > FLAT:
        return f"{said}: GROWS", True
    if rise + 2 * error > FLAT:
        return f"{said}: too short to tell it from {FLAT:g} MB/h", False
    return f"{said}: flat", False


def verdict(story: Story, there: Crowd, fds: tuple[int, int, int]) -> list[str]:
    """Print what came of it; return the faults. `fds`: before the churn, as many as may be open after it, and are."""
    growth, grows = flatness(story.samples)
    print(growth)
    print(f"descriptors: {fds[0]} before the churn, {fds[2]} after it")
    slowest = 1e3 * story.slowest
    print(f"{story.scrapes} scrapes, the slowest {slowest:.0f} ms; {len(story.missed)} lacked a long-lived process")
    untrue = there.untrue(story.labels)
    print(f"{len(story.labels)} different processes and programs seen, {len(untrue)} of them misattributed")
    faults = ["the memory grows"] if grows else []
    if fds[2] > fds[1]:
        faults.append(f"descriptors leak: {fds[0]} became {fds[2]}, {fds[1]} were to be expected")
    faults += [f"at {at:.0f} s processes were not followed: {missing}" for at, missing in story.missed[:5]]
    return faults + [f"misattributed: {one}" for one in untrue[:5]]


def settled_descriptors(pid: int, most: int, within: float) -> int:
    """Return how many descriptors a process has open, as soon as they are not too many, at most after `within` s."""
    until = time.monotonic() + within
    while (now := descriptors(pid)) > most and time.monotonic() < until:
        time.sleep(0.5)
    return now


def main() -> None:
    """Soak and print; fail where something leaks or is lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="short-lived processes a second that are not Go")
    parser.add_argument("--steady", type=int, default=20, help="long-lived Go programs")
    parser.add_argument("--loops", type=int, default=4, help="crash loops, and as many exec chains")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="gomem-soak-") as directory,
        crowd(Path(directory)) as there,
        serving("--exe", f"{directory}/*", "--interval", "5") as served,
    ):
        settle_in(there, given.steady)
        served.until(lambda: not there.missing(served.get("/metrics")), "long-lived ones followed", _WITHIN)
        before = descriptors(served.pid)
        # Those of a program that is started again and again stay open for a while after its last process.
        most = before + churn(there, given.loops, given.rate)
        print(HEAD, flush=True)
        story = soak(served, there, 60 * given.minutes, given.every)
        short = there.end_churn()
        after = settled_descriptors(served.pid, most, _WITHIN)
        print(f"{there.lives:,} lives of Go programs in loops, {short:,} short-lived other processes")
        faults = verdict(story, there, (before, most, after))
    print(*(faults or ["no fault found"]), sep="\n")
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
