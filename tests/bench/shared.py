"""What following many processes costs: them, others on the machine, and us. Go program: tests/targets/calls.

python -m tests.bench.shared --targets 100
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gomem.bpf.probes.placement import CODE_LIMIT, probe_site
from gomem.bpf.shared_source import SharedSource
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from tests.support.builds import built
from tests.support.processes import rss

ROUNDS = 400
UNLIMITED = (1 << 32) - 1
CALLER = "syscall.RawSyscall"  # what each call of the loop goes through: the place of a probe that is always hit


def probe(path: Path) -> UprobeSpec:
    """Return a uprobe that every system call of the program hits."""
    exe = Executable.open(path)
    function = FunctionTable.find(exe).lookup(CALLER)[0]
    site = probe_site(exe.read_up_to(function.entry, CODE_LIMIT), function.entry)
    spec = UprobeSpec(
        "calls", EventKind.MALLOCGC, CALLER, str(path), exe.file_offset(site.address),
        return_address_offset=site.return_address_offset, emulated=site.emulated,
        skip_if_branch_taken=site.skip_if_branch_taken,
    )  # fmt: skip
    exe.close()
    return spec


def cost(path: Path, call: str, rounds: int, begin: Callable[[int], object] = lambda pid: None) -> float:
    """Return the CPU time of one call in ns: the least of some rounds, begun after `begin(pid)`."""
    command = [str(path), "-call", call, "-calls", "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            begin(process.pid)
            process.stdout.readline()
            return min(float(process.stdout.readline()) for _ in range(rounds))
        finally:
            process.kill()


@contextmanager
def idle(path: Path, count: int) -> Iterator[list[int]]:
    """Run processes that do nothing."""
    command = [str(path), "-calls", "1", "-every", "1h"]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds something took."""
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def calls(source: SharedSource, path: Path, pids: Sequence[int], rounds: int) -> None:
    """Print what a system call costs by who is followed."""
    print("CPU time of a system call, ns                              getppid  madvise")

    def row(name: str, begin: Callable[[int], object] = lambda pid: None) -> None:
        costs = [cost(path, call, rounds, begin) for call in ("getppid", "madvise")]
        print(f"  {name:<56} {costs[0]:7.0f}  {costs[1]:7.0f}", flush=True)

    row("no tracer")
    source.start()
    row("no process followed")
    source.add(pids[0])
    row("another one followed")
    for pid in pids[1:]:
        source.add(pid)
    row(f"{len(pids)} others followed")
    row("followed itself, over its budget", lambda pid: source.add(pid, budget=1))
    row("followed itself, the ring buffer full", lambda pid: source.add(pid, budget=UNLIMITED))
    source.poll(0)
    for pid in source.pids:
        source.remove(pid)


def hits(source: SharedSource, path: Path, pids: Sequence[int], rounds: int) -> None:
    """Print what a probed call costs by who else is probed."""
    spec = probe(path)
    print("CPU time of a getppid whose caller is probed, ns; all processes have one executable")

    def row(name: str, begin: Callable[[int], object] = lambda pid: None) -> None:
        print(f"  {name:<56} {cost(path, 'getppid', rounds, begin):7.0f}", flush=True)

    row("probed alone, over its budget", lambda pid: source.add(pid, [spec], budget=1))
    took = [timed(lambda pid=pid: source.add(pid, [spec])) for pid in pids]  # type: ignore[misc]
    row(f"{len(pids)} others probed, itself not")
    row(f"{len(pids)} others probed, and it, over its budget", lambda pid: source.add(pid, [spec], budget=1))
    print(f"adding a process: median {statistics.median(took) * 1e3:.2f} ms, longest {max(took) * 1e3:.2f} ms")


def ourselves(source: SharedSource, seconds: float) -> None:
    """Print what we need while they are idle, and to let go of them."""
    spent = time.process_time()
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        source.poll(1.0)
    share = (time.process_time() - spent) / (time.monotonic() - begin)
    count, fds = len(source.pids), len(os.listdir("/proc/self/fd"))
    print(f"{count} idle processes: {share:.4%} of a core, {rss(os.getpid()) / 1e6:.0f} MB resident, {fds} descriptors")
    removing = [timed(lambda pid=pid: source.remove(pid)) for pid in source.pids[: count // 2]]  # type: ignore[misc]
    print(f"removing a process: median {statistics.median(removing) * 1e3:.2f} ms, then in the background")
    print(f"stopping with {len(source.pids)} processes: {timed(source.stop):.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of 2000 calls; the cheapest counts")
    parser.add_argument("--release", default="1.25.5", help="Go release of the targets")
    options = parser.parse_args()
    path = built("calls", options.release)
    source = SharedSource()
    with idle(path, options.targets) as pids, suppress(KeyboardInterrupt):
        try:
            calls(source, path, pids, options.rounds)
            hits(source, path, pids, options.rounds)
            ourselves(source, min(options.rounds / 40, 10))
        finally:
            source.stop()


if __name__ == "__main__":
    main()
