"""The time from command to first report, on Debian's stripped prometheus (50 MB) and on small programs.

`make bench-start`, or: python -m tests.bench.start --runs 7 --against ../other/.venv/bin/gomem

Runs of two versions take turns, so that what slows the machine down slows both.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.builds import built
from tests.support.command import executable
from tests.support.debian import prometheus
from tests.support.parked import parked
from tests.support.prometheus import running_prometheus
from tests.support.toolchains import RELEASES

COMMANDS = (["snapshot"], ["trace", "--duration", "0"])


def timed(program: str, *words: str) -> tuple[float, float]:
    """Run a command; return how many seconds it took, and how many of CPU it used."""
    used, began = cpu_seconds(), time.monotonic()
    done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return time.monotonic() - began, cpu_seconds() - used


def cpu_seconds() -> float:
    """Return the CPU seconds that ended children have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(name: str, pid: int, programs: dict[str, str], runs: int) -> None:
    """Print the median time of each command on a process, by each program."""
    for command in COMMANDS:
        took: dict[str, list[tuple[float, float]]] = {label: [] for label in programs}
        for _ in range(runs):
            for label, program in programs.items():
                took[label].append(timed(program, *command, "--pid", str(pid)))
        words = " ".join([*command, "--pid", "PID"])
        for label, times in took.items():
            wall, cpu = zip(*times, strict=True)
            print(
                f"{name:<44} {label} {words:<30} median {statistics.median(wall):.2f} s"
                f"  ({min(wall):.2f} to {max(wall):.2f}, {runs} runs)  CPU {statistics.median(cpu):.2f} s", flush=True,
            )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--against", metavar="OTHER", help="another gomem, whose runs take turns with ours")
    asked = parser.parse_args()
    runs, programs = asked.runs, {"gomem": executable(), **({"other": asked.against} if asked.against else {})}
    with tempfile.TemporaryDirectory() as directory, running_prometheus(Path(directory)) as target:
        measure(f"prometheus, stripped, {prometheus().stat().st_size / 1e6:.0f} MB", target.pid, programs, runs)
    for release in RELEASES:
        for stripped in (True, False):
            binary = built("parked", release, stripped=stripped)
            form = "stripped" if stripped else "unstripped"
            with parked(binary, live=64) as small:
                measure(f"Go {release}, {form}, {binary.stat().st_size / 1e6:.1f} MB", small.pid, programs, runs)


if __name__ == "__main__":
    main()
