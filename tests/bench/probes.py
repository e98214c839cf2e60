"""What one hit of a probe costs the target: allocloop with a probe on every allocation, Python with a busy madvise.

And what the optional roles cost at a page fault, and probes that are never hit at a context switch.

`make bench-probes`, or: python -m tests.bench.probes --seconds 3
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace

from gomem.bpf import cost
from gomem.bpf.governor import GovernedUprobes
from gomem.bpf.probes.placing import place
from gomem.bpf.source import BpfSource
from gomem.tracer.binary.executable import Executable
from gomem.tracer.binary.pclntab import FunctionTable
from gomem.tracer.events.optional_roles import OptionalRole
from gomem.tracer.events.probes import UprobeSpec
from gomem.tracer.events.record import EventKind
from gomem.tracer.layout.roles import resolve_roles
from tests.bench import residency, switches
from tests.bench.overhead_targets import Rate, Ticker
from tests.support.builds import built
from tests.support.processes import running

ADVISE = """
import ctypes, mmap, sys, time
madvise = ctypes.CDLL(None).madvise
madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
block = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(block))
while True:
    begin = time.process_time()
    for _ in range(20000):
        madvise(address, 4096, 4)
    print(time.monotonic(), (time.process_time() - begin) / 20000, flush=True)
"""


class Drain(threading.Thread):
    """Keeps a source from running full, so that hits pay for their record."""

    def __init__(self, source: BpfSource) -> None:
        super().__init__(daemon=True)
        self.source = source
        self.done = threading.Event()

    def run(self) -> None:
        """Poll until told to stop."""
        while not self.done.is_set():
            self.source.poll(0.05)


def untraced(ticker: Ticker, seconds: float) -> Rate:
    """Leave the target alone, and return its rate."""
    begin = time.monotonic()
    time.sleep(seconds)
    return ticker.rate(begin, time.monotonic())


def allocation_probes(path: str, release: str, *, at_entry: bool) -> list[UprobeSpec]:
    """Return the uprobes of role mallocgc, on their best instruction or on the functions' first."""
    exe = Executable.open(path)
    functions = FunctionTable.find(exe)
    roles = resolve_roles(f"go{release}", exe.machine, lambda name: bool(functions.lookup(name)))
    specs = place(exe, functions, [probe for probe in roles if probe.kind is EventKind.MALLOCGC], path)
    if at_entry:
        entries = {spec.symbol: exe.file_offset(functions.lookup(spec.symbol)[0].entry) for spec in specs}
        specs = [
            replace(
                spec,
                offset=entries[spec.symbol],
                return_address_offset=0,
                skip_if_branch_taken=False,
            )
            for spec in specs
        ]
    exe.close()
    return specs


def as_span_events(specs: Iterable[UprobeSpec]) -> GovernedUprobes:
    """Return probes of allocations that do what those of spans do: mallocgc's second argument is a pointer, too."""
    reads = ("[rbx+8]", "[rbx+16]*8192", "u8 [rbx+23]", "u8 rcx", "0", "0")
    of_spans = [replace(spec, kind=EventKind.SPAN_FREE, args=(), operands=reads) for spec in specs]
    return GovernedUprobes(of_spans, budget=1e9)


def per_allocation(release: str, seconds: float, *, at_entry: bool = False, as_span: bool = False) -> float:
    """Return the CPU seconds that a probed allocation costs more than an unprobed one."""
    path = str(built("allocloop", release))
    with running(path) as target:
        ticker = Ticker(target)
        ticker.start()
        time.sleep(1)
        without = untraced(ticker, seconds).by_cpu
        specs = allocation_probes(path, release, at_entry=at_entry)
        source = (
            BpfSource(target.pid, governed=[as_span_events(specs)], optional=[OptionalRole.SPANS])
            if as_span
            else BpfSource(target.pid, specs)
        )
        source.start()
        drain = Drain(source)
        drain.start()
        with_probe = untraced(ticker, seconds).by_cpu
        drain.done.set()
        drain.join()
        source.stop()
    return 1 / with_probe - 1 / without


def per_syscall(seconds: float) -> float:
    """Return the CPU seconds that a traced madvise costs more than an untraced one."""
    with subprocess.Popen([sys.executable, "-c", ADVISE], stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout is not None
        try:
            without = best(target.stdout, seconds)
            source = BpfSource(target.pid)
            source.start()
            drain = Drain(source)
            drain.start()
            traced = best(target.stdout, seconds)
            drain.done.set()
            drain.join()
            source.stop()
        finally:
            target.kill()
    return traced - without


def best(lines: Iterable[str], seconds: float) -> float:
    """Return the least CPU time per call of the rounds that begin from now on, and within `seconds`."""
    begin = time.monotonic()
    found = []
    for line in lines:
        when, spent = map(float, line.split())
        if when - 20000 * 2 * spent > begin:
            found.append(spent)
        if when > begin + seconds:
            break
    return min(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each window")
    parser.add_argument("--release", default="1.25.5", help="Go release of the target")
    options = parser.parse_args()
    os.environ["GOMAXPROCS"] = "1"
    release, seconds = options.release, options.seconds
    of_span = per_allocation(release, seconds, as_span=True)
    rows = (
        ("uprobe on an emulated instruction", per_allocation(release, seconds), cost.EMULATED),
        ("uprobe of a span event, which has no stack", of_span, cost.WITHOUT_STACK),
        ("uprobe on the first instruction", per_allocation(release, seconds, at_entry=True), cost.SINGLE_STEPPED),
        ("memory system call", per_syscall(seconds), cost.SYSCALL),
    )
    print("CPU time of the target per hit in a loop, with its record  measured   assumed by the estimate (cold caches)")
    for name, measured, assumed in rows:
        print(f"  {name:<52} {measured * 1e6:7.2f} us  {assumed * 1e6:7.2f} us")
    for title, costs in (("page fault", residency.costs), ("context switch", switches.costs)):
        print(f"CPU time of a target per {title}")
        for one in costs(release, seconds):
            price = "" if one.assumed is None else f"  {one.assumed * 1e6:7.2f} us"
            print(f"  {one.what:<52} {one.measured * 1e6:7.2f} us{price}", flush=True)


if __name__ == "__main__":
    main()
