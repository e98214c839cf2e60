"""The goroutine profile, read from outside: what /debug/pprof/goroutine shows, of a process that has none.

Source: goroutineProfileWithLabels and saveg in runtime/mprof.go, writeRuntimeProfile and printCountProfile in
runtime/pprof/pprof.go.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from gomem.tracer.binary.call_frames import CallFrames
from gomem.tracer.errors import TargetError
from gomem.tracer.kernel.maps import read_mappings
from gomem.tracer.layout.layout import Layout
from gomem.tracer.process.memory import Memory, Words
from gomem.tracer.profile.code import GoCode
from gomem.tracer.profile.goroutine_calls import GoroutineCalls
from gomem.tracer.profile.stacks import Locations, Stacks, Symbols, complete
from gomem.tracer.report import Limit
from gomem.tracer.report.profile import Line, Location, Profile, Sample, ValueType
from gomem.tracer.runtime.goroutine_labels import LabelReader, Labels
from gomem.tracer.runtime.goroutine_stacks import CallTree, Unwinder
from gomem.tracer.runtime.goroutines import system_goroutines
from gomem.tracer.runtime.resting import Resting, read_resting
from gomem.tracer.snapshot.inspection import Inspector

TYPE = ValueType("goroutine", "count")
# Stack0 of runtime.StackRecord; since Go 1.23 debug.profstackdepth, what that is by default, and at most.
_DEPTH, _DEFAULT_DEPTH, _MOST_DEPTH = 32, 128, 1024
_CALL_HELD = 64
_RUNNING = Location(0, (Line("(running)"),))


@dataclass(frozen=True, slots=True)
class _Record:
    """Goroutines with equal stacks and labels. Of those that run, the stack is the function that they began with."""

    stack: tuple[int, ...]
    labels: Labels | None
    runs: bool


def goroutine_profile(inspector: Inspector) -> Profile:
    """Return the goroutine profile of a process as it is now; it is never stopped.

    A goroutine that runs meanwhile is shown as that, above the function that it began with: where it is, the registers
    of a CPU know. Raises TargetError where the process is not understood, SnapshotError and LayoutError where its
    goroutines make no sense, NotPermitted, TargetGone.
    """
    code, target = GoCode(inspector), inspector.target
    if not code.layout.confirmed:
        raise TargetError(f"{code.who} keeps its goroutines in a way that is not known of its Go release")
    locations = code.locations(read_mappings(target).mappings)
    memory = inspector.memory()
    memory.start_budget()
    addresses = code.globals(("allgs", "debug"))
    frames = CallFrames(code.executable, code.functions)
    calls = GoroutineCalls(code, frames, _depth(memory, code.layout, addresses))
    unwinder = Unwinder(calls.frame, calls.most, link_register=code.layout.goarch == "arm64")
    resting, now = read_resting(memory, code.layout, addresses, unwinder), time.time_ns()
    labels = LabelReader(memory, code.layout)
    counts = _records(resting, unwinder.tree, calls, labels, memory)
    target.check_same_program()
    samples = tuple(_samples(counts, locations, code.symbols))
    return Profile(
        sample_types=(TYPE,),
        samples=samples,
        locations=(*locations.all(), _RUNNING),
        mappings=locations.mappings(),
        period_type=TYPE,
        period=1,
        time_ns=now,
        comments=(f"goroutine profile of process {target.pid} ({target.exe}), read by gomem",),
        limits=(*_limits(resting, counts), *labels.limits()),
    )


def _depth(memory: Memory, layout: Layout, addresses: Mapping[str, int]) -> int:
    """Return how many addresses the runtime keeps of a stack."""
    if not layout.has("debug", "profstackdepth"):
        return _DEPTH
    if "debug" not in addresses:
        return _DEFAULT_DEPTH
    raw = memory.read(addresses["debug"] + layout.offset("debug", "profstackdepth"), 4)
    return min(max(int.from_bytes(raw, "little", signed=True), 0), _MOST_DEPTH)


def _records(
    resting: Resting, tree: CallTree, calls: GoroutineCalls, labels: LabelReader, memory: Memory
) -> Counter[_Record]:
    """Count the program's goroutines by stack and labels: at rest and running."""
    counts: Counter[_Record] = Counter()

    def calls_back(index: int) -> bool:
        return calls.is_in_program(tree.stack(int(resting.node[index])))

    own = system_goroutines(resting.goroutines, calls.name, calls_back)
    for node, pointer, count in _groups(resting.node[~own], resting.goroutines["labels"][~own]):
        stack = calls.told(tree.stack(node))
        memory.room.take(len(stack), _CALL_HELD, "calls in its goroutines' stacks")
        counts[_Record(stack, labels.read(pointer), False)] += count
    running = resting.running.some(~system_goroutines(resting.running, calls.name, lambda index: True))
    for start, pointer, count in _groups(running["startpc"].astype(np.int64), running["labels"]):
        counts[_Record((start + 1,), labels.read(pointer), True)] += count
    return counts


def _groups(keys: NDArray[np.int64], pointers: Words) -> Iterator[tuple[int, int, int]]:
    """Yield each pair that there is of keys and pointers, shape (n,) both, with how often it is there."""
    different, which = np.unique(pointers, return_inverse=True)
    known, key = np.unique(keys, return_inverse=True)
    pairs, counts = np.unique(key * max(len(different), 1) + which, return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        yield int(known[pair // len(different)]), int(different[pair % len(different)]), count


def _samples(counts: Counter[_Record], locations: Locations, symbols: Symbols) -> Iterator[Sample]:
    """Yield a sample for each record, the most goroutines first, those that run at the end."""
    records = sorted(counts, key=lambda record: _key(record, counts[record]))
    first = np.array([0, *accumulate(len(record.stack) for record in records)], np.int64)
    pcs = np.array([pc for record in records for pc in record.stack], np.uint64)
    stacks = locations.of(complete(Stacks(first, pcs), symbols))
    running = len(locations.all())
    for record, stack in zip(records, stacks, strict=True):
        yield Sample((running, *stack) if record.runs else stack, (counts[record],), record.labels or ())


def _key(record: _Record, count: int) -> tuple[bool, int, str]:
    """Return what records are sorted by (keysByCount)."""
    labels = ", ".join(sorted(f'"{name}":"{value}"' for name, value in record.labels or ()))
    key = "@" + "".join(f" {pc:#x}" for pc in record.stack)
    return record.runs, -count, key if record.labels is None else f"{key}\n# labels: {{{labels}}}"


def _limits(resting: Resting, counts: Counter[_Record]) -> Iterator[Limit]:
    running = sum(count for record, count in counts.items() if record.runs)
    if running:
        why = f"{running} of {counts.total()} ran while they were read; (running) stands above what each began with"
        yield Limit("goroutines-running", "where goroutines are that run", why, "")
    broken = int(np.count_nonzero(~resting.whole))
    if broken:
        why = (
            f"the stacks of {broken} goroutines lead to what is no code of the program's; their outer calls are missing"
        )
        yield Limit("goroutines-partly", "part of some stacks", why, "")
    if resting.unreadable:
        why = f"{resting.unreadable} of the runtime's goroutines cannot be read"
        yield Limit("goroutines-unreadable", "some goroutines", why, "")
