"""What it takes to read heaps of one-object spans: time, bytes, reads and our own memory.

`make bench-snapshot`, or: python -m tests.bench.snapshot --release 1.27.3 --sizes 100,1024
Each measurement runs in a process of its own, whose peak memory is then that of the measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gomem.tracer.process.target import Target
from gomem.tracer.snapshot.inspection import Inspector
from tests.support.builds import built
from tests.support.command import executable
from tests.support.processes import rss, running, vm_size

SIZES = (100, 1024, 4096, 10240)
# Milliseconds and MB that are not to be exceeded, by MB of heap; the counters' limit holds for all sizes.
COUNTERS_LIMIT = 1.0
FULL_LIMIT = {1024: 150.0, 10240: 1500.0}
MEMORY_LIMIT = {10240: 400.0}


def measure_here(pid: int, what: str, runs: int) -> None:
    """Measure one kind of reading and print the figures as JSON: the body of the measuring process."""
    with Target.open(pid) as target, Inspector.open(target) as inspector:
        reader, memory = inspector.reader(), inspector.memory()
        kinds: dict[str, Callable[[], object]] = {
            "counters": reader.counters,
            "full": reader.snapshot,
            "look": inspector.look,
        }
        read = kinds[what]
        before = _peak_rss()
        seconds, cpu = [], []
        for _ in range(runs):
            memory.start_budget()
            memory.bytes_read = memory.reads = 0
            begin, begin_cpu = time.perf_counter(), time.process_time()
            result = read()
            seconds.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - begin_cpu)
            del result
        figures = {
            "first": seconds[0], "median": statistics.median(seconds), "cpu": statistics.median(cpu),
            "bytes": memory.bytes_read, "reads": memory.reads, "peak": _peak_rss(), "before": before,
        }  # fmt: skip
    print(json.dumps(figures))


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def measure(pid: int, what: str, runs: int) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.snapshot", "--pid", str(pid), "--what", what, "--runs", str(runs)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return figures


def _verdict(value: float, limit: float | None) -> str:
    return "" if limit is None else f" (limit {limit:g}{'' if value <= limit else ', EXCEEDED'})"


def _bench_size(binary: Path, megabytes: int, runs: int) -> bool:
    """Print the figures of one heap; return whether all limits hold."""
    limits: dict[str, float | None] = {
        "counters": COUNTERS_LIMIT,
        "full": FULL_LIMIT.get(megabytes),
        "look": None,
    }
    fine = True
    with running(binary, "-mb", megabytes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        print(
            f"heap of {megabytes / 1024:.1f} GB: VSZ {vm_size(process.pid) / 1e9:.1f} GB, "
            f"RSS {rss(process.pid) / 1e9:.2f} GB", flush=True,
        )  # fmt: skip
        for what, limit in limits.items():
            figures = measure(process.pid, what, 200 if what == "counters" else runs)
            median, peak = 1000 * figures["median"], figures["peak"] / 1e6
            memory_limit = MEMORY_LIMIT.get(megabytes)
            fine = fine and (limit is None or median <= limit) and (memory_limit is None or peak <= memory_limit)
            print(
                f"  {what:<9}median {median:7.2f} ms{_verdict(median, limit)}, CPU {1000 * figures['cpu']:.2f} ms, "
                f"first {1000 * figures['first']:.2f} ms; "
                f"{figures['bytes'] / 1e6:6.2f} MB in {figures['reads']:4.0f} reads; "
                f"our peak {peak:.0f} MB{_verdict(peak, memory_limit)}, before {figures['before'] / 1e6:.0f} MB",
                flush=True,
            )
        _bench_command(process.pid, runs)
    return fine


def _bench_command(pid: int, runs: int) -> None:
    """Print what the whole command takes, from its start to its end."""
    seconds, peak = [], 0
    with tempfile.TemporaryDirectory() as directory:
        command = [executable(), "snapshot", "--pid", str(pid), "--format", "json", "-o", f"{directory}/report"]
        for _ in range(runs):
            begin = time.perf_counter()
            process = subprocess.Popen(command)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
            seconds.append(time.perf_counter() - begin)
            peak = max(peak, usage.ru_maxrss << 10)
    print(
        f"  gomem snapshot --pid PID: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to "
        f"{max(seconds):.2f}; peak {peak / 1e6:.0f} MB", flush=True,
    )  # fmt: skip


def main() -> None:
    """Measure and print; exit 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--release", default="1.27.3")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="MB of heap, one after the other")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--what", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.pid:
        measure_here(asked.pid, asked.what, asked.runs)
        return
    binary = built("spans", asked.release)
    if not all([_bench_size(binary, int(size), asked.runs) for size in asked.sizes.split(",")]):
        raise SystemExit("a limit is exceeded")


if __name__ == "__main__":
    main()
