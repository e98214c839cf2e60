"""What it costs to know which Go processes there are: a look at one process, and a thousand short-lived ones a second.

`make bench-discovery`, or: python -m tests.bench.discovery --seconds 20
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gomem.tracer.discovery.discovery import Discovery
from gomem.tracer.discovery.recognition import Recognition
from gomem.tracer.discovery.scan import executable_key, list_pids
from gomem.tracer.kernel.process_events import ProcessEvents
from tests.support.builds import built
from tests.support.processes import running

RELEASE = "1.25.5"
# Starts so many processes a second that execute a program and end, until its standard input ends.
CHURN = """
import os, select, sys, time
rate, started, began = float(sys.argv[1]), 0, time.monotonic()
while not select.select([0], [], [], max(0.0, began + started / rate - time.monotonic()))[0]:
    for _ in range(10):
        os.posix_spawn("/bin/true", ["true"], {})
        started += 1
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
print(started)
"""


def microseconds(action: Callable[[], object], times: int) -> float:
    """Return the median time of one call."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append((time.perf_counter() - began) * 1e6)
    return statistics.median(taken)


def recognition_costs() -> None:
    """Print what it costs to recognise an executable, for the first time and again."""
    with running(built("becomes", RELEASE), "x") as go, running("/bin/sleep", "1000") as other:
        time.sleep(0.2)
        for name, pid in (("a Go program", go.pid), ("a C program", other.pid)):
            recognition = Recognition()
            path = f"/proc/{pid}/exe"
            recognition.recognize(path)

            def first(path: str = path, recognition: Recognition = recognition) -> None:
                recognition.recognize(path)

            def again(pid: int = pid, recognition: Recognition = recognition) -> None:
                key = executable_key(pid)
                assert key is not None
                assert recognition.known(key) is not None

            print(
                f"{name:<14} first time {microseconds(first, 500):6.0f} us"
                f"   remembered {microseconds(again, 2000):5.1f} us"
            )


def scan_costs() -> None:
    """Print what one scan of this machine costs per process."""
    discovery = Discovery(listen=None, scan_every=0.0, settle=0.0)
    discovery.start()
    discovery.poll(0)
    processes = len(list_pids())
    taken = microseconds(lambda: discovery.poll(0), 200)
    discovery.stop()
    print(f"scan           {processes} processes in {taken / 1e3:.2f} ms, {taken / processes:.1f} us each")


def churn_costs(discovery: Discovery, seconds: float, rate: float) -> None:
    """Print the CPU that discovery takes while processes come and go."""
    command = [sys.executable, "-S", "-c", CHURN, str(rate)]
    with running(built("becomes", RELEASE), "x"):
        discovery.start()
        discovery.poll(0)
        churn = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        began, cpu, seen = time.monotonic(), time.process_time(), discovery.processes_seen
        memory, most_waiting = resident(), 0
        while (left := began + seconds - time.monotonic()) > 0:
            discovery.poll(min(left, 1.0))
            most_waiting = max(most_waiting, discovery.waiting)
        elapsed, used = time.monotonic() - began, time.process_time() - cpu
        started = int(churn.communicate()[0])
        print(
            f"{discovery.mode:<18} {started / elapsed:5.0f} processes/s for {elapsed:.0f} s: {used / elapsed:6.2%} of a"
            f" core; heard of {discovery.processes_seen - seen} of {started}, at most {most_waiting} waiting,"
            f" {discovery.overruns} overruns, {len(discovery.recognition)} executables remembered,"
            f" memory {(resident() - memory) / 1024:+.0f} KiB", flush=True,
        )  # fmt: skip
        discovery.stop()


def resident() -> int:
    """Return our resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    arguments = parser.parse_args()
    recognition_costs()
    scan_costs()
    for listen in (ProcessEvents.open, None):
        for rate in (arguments.rate / 100, arguments.rate):
            churn_costs(Discovery(listen=listen), arguments.seconds, rate)


if __name__ == "__main__":
    main()
