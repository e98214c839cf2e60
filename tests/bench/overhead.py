"""What tracing costs a program that allocates as fast as it can: paired, interleaved windows of one process.

`make bench-overhead`, or: python -m tests.bench.overhead --pairs 8 --seconds 10
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass

from tests.support.builds import built
from tests.support.command import executable
from tests.support.processes import running

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)
SETTLE = 1.0  # seconds between windows


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of allocloop: when it came here, and what it says."""

    arrived: float
    elapsed: float
    objects: int


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
            self.ticks.append(Tick(time.monotonic(), int(nanoseconds) / 1e9, int(objects)))

    def rate(self, begin: float, end: float) -> float:
        """Return objects per second of the target's own clock between two moments."""
        inside = [tick for tick in self.ticks if begin <= tick.arrived <= end]
        return (inside[-1].objects - inside[0].objects) / (inside[-1].elapsed - inside[0].elapsed)


@dataclass(frozen=True, slots=True)
class Window:
    """Objects per second: while gomem watches, and from its start to its end."""

    watching: float
    whole: float


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


def untraced(ticker: Ticker, seconds: float) -> float:
    """Leave the target alone, and return its rate."""
    begin = time.monotonic()
    time.sleep(seconds)
    return ticker.rate(begin, time.monotonic())


def ratio(pairs: list[tuple[float, float]]) -> str:
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
    while_watching, overall = [], []
    with running(built("allocloop", options.release)) as target:
        ticker = Ticker(target)
        ticker.start()
        command = [executable(), "trace", "--pid", str(target.pid), "--duration", f"{options.seconds:g}",
                   "--backend", options.backend, "--format", "json"]  # fmt: skip
        print(f"allocloop, Go {options.release}, GOMAXPROCS={options.procs}; {shlex.join(command)}")
        time.sleep(2)
        for pair in range(options.pairs):
            if pair % 2:
                without = untraced(ticker, options.seconds)
                time.sleep(SETTLE)
                window = traced(ticker, command)
            else:
                window = traced(ticker, command)
                time.sleep(SETTLE)
                without = untraced(ticker, options.seconds)
            time.sleep(SETTLE)
            while_watching.append((window.watching, without))
            overall.append((window.whole, without))
            print(
                f"pair {pair + 1}: million objects/s {without / 1e6:.2f} untraced, {window.watching / 1e6:.2f} traced,"
                f" ratio {window.watching / without:.4f}", flush=True,
            )  # fmt: skip
    print(f"while watching:              {ratio(while_watching)}")
    print(f"from the command to its end: {ratio(overall)}")


if __name__ == "__main__":
    main()
