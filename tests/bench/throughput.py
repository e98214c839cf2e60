"""How many events a second go the whole way, from the kernel into the model, without a loss.

`make bench-throughput`, or: python -m tests.bench.throughput --from 100000 --step 50000

A program makes memory system calls on several threads at a rate that rises from run to run, on one core; `gomem trace`
watches it on another. The rate rises until events are lost twice in a row at one rate, or the program cannot make more:
each event costs the program itself the call and the walk over its stack. How much of its core the tracer then has left
tells how far from its own limit it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.overhead_noise import Noise, moment, quietness
from tests.support.builds import built
from tests.support.command import executable
from tests.support.processes import running

CALLS = ("mmap", "madvise", "munmap")  # of tests/targets/callstorm, in equal parts
_AS_ASKED = 0.9  # of the rate asked for; with less the program is at its end
_BASE = 0.3  # seconds: a trace of a program that does nothing, to leave out what is not for events


@dataclass(frozen=True, slots=True)
class Run:
    """One trace at one rate."""

    wanted: int  # events a second
    made: float  # events a second, by the program
    seen: int
    lost: int
    drift: int | None
    seconds: float
    cpu: float  # seconds, of the tracer
    noise: Noise

    @property
    def sustained(self) -> float:
        """The events a second that came all the way; not more than the program says, whose end comes a bit later."""
        return min(self.made, self.seen / self.seconds)

    @property
    def busy(self) -> float:
        """For which share of the time the tracer had a core to itself."""
        return self.cpu / self.seconds

    def line(self, idle: float) -> str:
        """Return the run in words; `idle`: CPU seconds of a trace without events."""
        each = (self.cpu - idle) / max(self.seen, 1) * 1e6
        return (
            f"{self.wanted:>9,} a second asked for  {self.made:>9,.0f} made  {self.sustained:>9,.0f} seen"
            f"  {self.lost:>9,} lost in all  drift {self.drift} B  tracer {each:.2f} us CPU an event, "
            f"{self.busy:.0%} of a core"
        )


class Storm:
    """A running callstorm."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def set_rate(self, calls: int) -> tuple[float, int]:
        """Change the calls per second; return when (time.monotonic), and how many there had been by then."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"%d\n" % calls)
        self.process.stdin.flush()
        return time.monotonic(), int(self.process.stdout.readline())

    def traced(self, calls: int, seconds: float, cpus: set[int]) -> Run:
        """Trace it at a rate, with a tracer that runs on `cpus`."""
        command = [executable(), "trace", "--pid", str(self.process.pid), "--duration", f"{seconds:g}",
                   "--backend", "bpf", "--format", "json"]  # fmt: skip
        began, before = self.set_rate(calls)
        quiet_before = moment([self.process.pid])
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tracer:
            os.sched_setaffinity(tracer.pid, cpus)
            out, said = tracer.communicate()
        # Its CPU time is among that of our ended children by now.
        noise = quiet_before.until(moment([self.process.pid]))
        ended, after = self.set_rate(0)
        if tracer.returncode != 0:
            raise SystemExit(f"gomem trace failed: {said.decode()}")
        report = json.loads(out)
        loss = report["event_loss"]
        seen = sum(report["events"].get(call, {}).get("count", 0) for call in CALLS)
        return Run(
            calls, (after - before) / (ended - began), seen, loss["lost"], loss["drift_bytes"],
            report["duration_seconds"], report["overhead"]["tracer_cpu_seconds"], noise,
        )  # fmt: skip


@contextmanager
def storm(release: str, threads: int, cpus: set[int]) -> Iterator[Storm]:
    """Run callstorm on `cpus`, still without calls, until the block ends."""
    with running(built("callstorm", release), "-threads", threads) as process:
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cpus)
        made = Storm(process)
        made.set_rate(0)
        for thread in Path(f"/proc/{process.pid}/task").iterdir():  # those that began meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cpus)
        yield made


def ramp(target: Storm, asked: argparse.Namespace, cpus: set[int]) -> list[Run]:
    """Return the runs at rising rates."""
    idle = target.traced(0, _BASE, cpus).cpu
    runs: list[Run] = []
    rate, failed = asked.first, 0
    while rate <= asked.most and failed < 2:
        run = target.traced(rate, asked.seconds, cpus)
        print(run.line(idle), flush=True)
        runs.append(run)
        if run.lost:
            failed += 1
            continue
        failed = 0
        if run.made < _AS_ASKED * run.wanted:
            print("the program cannot make more on its core: it is the limit, not gomem")
            break
        rate += asked.step
    return runs


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="first", type=int, default=50_000, help="events a second to begin with")
    parser.add_argument("--step", type=int, default=50_000)
    parser.add_argument("--to", dest="most", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each trace")
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--unpinned", action="store_true", help="let program and tracer share all cores")
    parser.add_argument("--release", default="1.25.5", help="Go release of the program")
    parser.add_argument("--quick", action="store_true", help="a short run at a low rate: does it work at all?")
    asked = parser.parse_args()
    if asked.quick:
        asked.first, asked.most, asked.seconds = 1000, 1000, 0.3
    return asked


def main() -> None:
    """Measure and print."""
    asked = options()
    cpus = sorted(os.sched_getaffinity(0))
    shared = len(cpus) == 1 or asked.unpinned
    with storm(asked.release, asked.threads, set(cpus) if shared else {cpus[0]}) as target:
        runs = ramp(target, asked, set(cpus) if shared else set(cpus[1:]))
    best = max((run for run in runs if not run.lost), key=lambda run: run.sustained, default=None)
    if best is None:
        print("0 events a second from the kernel into the model without a loss")
    else:
        told = f"{best.sustained:,.0f} events a second from the kernel into the model without a loss"
        print(f"{told}; the tracer had {max(1 - best.busy, 0):.0%} of its core left")
    print(f"{quietness([run.noise for run in runs], len(cpus))[1]}.")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
