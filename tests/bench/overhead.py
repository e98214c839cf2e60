"""What tracing costs a program that allocates as fast as it can: paired, interleaved windows of one process.

`make bench-overhead`, or: python -m tests.bench.overhead --pairs 8 --seconds 10
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.builds import built
from tests.support.command import executable
from tests.support.processes import running

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)
SETTLE = 1.0  # seconds between windows


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of allocloop: when it came here, what it says, and the CPU seconds that the target had used by then."""

    arrived: float
    elapsed: float
    objects: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Objects per second of the target's own clock, and per second of CPU that it got."""

    by_clock: float
    by_cpu: float


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, to the nanosecond (proc(5): schedstat)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


class Ticker(threading.Thread):
    """Reads the lines of a running allocloop."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.ticks: list[Tick] = []

    def run(self) -> None:
        """Read until the process ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            nanoseconds, objects = line.split()
            cpu = cpu_seconds(self.process.pid)
            self.ticks.append(Tick(time.monotonic(), int(nanoseconds) / 1e9, int(objects), cpu))

    def rate(self, begin: float, end: float) -> Rate:
        """Return what the target did between two moments."""
        inside = [tick for tick in self.ticks if begin <= tick.arrived <= end]
        first, last = inside[0], inside[-1]
        objects = last.objects - first.objects
        return Rate(objects / (last.elapsed - first.elapsed), objects / (last.cpu - first.cpu))


@dataclass(frozen=True, slots=True)
class Window:
    """Objects per second: while gomem watches, and from its start to its end."""

    watching: Rate
    whole: Rate


def traced(ticker: Ticker, command: list[str]) -> Window:
    """Run the tracer once, and return the target's rates."""
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        # It says that it watches once every probe is in place; the state is read again when it is done.
        tracer.stderr.readline()
        attached = time.monotonic()
        seconds = float(command[command.index("--duration") + 1])
        time.sleep(seconds)
        detaching = time.monotonic()
        said = tracer.stderr.read()
    if tracer.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed with status {tracer.returncode}: {said}")
    return Window(ticker.rate(attached, detaching), ticker.rate(begin, time.monotonic()))


def untraced(ticker: Ticker, seconds: float) -> Rate:
    """Leave the target alone, and return its rate."""
    begin = time.monotonic()
    time.sleep(seconds)
    return ticker.rate(begin, time.monotonic())


def ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """Return the geometric mean of with/without, its 95 % confidence interval, and what that costs."""
    logs = [math.log(with_tracer / without) for with_tracer, without in pairs]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return f"{math.exp(mean):.4f}"
    student = STUDENT[min(len(logs) - 2, len(STUDENT) - 1)]
    error = student * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(mean - error), math.exp(mean + error)
    return f"{math.exp(mean):.4f}  (95 % confidence: {low:.4f} to {high:.4f}; cost {100 * (1 - math.exp(mean)):+.2f} %)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each window")
    parser.add_argument("--release", default="1.25.5", help="Go release of the target")
    parser.add_argument(
        "--procs", type=int, default=max(1, (os.cpu_count() or 1) - 1),
        help="GOMAXPROCS of the target; by default one core is left, so that the tracer does not compete with it",
    )  # fmt: skip
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    os.environ["GOMAXPROCS"] = str(options.procs)
    pairs: list[tuple[Window, Rate]] = []
    with running(built("allocloop", options.release)) as target:
        ticker = Ticker(target)
        ticker.start()
        command = [executable(), "trace", "--pid", str(target.pid), "--duration", f"{options.seconds:g}",
                   "--backend", options.backend, "--format", "json"]  # fmt: skip
        print(f"allocloop, Go {options.release}, GOMAXPROCS={options.procs}; {shlex.join(command)}")
        time.sleep(2)
        for number in range(options.pairs):
            if number % 2:
                without = untraced(ticker, options.seconds)
                time.sleep(SETTLE)
                window = traced(ticker, command)
            else:
                window = traced(ticker, command)
                time.sleep(SETTLE)
                without = untraced(ticker, options.seconds)
            time.sleep(SETTLE)
            pairs.append((window, without))
            by_clock, by_cpu = without.by_clock, without.by_cpu
            print(
                f"pair {number + 1}: untraced {by_clock / 1e6:.2f} million objects/s; traced"
                f" {window.watching.by_clock / by_clock:.4f} of it, by CPU time {window.watching.by_cpu / by_cpu:.4f}",
                flush=True,
            )
    report(pairs)


def report(pairs: list[tuple[Window, Rate]]) -> None:
    """Print the ratios of all pairs."""
    print("objects traced / untraced")
    print(f"  per second, while watching:              {ratio([(w.watching.by_clock, r.by_clock) for w, r in pairs])}")
    print(f"  per second, from the command to its end: {ratio([(w.whole.by_clock, r.by_clock) for w, r in pairs])}")
    # Whatever else runs on the machine takes CPU time away from the target, but none of its work in that time.
    print(f"  per CPU second, while watching:          {ratio([(w.watching.by_cpu, r.by_cpu) for w, r in pairs])}")


if __name__ == "__main__":
    main()
