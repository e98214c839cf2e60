"""What tracers cost their target: one table, from pairs of programs that run side by side.

`make bench-overhead`, or: python -m tests.bench.overhead --rounds 3 --windows 4 --seconds 2

Machines change their speed by 10 % from second to second, which hides costs of 1 %. So every target runs twice, on one
CPU, where the two take turns every few milliseconds; a tracer is put on one of them, then on the other, and the figure
is how much less the traced one did than its twin. What a tracer costs the system calls of all processes would fall out
of that: it is measured by itself (overhead_calls.py), and is part of the first row. The column "no tracer" compares the
twins in the same way while nobody traces: its interval is the smallest effect that could have been seen.

With --against OTHER, another version's executable, that one traces the other twin at the same time: the figure is how
much less a program does under this gomem than under the other.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.bench.overhead_calls import calls_per_cpu_second, slower_by
from tests.bench.overhead_figures import of_calls, of_twins, ratio
from tests.bench.overhead_noise import Noise, cpu_seconds, moment, quietness
from tests.bench.overhead_targets import TARGETS, Rate, Workload, twins
from tests.bench.overhead_tracers import OURS, TRACERS, Tracer, missing, once_more, tracing

SETTLE = 0.3  # seconds between tracers
STARTS = 6.0  # until a second tracer is attached
WARM_UP = 1.0
NO_TRACER = "no tracer"

Twins = tuple[Workload, Workload]


@dataclass(frozen=True, slots=True)
class Window:
    """What the twins did in a window, what disturbed it, and the tracer's CPU seconds per second."""

    first: Rate
    second: Rate
    noise: Noise
    tracer_cpu: float = 0.0

    @property
    def by_cpu(self) -> float:
        """The first twin's work per CPU second, by the second's."""
        return self.first.by_cpu / self.second.by_cpu

    @property
    def by_clock(self) -> float:
        """The first twin's work, by the second's."""
        return self.first.by_clock / self.second.by_clock


@dataclass(slots=True)
class Cell:
    """All windows of one tracer on one target, by which twin was traced."""

    first: list[Window] = field(default_factory=list)
    second: list[Window] = field(default_factory=list)

    def by_cpu(self) -> list[float]:
        """Return the ratios of work per CPU second, traced by not traced."""
        return of_twins([one.by_cpu for one in self.first], [one.by_cpu for one in self.second])

    def by_clock(self) -> list[float]:
        """Return the ratios of work per second."""
        return of_twins([one.by_clock for one in self.first], [one.by_clock for one in self.second])

    def tracer_cpu(self) -> float:
        """Return the CPU seconds per second that the tracer itself used while it watched."""
        return statistics.fmean(window.tracer_cpu for window in [*self.first, *self.second])


@dataclass(slots=True)
class Measured:
    """One target: the cells of all tracers, and how many system calls it makes in a second of its CPU time."""

    cells: dict[str, Cell]
    calls: float


