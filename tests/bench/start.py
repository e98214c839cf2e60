"""The time from command to first report, on Debian's stripped prometheus (50 MB) and on small programs.

`make bench-start`, or: python -m tests.bench.start --runs 7
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.support.builds import built
from tests.support.command import gomem
from tests.support.debian import prometheus
from tests.support.parked import parked
from tests.support.prometheus import running_prometheus
from tests.support.toolchains import RELEASES

COMMANDS = (["snapshot"], ["trace", "--duration", "0"])


def measure(name: str, pid: int, runs: int) -> None:
    """Print the median time of each command on a process."""
    for command in COMMANDS:
        seconds = []
        for _ in range(runs):
            done = gomem(*command, "--pid", pid)
            if done.status != 0:
                raise SystemExit(done.stderr)
            seconds.append(done.seconds)
        words = " ".join(["gomem", *command, "--pid", "PID"])
        print(
            f"{name:<44} {words:<36} median {statistics.median(seconds):.2f} s"
            f"  ({min(seconds):.2f} to {max(seconds):.2f}, {runs} runs)", flush=True,
        )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as directory, running_prometheus(Path(directory)) as target:
        measure(f"prometheus, stripped, {prometheus().stat().st_size / 1e6:.0f} MB", target.pid, runs)
    for release in RELEASES:
        for stripped in (True, False):
            binary = built("parked", release, stripped=stripped)
            form = "stripped" if stripped else "unstripped"
            with parked(binary, live=64) as small:
                measure(f"Go {release}, {form}, {binary.stat().st_size / 1e6:.1f} MB", small.pid, runs)


if __name__ == "__main__":
    main()
