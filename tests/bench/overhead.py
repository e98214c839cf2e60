"""What tracers cost their target: one table, from paired and interleaved windows of the same running programs.

`make bench-overhead`, or: python -m tests.bench.overhead --pairs 12 --seconds 3

Each traced window is compared with the two untraced ones around it, so that a machine that slowly changes its speed
changes no ratio. The column "no tracer" compares untraced windows with each other in the same way: its interval says
what the machine alone does, and so the smallest effect that could have been seen.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.overhead_figures import Ratio, ratio
from tests.bench.overhead_noise import Noise, cpu_seconds, moment, quietness
from tests.bench.overhead_targets import TARGETS, Rate, Workload, workload
from tests.bench.overhead_tracers import GOMEM, SPANS, TRACERS, Tracer, missing, tracing

SETTLE = 0.3  # seconds between windows
WARM_UP = 1.0
# A tracer whose cost is seen with the naked eye needs fewer pairs.
COARSE = 4
NO_TRACER = "no tracer"


@dataclass(frozen=True, slots=True)
class Window:
    """What target and load generator did in a window, what disturbed it, and the tracer's CPU seconds per second."""

    target: Rate
    load: Rate | None
    noise: Noise
    tracer_cpu: float = 0.0


@dataclass(slots=True)
class Cell:
    """All pairs of one tracer on one target: the traced window, and the untraced ones around it."""

    pairs: list[tuple[Window, list[Window]]] = field(default_factory=list)

    def add(self, window: Window, around: list[Window]) -> None:
        """Take one more pair."""
        self.pairs.append((window, around))

    def by_cpu(self) -> Ratio:
        """Return the ratio of work per CPU second of the target."""
        return ratio([w.target.by_cpu / statistics.fmean(u.target.by_cpu for u in us) for w, us in self.pairs])

    def by_clock(self) -> Ratio:
        """Return the ratio of work per second."""
        return ratio([w.target.by_clock / statistics.fmean(u.target.by_clock for u in us) for w, us in self.pairs])

    def of_load(self) -> Ratio | None:
        """Return the ratio of requests per CPU second of the load generator, which nobody traces."""
        ratios = []
        for window, around in self.pairs:
            if window.load is None:
                return None
            ratios.append(window.load.by_cpu / statistics.fmean(one.load.by_cpu for one in around if one.load))
        return ratio(ratios)

    def tracer_cpu(self) -> float:
        """Return the CPU seconds per second that the tracer itself used while it watched."""
        return statistics.median(window.tracer_cpu for window, _ in self.pairs)


def window(running: Workload, seconds: float, tracer_pid: int | None = None) -> Window:
    """Wait, and return what was done meanwhile."""
    processes = [*running.processes, *([tracer_pid] if tracer_pid else [])]
    before, tracer_before = moment(processes), cpu_seconds(tracer_pid) if tracer_pid else 0.0
    time.sleep(seconds)
    after, tracer_after = moment(processes), cpu_seconds(tracer_pid) if tracer_pid else 0.0
    target = running.target.rate(before.at, after.at)
    load = running.load.rate(before.at, after.at) if running.load else None
    return Window(target, load, before.until(after), (tracer_after - tracer_before) / (after.at - before.at))


def traced(tracer: Tracer, running: Workload, seconds: float) -> Window:
    """Trace the target for a window."""
    settles = min(tracer.settles, seconds)  # a quick run measures nothing anyway
    with tracing(tracer, running, settles + seconds + SETTLE) as process:
        time.sleep(settles)
        return window(running, seconds, process.pid)


def measure(running: Workload, tracers: dict[str, int], seconds: float) -> dict[str, Cell]:
    """Return the cells of one target; `tracers` says how many pairs of each there shall be."""
    cells = {name: Cell() for name in (NO_TRACER, *tracers)}
    left = dict(tracers)
    untraced = [window(running, seconds)]
    while any(left.values()):
        for name in [name for name, pairs in left.items() if pairs]:
            left[name] -= 1
            time.sleep(SETTLE)
            with_tracer = traced(TRACERS[name], running, seconds)
            time.sleep(SETTLE)
            untraced.append(window(running, seconds))
            cells[name].add(with_tracer, untraced[-2:])
    for before, middle, after in zip(untraced[:-2], untraced[1:-1], untraced[2:], strict=True):
        cells[NO_TRACER].add(middle, [before, after])
    if len(untraced) == 2:
        cells[NO_TRACER].add(untraced[1], untraced[:1])
    return cells


