"""What a scrape of many processes takes: rendering a view, and answering from it.

python -m tests.bench.scrape --processes 100 --views 200
The reports are those of real programs of several sizes, watched for a moment with BPF where that works.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest

from gomem.exporters.prometheus import MetricOptions, Scrapes
from gomem.tracer.discovery.workload import Workload
from gomem.tracer.fleet.view import FleetView, Health, TargetState, TargetView
from gomem.tracer.report import Report
from tests.support.builds import built
from tests.support.client_metrics import ClientCollector
from tests.support.command import gomem
from tests.support.parked import parked
from tests.support.processes import running
from tests.support.prometheus import running_prometheus
from tests.support.reports import report_from
from tests.support.toolchains import RELEASES

LIMIT = 0.050  # seconds that 99 of 100 scrapes stay under
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2"
OPTIONS = {
    "default": MetricOptions(),
    "with size classes": MetricOptions(size_classes=True),
    "with client_golang's names": MetricOptions(go_collector=True),
    "with both": MetricOptions(size_classes=True, go_collector=True),
}


@contextmanager
def programs() -> Iterator[list[int]]:
    """Run programs of several kinds and releases."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pids = [stack.enter_context(running_prometheus(directory)).pid]
        pids.append(stack.enter_context(running(built("churn", RELEASES[-1]))).pid)
        for release in (RELEASES[0], RELEASES[-1]):
            pids.append(stack.enter_context(parked(built("parked", release), {"live": 64, "goroutines": 200})).pid)
        yield pids


def watched(pid: int, seconds: float) -> Report:
    """Return the report of a process that was watched for so long."""
    return report_from(gomem("trace", "--pid", pid, "--duration", seconds, "--format", "json").report())


def view_of(reports: Sequence[Report], count: int, round_number: int) -> FleetView:
    """Return a view of `count` processes, each a bit different from round to round."""
    workload = Workload("ab" * 32, "pod-uid", "orders-7c9f", "shop", "app", "node-1", {"app": "orders"})
    targets = [
        TargetView(
            10_000 + at, report.process.exe.rpartition("/")[2], TargetState.FOLLOWED, "", workload,
            replace(report, memstats={**(report.memstats or {}), "TotalAlloc": round_number * 4096 + at}),
            1e9, 1e9 + round_number, 0.005, round_number, 0, True, 1e9,
        )
        for at, report in enumerate(itertools.islice(itertools.cycle(reports), count))
    ]  # fmt: skip
    health = Health(1e9, "bpf", "", 1.0, 10**8, 200, round_number, 0.5, 15.0, 10**6, 0, 0, "scan", 10**4, count, 0, 0)
    return FleetView(tuple(targets), health, 1e9 + round_number)


def measure(reports: Sequence[Report], count: int, views: int, options: MetricOptions, prepared: bool) -> list[float]:
    """Return the seconds that the first scrape takes of each view in which all processes have changed.

    If `prepared`, their lines were written before.
    """
    newest = view_of(reports, count, 0)
    scrapes = Scrapes(lambda: newest, options)
    scrapes.answer(OPENMETRICS)
    seconds = []
    for number in range(1, views + 1):
        newest = view_of(reports, count, number)
        if prepared:
            scrapes.prepare()
        begin = time.perf_counter()
        scrapes.answer(OPENMETRICS)
        seconds.append(time.perf_counter() - begin)
    return seconds


def preparing(reports: Sequence[Report], count: int, views: int) -> list[float]:
    """Return the CPU seconds that it takes to write the lines of one process that was looked at."""
    newest = view_of(reports, count, 0)
    scrapes = Scrapes(lambda: newest)
    seconds = []
    for number in range(1, views + 1):
        newest = view_of(reports, count, number)
        begin = time.process_time()
        scrapes.prepare()
        seconds.append((time.process_time() - begin) / count)
    return seconds


def crowd(reports: Sequence[Report], count: int, scrapers: int) -> list[float]:
    """Return what each of many scrapers waits that ask for a new view at the same moment."""
    newest = view_of(reports, count, 0)
    scrapes = Scrapes(lambda: newest)
    begin, seconds = threading.Barrier(scrapers), []

    def scrape() -> None:
        begin.wait()
        started = time.perf_counter()
        scrapes.answer(OPENMETRICS)
        seconds.append(time.perf_counter() - started)

    threads = [threading.Thread(target=scrape) for _ in range(scrapers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def p99(seconds: Sequence[float]) -> float:
    """Return what 99 of 100 stay under."""
    return sorted(seconds)[min(len(seconds) * 99 // 100, len(seconds) - 1)]


def _milliseconds(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    middle, last = statistics.median(ordered), ordered[-1]
    return f"median {1e3 * middle:6.2f} ms  p99 {1e3 * p99(seconds):6.2f} ms  max {1e3 * last:6.2f} ms"


def _sizes(reports: Sequence[Report], count: int, options: MetricOptions) -> str:
    shown = view_of(reports, count, 1)
    body, _ = Scrapes(lambda: shown, options).answer(OPENMETRICS)
    lines = [line for line in body.splitlines() if not line.startswith(b"#")]
    each = [sum(f'pid="{10_000 + at}"'.encode() in line for line in lines) for at in range(len(reports))]
    zipped = len(gzip.compress(body, 4))
    return f"{len(lines):,} series, {each} a process, {len(body) / 1e6:.2f} MB, {zipped / 1e3:.0f} kB zipped"


def main() -> None:
    """Measure and print; fail where a scrape takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--views", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=2.0, help="of watching each program")
    given = parser.parse_args()
    with programs() as pids:
        reports = [watched(pid, given.seconds) for pid in pids]
    print(f"{given.processes} processes; the reports: {', '.join(_name(report) for report in reports)}")
    slowest = 0.0
    for name, options in OPTIONS.items():
        print(f"{name}: {_sizes(reports, given.processes, options)}")
        for prepared in (False, True):
            seconds = measure(reports, given.processes, given.views, options, prepared)
            when = "lines written when published" if prepared else "all written at first scrape"
            print(f"  {when:<30} {_milliseconds(seconds)}", flush=True)
            slowest = max(slowest, p99(seconds)) if prepared and options == MetricOptions() else slowest
    print(f"  CPU to write one process's lines {_milliseconds(preparing(reports, given.processes, 20))}")
    print(f"  10 scrapers of one new view   {_milliseconds(crowd(reports, given.processes, 10))}")
    shown, registry = view_of(reports, given.processes, 1), CollectorRegistry()
    registry.register(ClientCollector(lambda: shown))
    began = time.perf_counter()
    generate_latest(registry)
    print(f"  by prometheus_client itself   {1e3 * (time.perf_counter() - began):.0f} ms")
    print(f"  peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    if slowest > LIMIT:
        raise SystemExit(f"p99 {slowest * 1e3:.1f} ms is above {LIMIT * 1e3:.0f} ms")


def _name(report: Report) -> str:
    return f"{report.process.exe.rpartition('/')[2]} {report.process.go_version} by {report.backend}"


if __name__ == "__main__":
    main()