def window(pair: Twins, seconds: float, tracer_pid: int | None = None) -> Window:
    """Wait, and return what was done meanwhile."""
    processes = [*pair[0].processes, *pair[1].processes, *([tracer_pid] if tracer_pid else [])]
    before, tracer_before = moment(processes), cpu_seconds(tracer_pid) if tracer_pid else 0.0
    time.sleep(seconds)
    after, tracer_after = moment(processes), cpu_seconds(tracer_pid) if tracer_pid else 0.0
    first, second = (one.target.rate(before.at, after.at) for one in pair)
    return Window(first, second, before.until(after), (tracer_after - tracer_before) / (after.at - before.at))


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured, and which other gomem traces the other twin meanwhile, if any."""

    windows: int
    seconds: float
    against: str | None = None

    def settles(self, tracer: Tracer) -> float:
        """Return how long a tracer is left alone; a quick run measures nothing anyway."""
        return tracer.settles if self.seconds >= 1 else 2 * self.seconds


def traced(tracer: Tracer, pair: Twins, which: int, effort: Effort) -> list[Window]:
    """Trace one of the twins for some windows; the other is traced by the other gomem, or by nobody."""
    settles = effort.settles(tracer)
    # Starting a tracer takes a while, in which the first one must not end.
    lasts = settles + effort.windows * effort.seconds + SETTLE
    with contextlib.ExitStack() as stack:
        if effort.against:
            other = tracer.by(effort.against)
            stack.enter_context(tracing(other, pair[1 - which], lasts + STARTS))
        process = stack.enter_context(tracing(tracer, pair[which], lasts))
        time.sleep(settles)
        return [window(pair, effort.seconds, process.pid) for _ in range(effort.windows)]


def measure(pair: Twins, tracers: dict[str, int], effort: Effort) -> Measured:
    """Return the cells of one target; `tracers` says how many rounds of each there shall be."""
    cells = {name: Cell() for name in (NO_TRACER, *tracers)}
    left = dict(tracers)
    while any(left.values()):
        for name in [name for name, rounds in left.items() if rounds]:
            left[name] -= 1
            for which, into in enumerate((cells[name].first, cells[name].second)):
                time.sleep(SETTLE)
                cells[NO_TRACER].first.append(window(pair, effort.seconds))
                into += once_more(partial(traced, TRACERS[name], pair, which, effort))
                time.sleep(SETTLE)
                cells[NO_TRACER].second.append(window(pair, effort.seconds))
    return Measured(cells, calls_per_cpu_second(pair[0], effort.seconds))


def rows_of(name: str, measured: Measured, slower: dict[str, float]) -> list[tuple[str, list[str]]]:
    """Return the rows of one target, each with a cell for every column; `slower`: seconds, by tracer."""
    cells = measured.cells
    calls = {column: of_calls(measured.calls, slower.get(column, 0.0)) for column in cells}
    return [
        (f"{name}: work per CPU second", [str(ratio(cell.by_cpu()).times(calls[at])) for at, cell in cells.items()]),
        (f"{name}: - by what it does itself", [str(ratio(cell.by_cpu())) for cell in cells.values()]),
        (f"{name}: - by {measured.calls:,.0f} calls/s, slower", [f"{factor:.4f}" for factor in calls.values()]),
        (f"{name}: work per second", [str(ratio(cell.by_clock())) for cell in cells.values()]),
        (f"{name}: tracer's use of a core",
         ["" if at == NO_TRACER else f"{100 * cell.tracer_cpu():.1f} %" for at, cell in cells.items()]),
    ]  # fmt: skip


def show(columns: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> None:
    """Print the table."""
    first = max(len(name) for name, _ in rows)
    widths = [max(len(column), *(len(cells[at]) for _, cells in rows)) for at, column in enumerate(columns)]
    print(" " * first, *(column.ljust(width) for column, width in zip(columns, widths, strict=True)), sep="  ")
    for name, cells in rows:
        print(name.ljust(first), *(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), sep="  ")


def show_trust(name: str, measured: Measured) -> None:
    """Print how quiet the machine was while a target was measured, and what could have been seen."""
    noises = [one.noise for cell in measured.cells.values() for one in cell.first]
    print(f"{name}: {quietness(noises, os.cpu_count() or 1)[1]}.")
    alone = ratio(measured.cells[NO_TRACER].by_cpu())
    print(f"  {alone.pairs} pairs of untraced windows differ by {100 * alone.half_width:.2f} % per CPU second:"
          " of a tracer with as many, a smaller effect could not have been seen.")  # fmt: skip


def wanted_tracers(asked: str, rounds: int) -> dict[str, int]:
    """Return the tracers to measure with their numbers of rounds; say which cannot be."""
    chosen = {}
    for name in asked.split(","):
        tracer = TRACERS[name]
        reason = missing(tracer)
        if reason:
            print(f"{tracer.name} is left out: {reason}")
        else:
            # The cost of the others is seen with the naked eye.
            chosen[name] = rounds if tracer in OURS else 1
    return chosen


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="gomem is put on each twin; other tracers: once")
    parser.add_argument("--windows", type=int, default=4, help="in each round on each twin")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each window")
    parser.add_argument("--quick", action="store_true", help="one pair of short windows: does it work at all?")
    parser.add_argument("--targets", default="allocloop,httpserver,scavenger", help=f"some of {', '.join(TARGETS)}")
    parser.add_argument("--tracers", default="gomem,spans,strace,bpftrace", help=f"some of {', '.join(TRACERS)}")
    parser.add_argument("--release", default="1.25.5", help="Go release of the targets")
    parser.add_argument("--against", metavar="OTHER", help="another gomem, which traces the other twin")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.windows, asked.seconds = 1, 1, 0.4
    return asked


def main() -> None:
    """Measure and print."""
    asked = options()
    began = time.monotonic()
    tracers = wanted_tracers(asked.tracers, asked.rounds)
    effort = Effort(asked.windows, asked.seconds, asked.against)
    slower = {
        name: once_more(partial(slower_by, TRACERS[name], asked.release, rounds, quick=asked.quick))
        for name, rounds in tracers.items()
        if not asked.against  # both would make them slower
    }
    rows: list[tuple[str, list[str]]] = []
    trust = []
    for name in asked.targets.split(","):
        with twins(name, asked.release) as pair:
            time.sleep(min(WARM_UP, asked.seconds))
            measured = measure(pair, tracers, effort)
        rows += rows_of(name, measured, slower)
        trust.append((name, measured))
    columns = [NO_TRACER, *(TRACERS[name].name for name in tracers)]
    compared = f"with it / with {asked.against}" if asked.against else "with the tracer / without it"
    print(f"Go {asked.release}, windows of {asked.seconds:g} s; {compared}, median of the pairs"
          " (95 % bootstrap interval)\n")  # fmt: skip
    show(columns, rows)
    print()
    if slower:
        said = (f"{TRACERS[name].name} {1e9 * seconds:.0f} ns" for name, seconds in slower.items())
        print(f"A system call of any process takes longer by: {', '.join(said)}.")
    for name, measured in trust:
        show_trust(name, measured)
    print(f"It took {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
