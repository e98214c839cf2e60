"""What `gomem serve` costs with many processes, half of them busy: CPU, memory, and how long scrapes take.

`make bench-fleet`, or: python -m tests.bench.fleet --processes 50 --seconds 60
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.soak import cpu_seconds, quantile, status, total
from tests.support.builds import built
from tests.support.churn import Crowd, crowd
from tests.support.serving import Serving, serving

RELEASES = ("1.19", "1.21.13", "1.23.9", "1.25.5", "1.27.3")
CPU_LIMIT = 0.05  # of one core
MEMORY_LIMIT = 200.0  # MB
SCRAPE_LIMIT = 0.050  # seconds, p99
_WITHIN = 300.0  # seconds until all must be followed


def populate(there: Crowd, count: int) -> None:
    """Start processes: as many of each release, every second one busy.

    Processes of one kind and release run the same executable, as replicas do.
    """
    kinds = {
        (release, name): there.program(f"{name}-{release}", built(name, release), release)
        for release in RELEASES
        for name in ("churn", "parked")
    }
    for number in range(count):
        busy, release = number % 2 == 0, RELEASES[number // 2 % len(RELEASES)]
        words: Sequence[object] = ("-mb", 8, "-phase", "10s") if busy else ()
        there.steady(kinds[release, "churn" if busy else "parked"], *words)


def scrapes(served: Serving, seconds: float, every: float) -> tuple[list[float], str]:
    """Scrape for a while; return the seconds that each took, and what the last one said."""
    until, times, said = time.monotonic() + seconds, list[float](), ""
    while time.monotonic() < until or not times:
        began = time.monotonic()
        said = served.get("/metrics")
        times.append(time.monotonic() - began)
        time.sleep(every)
    return times, said


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    cpu: float  # share of one core
    resident: float  # MB
    own: float  # MB of it that are in no file
    scrapes: list[float]  # seconds
    said: str  # by the last scrape

    def over_budget(self) -> list[str]:
        """Return what is more than it may be."""
        limits = (
            ("CPU", self.cpu, CPU_LIMIT),
            ("memory", self.resident, MEMORY_LIMIT),
            ("scrape p99", quantile(self.scrapes, 0.99), SCRAPE_LIMIT),
        )
        return [name for name, value, limit in limits if value > limit]

    def print(self) -> None:
        """Print them as a table."""
        said = self.said
        series = sum(not line.startswith("#") for line in said.splitlines())
        size, zipped = len(said) / 1e3, len(gzip.compress(said.encode(), 4)) / 1e3
        p50, p99 = (1e3 * quantile(self.scrapes, part) for part in (0.5, 0.99))
        lost = total(said, "gomem_tracer_lost_events_total")
        print(f"CPU        {self.cpu:.2%} of one core (budget {CPU_LIMIT:.0%})")
        print(f"RSS        {self.resident:.0f} MB, {self.own:.0f} MB of it anonymous (budget {MEMORY_LIMIT:.0f} MB)")
        print(f"interval   {total(said, 'gomem_tracer_round_interval_seconds'):.1f} s between looks at one process")
        print(f"events     {total(said, 'gomem_tracer_events_total'):,.0f}, and {lost:,.0f} lost")
        print(f"drift      {total(said, 'gomem_drift_bytes_total'):,.0f} bytes")
        print(f"scrapes    {series:,} series, {size:,.0f} kB, {zipped:,.1f} kB zipped")
        print(f"           p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(self.scrapes)}")


def measured(served: Serving, seconds: float, every: float) -> Figures:
    """Scrape for a while, and measure gomem meanwhile."""
    before, used = time.monotonic(), cpu_seconds(served.pid)
    times, said = scrapes(served, seconds, every)
    share = (cpu_seconds(served.pid) - used) / (time.monotonic() - before)
    memory = status(served.pid)
    return Figures(share, memory["VmRSS"] / 1024, memory["RssAnon"] / 1024, times, said)


def main() -> None:
    """Measure and print; fail where gomem takes more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between looks at one process")
    parser.add_argument("--scrape", type=float, default=1.0, help="seconds between scrapes")
    parser.add_argument("--warm-up", type=float, default=30.0, help="seconds after all are followed")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--black-box", action="store_true", help="have black boxes kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gomem-fleet-") as directory, crowd(Path(directory)) as there:
        populate(there, given.processes)
        began = time.monotonic()
        kept = ("--black-box", f"{directory}/black-box") if given.black_box else ()
        with serving("--exe", f"{directory}/*", "--interval", given.interval, *kept) as served:
            served.until(lambda: not there.missing(served.get("/metrics")), "all being followed", _WITHIN)
            print(f"{given.processes} processes followed {time.monotonic() - began:.1f} s after the start", flush=True)
            time.sleep(given.warm_up)
            figures = measured(served, given.seconds, given.scrape)
    figures.print()
    over = figures.over_budget()
    if over:
        raise SystemExit(f"over the budget: {', '.join(over)}")


if __name__ == "__main__":
    main()
