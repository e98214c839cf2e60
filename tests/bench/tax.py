"""What a system call of any process takes longer while another one is followed, by how memory calls are seen.

    python -m tests.bench.tax [KERNEL...]

On this machine's kernel, or in a virtual machine with each of the named ones (tests/kernels), where the ratios count:
the machine is interpreted. Each figure is the median of pairs, without and with the tracer one after the other, of the
same loop (tests/targets/calls).
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gomem.bpf.memory_calls import MemoryCalls, SeenBy
from gomem.bpf.program import target_ids
from gomem.bpf.shared_program import MANY, SharedProgram
from tests.bench.shared import cost
from tests.kernels.debian import KERNELS, fetched
from tests.kernels.machine import boot
from tests.support.builds import built

ROOT = Path(__file__).parents[2]
RELEASE = "1.27.3"
WAYS: tuple[SeenBy, ...] = ("functions", "kprobes", "single calls", "all calls")
_LONGEST = 1800.0  # seconds that a virtual machine may take
_SCRIPT = """\
cd {root}
export HOME={home} PATH={path} LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 {cache}
{{
{python} -m tests.bench.tax --way functions --way 'single calls' --way 'all calls' --pairs {pairs} --rounds {rounds}
mount -t tmpfs none /sys/kernel/btf  # a kernel that was built without has no functions but by kprobes
{python} -m tests.bench.tax --way kprobes --pairs {pairs} --rounds {rounds}
}} >/run/results/tax 2>&1
"""


@contextmanager
def followed(program: SharedProgram, way: SeenBy) -> Iterator[bool]:
    """Have the programs see memory calls in a way until the block ends, if the kernel has it; take what they tell."""
    calls, ends = MemoryCalls(program, way, lasting=True), threading.Event()

    def take() -> None:
        while not ends.wait(0.05):
            program.ring.take()

    reader = threading.Thread(target=take)
    reader.start()
    try:
        yield calls.seen_by == way
    finally:
        ends.set()
        reader.join()
        calls.close()


class Tax:
    """The programs, loaded once, and the loop."""

    def __init__(self, rounds: int) -> None:
        self._path = built("calls", RELEASE)
        self._rounds = rounds
        self.program = SharedProgram(16 << 20, 1024, MANY)

    def pairs(self, call: str, way: SeenBy, times: int, *, itself: bool) -> list[list[float]]:
        """Return what a call takes without and with a tracer of another process, or of itself, ns: so many pairs."""
        found = []
        begin: Callable[[int], object] = self._enter if itself else lambda pid: None
        for _ in range(times):
            without = cost(self._path, call, self._rounds)
            with followed(self.program, way) as there:
                if not there:
                    return []
                found.append([without, cost(self._path, call, self._rounds, begin)])
        return found

    def _enter(self, pid: int) -> None:
        self.program.enter(target_ids(pid), (1 << 32) - 1)


def here(ways: Sequence[SeenBy], times: int, rounds: int) -> None:
    """Measure on this machine, and print."""
    tax = Tax(rounds)
    print(f"Linux {os.uname().release}: a system call takes, ns; without a tracer, with one, longer by, ratio")
    tax.program.enter(target_ids(os.getpid()), 1)
    for way in ways:
        for call, itself in (("getppid", False), ("madvise", False), ("madvise", True)):
            who = "followed itself" if itself else "another process followed"
            measured = tax.pairs(call, way, times, itself=itself)
            print(f"  {way:<12}  {call}, {who:<24}  {said(measured)}", flush=True)
    tax.program.close()


def said(measured: list[list[float]]) -> str:
    """Return the medians of pairs in words."""
    if not measured:
        return "not on this kernel"
    without, with_it = (statistics.median(column) for column in zip(*measured, strict=True))
    longer = statistics.median(after - before for before, after in measured)
    ratio = statistics.median(after / before for before, after in measured)
    return f"{without:7.0f} {with_it:7.0f} {longer:+7.0f} {ratio:6.2f}"


def in_machine(name: str, times: int, rounds: int) -> None:
    """Measure in a virtual machine with a kernel, and print what it prints."""
    directory = ROOT / "build" / "kernels" / f"tax-{name}"
    cache = os.environ.get("XDG_CACHE_HOME")
    script = _SCRIPT.format(
        root=shlex.quote(str(ROOT)), home=shlex.quote(str(Path.home())), path=shlex.quote(os.environ["PATH"]),
        cache=f"XDG_CACHE_HOME={shlex.quote(cache)}" if cache else "", python=shlex.quote(sys.executable),
        pairs=times, rounds=rounds,
    )  # fmt: skip
    kernel = next(kernel for kernel in KERNELS if kernel.name == name)
    boot(fetched(kernel), script, directory, _LONGEST)
    print((directory / "tax").read_text(), end="", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(kernel.name for kernel in KERNELS))
    parser.add_argument("--way", choices=WAYS, action="append", help="how memory calls are seen; all if there is none")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=200, help="of 2000 calls; the cheapest counts")
    options = parser.parse_args()
    for name in options.kernels:
        in_machine(name, options.pairs, options.rounds)
    if not options.kernels:
        here(options.way or WAYS, options.pairs, options.rounds)


if __name__ == "__main__":
    main()