def rows_of(name: str, cells: dict[str, Cell]) -> list[tuple[str, list[str]]]:
    """Return the rows of one target, each with a cell for every column."""
    every = list(cells.values())
    rows = [
        (f"{name}: work per CPU second", [str(cell.by_cpu()) for cell in every]),
        (f"{name}: work per second", [str(cell.by_clock()) for cell in every]),
    ]
    if name == "httpserver":
        rows.append((f"{name}: load generator per CPU s", [str(cell.of_load()) for cell in every]))
    used = ["" if column == NO_TRACER else f"{100 * cell.tracer_cpu():.1f} %" for column, cell in cells.items()]
    return [*rows, (f"{name}: tracer's use of a core", used)]


def show(columns: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> None:
    """Print the table."""
    first = max(len(name) for name, _ in rows)
    widths = [max(len(column), *(len(cells[at]) for _, cells in rows)) for at, column in enumerate(columns)]
    print(" " * first, *(column.ljust(width) for column, width in zip(columns, widths, strict=True)), sep="  ")
    for name, cells in rows:
        print(name.ljust(first), *(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), sep="  ")


def show_trust(name: str, cells: dict[str, Cell]) -> None:
    """Print how quiet the machine was while a target was measured, and what could have been seen."""
    noises = [one.noise for cell in cells.values() for one, _ in cell.pairs]
    print(f"{name}: {quietness(noises, os.cpu_count() or 1)[1]}.")
    alone = cells[NO_TRACER]
    print(f"  {len(alone.pairs)} pairs of untraced windows differ by {100 * alone.by_cpu().half_width:.2f} % per CPU "
          f"second and {100 * alone.by_clock().half_width:.2f} % per second:"
          " of a tracer with as many pairs, a smaller effect could not have been seen.")  # fmt: skip


def wanted_tracers(asked: str, pairs: int) -> dict[str, int]:
    """Return the tracers to measure with their numbers of pairs; say which cannot be."""
    chosen = {}
    for name in asked.split(","):
        tracer = TRACERS[name]
        reason = missing(tracer)
        if reason:
            print(f"{tracer.name} is left out: {reason}")
        else:
            chosen[name] = pairs if tracer in (GOMEM, SPANS) else max(pairs // COARSE, 1)
    return chosen


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8, help=f"of gomem; other tracers: a {COARSE}th of it")
    parser.add_argument("--seconds", type=float, default=2.5, help="length of each window")
    parser.add_argument("--quick", action="store_true", help="one pair of short windows: does it work at all?")
    parser.add_argument("--targets", default="allocloop,httpserver,scavenger", help=f"some of {', '.join(TARGETS)}")
    parser.add_argument("--tracers", default=",".join(TRACERS), help=f"some of {', '.join(TRACERS)}")
    parser.add_argument("--release", default="1.25.5", help="Go release of the targets")
    parser.add_argument(
        "--procs", type=int, default=max(1, (os.cpu_count() or 1) // 2),
        help="GOMAXPROCS of target and load generator, each; by default half of the cores",
    )  # fmt: skip
    asked = parser.parse_args()
    if asked.quick:
        asked.pairs, asked.seconds = 1, 0.4
    return asked


def main() -> None:
    """Measure and print."""
    asked = options()
    tracers = wanted_tracers(asked.tracers, asked.pairs)
    rows: list[tuple[str, list[str]]] = []
    trust = []
    began = time.monotonic()
    for name in asked.targets.split(","):
        with workload(name, asked.release, asked.procs) as running:
            time.sleep(min(WARM_UP, asked.seconds))
            cells = measure(running, tracers, asked.seconds)
        rows += rows_of(name, cells)
        trust.append((name, cells))
    columns = [NO_TRACER, *(TRACERS[name].name for name in tracers)]
    print(f"Go {asked.release}, GOMAXPROCS={asked.procs}, windows of {asked.seconds:g} s; with the tracer / without it,"
          " median of the pairs (95 % bootstrap interval)\n")  # fmt: skip
    show(columns, rows)
    print()
    for name, cells in trust:
        show_trust(name, cells)
    print(f"It took {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
